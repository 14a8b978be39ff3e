"""`TokenVectorEnv`: the one implementation of the token MDP, batched in numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym.envs.arguments import autoreset_mode_of, check_render_mode
from textgym.envs.contexts import Contexts, Observation
from textgym.envs.conversations import Conversations
from textgym.envs.infos import Infos, mark, put_numbers, put_objects
from textgym.envs.ledger import Ledger, Records
from textgym.envs.masks import ActionMask
from textgym.envs.rendering import RENDER_MODES, Scene, ansi, rgb_array
from textgym.envs.streams import InstanceStreams, Seed, chosen_instances, reset_rows
from textgym.episode import Episode, Instance
from textgym.errors import check_positive_int
from textgym.rewards.terms import RewardTerm, TermPayer, reward_terms
from textgym.seeding import check_split
from textgym.spaces import TokenSpace
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer, TokenizerSource

StepResult = tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]

# The parts of a `TokenVectorEnv` that keep state of their own.
_PARTS = ("contexts", "conversations", "ledger", "streams")

# Encoded prompts kept, for tasks that ask the same ones again.
_CACHED_PROMPTS = 4096


class TokenVectorEnv(VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """B rows in which an agent writes text token by token.

    ## Description
    Reset gives each row a prompt; each action appends a token. See `docs/semantics.md`.

    ## Observation Space
    `Dict(input_ids: [C] int64, attention_mask: [C] int8, remaining: [1] int64)`: the whole context,
    right-padded with id 0, and the tokens left of the budget.

    ## Action Space
    `TokenSpace(V)`, which is `Discrete(V)`: the next token.

    ## Rewards
    The task's score times `score_weight`, plus `rewards`, when an episode ends; a task's replies
    and per-token rewards are paid as they come.

    ## Episode End
    `terminated` on end-of-sequence, on the task's own end and on the budget; `truncated` after
    `max_episode_steps` alone.

    ## Arguments
    Args:
        task: what is asked and how it is scored.
        num_envs: B, the number of rows.
        tokenizer: what `Tokenizer.load` takes; None is the task's own, or the embedded one.
        split: ``"train"`` or ``"test"``: disjoint prompts.
        max_new_tokens: budget of the agent's own tokens, all turns together; None is the task's.
        max_turns: the most turns the agent has; None is the task's.
        min_new_tokens: end-of-sequence is masked before this many tokens.
        banned_tokens: ids (or tokens as text) that are never allowed.
        max_episode_steps: as `TimeLimit`; None is no limit.
        autoreset_mode: an `AutoresetMode` or its name.
        rewards: added rewards: each a `Reward`, a function of episodes, a spec, or one of these
            with a weight.
        score_weight: weight of the task's score.
        max_positions: the longest context the model can read, where known.
        copy: False lets observations be overwritten two steps later.
        render_mode: ``"ansi"``, ``"human"``, ``"rgb_array"`` or None.

    Raises:
        ValueError: where the longest possible context exceeds `max_positions`, among others.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        *,
        tokenizer: TokenizerSource = None,
        split: str = "train",
        max_new_tokens: int | None = None,
        max_turns: int | None = None,
        min_new_tokens: int = 0,
        banned_tokens: Iterable[int | str] = (),
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        rewards: Iterable[Any] = (),
        score_weight: float = 1.0,
        max_positions: int | None = None,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        if not isinstance(task, Task):
            raise TypeError(f"`task` must be a `Task`, got {type(task).__name__}.")
        self.task = task
        self.num_envs = check_positive_int("num_envs", num_envs)
        self.tokenizer = Tokenizer.load(task.tokenizer if tokenizer is None else tokenizer)
        self.split = check_split(split)
        self.max_new_tokens = check_positive_int(
            "max_new_tokens", task.max_new_tokens if max_new_tokens is None else max_new_tokens
        )
        self.max_turns = check_positive_int(
            "max_turns",
            task.max_turns if max_turns is None else max_turns,
            "Use `max_turns=1` for a single turn.",
        )
        if max_episode_steps is not None:
            check_positive_int("max_episode_steps", max_episode_steps, "None is no limit.")
        self.max_episode_steps = max_episode_steps
        self.score_weight = float(score_weight)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = check_render_mode(render_mode, RENDER_MODES)
        self.copy = bool(copy)
        self._mask = ActionMask(self.tokenizer, min_new_tokens, banned_tokens)
        self._ledger = Ledger(
            task, self.score_weight, reward_terms(rewards), self.num_envs, self.tokenizer
        )
        self._make_spaces(max_positions)
        self._make_rows()

    def _make_spaces(self, max_positions: int | None) -> None:

        def count(text: str) -> int:
            return len(self.tokenizer.encode(text))

        replies = self.task.reply_bound(count)
        self._prompt_bound = self.task.prompt_bound(count)
        self.context_size = self._prompt_bound + self.max_new_tokens + replies
        if max_positions is not None and self.context_size > max_positions:
            raise ValueError(
                f"the longest context has {self.context_size} tokens ({self._prompt_bound} of the "
                f"prompt, {self.max_new_tokens} new, {replies} of replies), but the model reads "
                f"{max_positions}. Use a smaller `max_new_tokens` or shorter prompts."
            )
        size = self.tokenizer.vocab_size
        self.single_observation_space = Dict(
            {
                "input_ids": Box(0, size - 1, (self.context_size,), np.int64),
                "attention_mask": Box(0, 1, (self.context_size,), np.int8),
                "remaining": Box(0, self.max_new_tokens, (1,), np.int64),
            }
        )
        self.single_action_space = TokenSpace(
            size,
            tokenizer_hash=self.tokenizer.hash,
            eos_token_id=self.tokenizer.eos_token_id,
            max_turns=self.task.max_turns,
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _make_rows(self) -> None:
        n = self.num_envs
        self._contexts = Contexts(
            n, self.context_size, self.max_new_tokens, alternate=not self.copy
        )
        self._conversations = Conversations(
            self.task,
            self.tokenizer,
            self._contexts,
            max_turns=self.max_turns,
            reply_bound=self.context_size - self._prompt_bound - self.max_new_tokens,
        )
        self._streams = InstanceStreams(self.task, self.split, n)
        self._prompt_ids: dict[str, NDArray[np.int64]] = {}
        self._all = np.arange(n)
        # Rows that await a reset, and those whose episode was closed by a score.
        self._over = np.ones(n, np.bool_)
        self._closed = np.zeros(n, np.bool_)
        # Rows that `max_episode_steps` cut in the step before, as they were then.
        self._cut: dict[int, Episode] = {}
        self._started = False

    # ------------------------------------------------------------------ reset
    def reset(
        self, *, seed: Seed = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin new episodes.

        Args:
            seed: an int seeds row i with the stream (seed, split, i); a list gives row i what a
                single env with seed `seed[i]` sees; None lets every stream go on.
            options: `instance` (an `Instance`), `prompt` (a str) or `index` (an int, the episode
                of the row's stream, which goes on from there) fixes what is asked, each one for
                all rows or a list of one per row; `reset_mask` (`[B] bool`) resets only some rows.
        """
        rows = reset_rows(options, self.num_envs)
        self._streams.seed(seed, rows)
        super().reset(seed=None if seed is None or np.ndim(seed) else int(seed))  # type: ignore[arg-type]
        instances = chosen_instances(options, rows, self._streams)
        infos: Infos = {}
        prompts = [self._encode_prompt(instance.prompt) for instance in instances]
        self._contexts.advance()
        self._cut = {}
        self._begin(rows, instances, prompts, infos)
        self._put_mask(infos, rows)
        self._started = True
        return self._observation(), infos

    def _begin(
        self,
        rows: Sequence[int],
        instances: Sequence[Instance],
        prompts: Sequence[NDArray[np.int64]],
        infos: Infos,
    ) -> None:
        for row, prompt_ids in zip(rows, prompts, strict=True):
            self._contexts.load(row, prompt_ids)
        self._conversations.begin(rows, instances)
        self._ledger.begin(rows)
        self._over[rows] = False
        self._closed[rows] = False
        put_objects(infos, "prompt", rows, [i.prompt for i in instances], self.num_envs)

    def _begin_next(self, rows: Sequence[int], infos: Infos) -> None:
        instances = [self._streams.draw(row) for row in rows]
        prompts = [self._encode_prompt(instance.prompt) for instance in instances]
        self._begin(rows, instances, prompts, infos)

    def _encode_prompt(self, prompt: str) -> NDArray[np.int64]:
        ids = self._prompt_ids.get(prompt)
        if ids is None:
            ids = np.array(self.tokenizer.encode(prompt), np.int64)
            if not 0 < len(ids) <= self._prompt_bound:
                raise ValueError(
                    f"prompt {prompt[:80]!r} has {len(ids)} tokens, expected 1 to "
                    f"{self._prompt_bound}, the longest this environment was made for."
                )
            if len(self._prompt_ids) >= _CACHED_PROMPTS:
                self._prompt_ids.clear()
            self._prompt_ids[prompt] = ids
        return ids

    # ------------------------------------------------------------------ step
    def step(self, actions: NDArray[np.int64]) -> StepResult:
        """Append one token to every row.

        Args:
            actions: `[B]` of any integer dtype, token ids.

        Raises:
            ValueError: for an id outside [0, V) or masked; nothing has changed then.
            ResetNeeded: where a row has ended and is not reset by itself.
            RewardError: where an added reward failed; the step is done, see its `result`.
        """
        rows, tokens = self._check_actions(actions)
        infos: Infos = {}
        self._contexts.advance()
        self._cut = {}
        if len(rows) < self.num_envs:
            self._begin_next(np.flatnonzero(self._over).tolist(), infos)
        rewards = np.zeros(self.num_envs, np.float64)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        exhausted = self._contexts.append(rows, tokens)
        if self.max_episode_steps is not None:  # each step of a row is a token of its own
            truncated[rows] = self._contexts.generated()[rows] >= self.max_episode_steps
        stopped = tokens == self.tokenizer.eos_token_id
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        reports: Infos = {} if same_step else infos
        ended: Records = ([], [])
        ending = (stopped | exhausted).nonzero()[0]
        if ending.size:
            ended = self._conversations.end_turns(
                rows[ending].tolist(), stopped[ending].tolist(), rewards
            )
            terminated[ended[0]] = self._closed[ended[0]] = True
        replies = (self._conversations.replied, self._conversations.reply_rewards)
        error = self._ledger.settle(ended, self.unfinished, replies, rewards, reports)
        over = terminated | truncated
        if not same_step:
            self._over = over
        elif over.any():
            self._restart(np.flatnonzero(over).tolist(), infos, reports)
        self._put_mask(infos, self._all)
        result = (self._observation(), rewards, terminated, truncated, infos)
        if error is not None:
            error.result = result
            raise error
        return result

    def _check_actions(self, actions: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows that act, and their tokens."""
        if not self._started:
            raise ResetNeeded("`step` was called before `reset`. Call `reset` first.")
        tokens = np.asarray(actions)
        if tokens.shape != (self.num_envs,) or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"`actions` must be an integer array of shape ({self.num_envs},), got shape "
                f"{tokens.shape} and dtype {tokens.dtype}."
            )
        rows = self._all
        if self._over.any():
            if self.autoreset_mode is not AutoresetMode.NEXT_STEP:
                raise ResetNeeded(
                    f"rows {np.flatnonzero(self._over).tolist()} have ended. Call `reset` with "
                    '`options={"reset_mask": terminated | truncated}` first.'
                )
            rows = np.flatnonzero(~self._over)
            tokens = tokens[rows]
        return rows, self._mask.check(rows, tokens, self._contexts.generated)

    def unfinished(self) -> tuple[list[int], list[Episode]]:
        """The rows in mid-episode that hold a token of their own, and their records so far.

        Rows that `max_episode_steps` cut in the last step are among them, as they were then.
        """
        rows = np.flatnonzero((self._contexts.generated() > 0) & ~self._closed).tolist()
        return [*rows, *self._cut], [*self._conversations.unfinished(rows), *self._cut.values()]

    def _restart(self, rows: list[int], infos: Infos, final_info: Infos) -> None:
        """`SAME_STEP`: file what ended under `final_obs` and `final_info`, and begin anew."""
        put_objects(infos, "final_obs", rows, self._contexts.copied_rows(rows), self.num_envs)
        self._put_mask(final_info, rows)
        infos["final_info"] = final_info
        mark(infos, "final_info", rows, self.num_envs)
        cut = [row for row in rows if not self._closed[row]]
        if cut:
            self._cut = dict(zip(cut, self._conversations.unfinished(cut), strict=True))
        self._begin_next(rows, infos)

    def _observation(self) -> Observation:
        return self._contexts.copied() if self.copy else self._contexts.observation

    # ------------------------------------------------------------------ masks
    @property
    def action_masks(self) -> Callable[[], NDArray[np.bool_]]:
        """Method that returns `[B, V] bool`, True where a token is allowed.

        Absent (`AttributeError`) where no mask applies, which is how libraries tell.
        """
        if not self._mask.applies:
            raise AttributeError("no action mask applies: every token is always allowed")
        return self._action_masks

    def _action_masks(self) -> NDArray[np.bool_]:
        return self._mask.table(self._contexts.generated())

    def _put_mask(self, infos: Infos, rows: Any) -> None:
        if self._mask.applies:
            masks = self._action_masks()[rows].astype(np.int8)
            put_numbers(infos, "action_mask", rows, masks, self.num_envs)

    @property
    def reward_terms(self) -> list[RewardTerm]:
        """The rewards that this environment itself adds, with their names and weights."""
        return self._ledger.terms

    @property
    def reward_payers(self) -> list[TermPayer]:
        """Those who pay these rewards."""
        return self._ledger.payers

    @property
    def ended(self) -> bool:
        """Whether a row awaits a reset."""
        return self._started and bool(self._over.any())

    # ------------------------------------------------------------------ rendering and snapshots
    def render(self) -> tuple[Any, ...] | None:
        """A frame a row: text (`"ansi"`), `[H, W, 3] uint8` (`"rgb_array"`), or None, printed."""
        if self.render_mode is None:
            raise ValueError('nothing to render to. Make the env with `render_mode="ansi"`.')
        if self.render_mode == "rgb_array":
            return tuple(
                rgb_array(self.scene(row), self.context_size) for row in range(self.num_envs)
            )
        frames = tuple(ansi(self.scene(row)) for row in range(self.num_envs))
        if self.render_mode == "human":
            print("\n".join(frames), flush=True)
            return None
        return frames

    def scene(self, row: int = 0) -> Scene:
        """What there is to see of `row`."""
        return Scene(*self._conversations.visible(row), self._ledger.outcomes[row])

    def _identity(self) -> dict[str, Any]:
        return {
            "task": type(self.task).__qualname__,
            "tokenizer": self.tokenizer.hash,
            "split": self.split,
            "num_envs": self.num_envs,
            "context_size": self.context_size,
            "max_new_tokens": self.max_new_tokens,
            "rewards": self._ledger.names,
        }

    def get_state(self) -> dict[str, Any]:
        """All that the future of every row depends on, as plain data that can be pickled."""
        return {
            "identity": self._identity(),
            **{name: getattr(self, f"_{name}").get_state() for name in _PARTS},
            "over": self._over.copy(),
            "closed": self._closed.copy(),
            "cut": dict(self._cut),
            "started": self._started,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave, here or in another env made alike.

        Raises:
            ValueError: where `state` is of an env made otherwise.
        """
        for key, own in self._identity().items():
            if state["identity"][key] != own:
                raise ValueError(
                    f"the state is of an env with {key} = {state['identity'][key]!r}, but this one "
                    f"has {own!r}. Make both alike."
                )
        for name in _PARTS:
            getattr(self, f"_{name}").set_state(state[name])
        self._over, self._closed = state["over"].copy(), state["closed"].copy()
        self._cut = dict(state["cut"])
        self._started = state["started"]
