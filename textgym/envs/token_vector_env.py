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

from textgym.envs.arguments import (
    autoreset_mode_of,
    check_render_mode,
    copy_of,
    non_negative_int,
    token_ids,
)
from textgym.envs.contexts import Contexts, Observation
from textgym.envs.infos import Infos, mark, put_numbers, put_objects
from textgym.envs.rendering import RENDER_MODES, Scene, ansi, rgb_array
from textgym.envs.streams import InstanceStreams, Seed, chosen_instances, reset_rows
from textgym.episode import Episode, FinishReason, Instance, Turn
from textgym.errors import RewardError, check_positive_int
from textgym.rewards.terms import TermPayer, reward_terms
from textgym.seeding import check_split
from textgym.spaces import TokenSpace
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer, TokenizerSource

StepResult = tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]

# The attributes of a `TokenVectorEnv` that change from step to step, arrays and lists of plain data.
_STATE = (
    "_instances",
    "_turns",
    "_steps",
    "_replied",
    "_reply_rewards",
    "_over",
    "_closed",
    "_outcomes",
    "_cut",
    "_started",
)

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
        tokenizer: what `Tokenizer.load` takes; None is the embedded one.
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

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}

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
        self.tokenizer = Tokenizer.load(tokenizer)
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
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = check_render_mode(render_mode, RENDER_MODES)
        self.copy = bool(copy)
        self.score_weight = float(score_weight)
        self._payers = [TermPayer(term, num_envs) for term in reward_terms(rewards)]
        self._make_mask(min_new_tokens, banned_tokens)
        self._make_spaces(max_positions)
        self._make_rows()

    def _make_mask(self, min_new_tokens: int, banned_tokens: Iterable[int | str]) -> None:
        size, eos = self.tokenizer.vocab_size, self.tokenizer.eos_token_id
        self.min_new_tokens = non_negative_int("min_new_tokens", min_new_tokens)
        self._allowed = np.ones(size, np.bool_)
        self._allowed[token_ids("banned_tokens", banned_tokens, self.tokenizer)] = False
        self._masked = self.min_new_tokens > 0 or not bool(self._allowed.all())
        if not np.delete(self._allowed, eos).any() and (
            self.min_new_tokens or not self._allowed[eos]
        ):
            raise ValueError("`banned_tokens` leaves no token to choose. Ban fewer.")

    def _make_spaces(self, max_positions: int | None) -> None:
        count = self._count_tokens
        replies = self.task.reply_bound(count) if self._asks_for_replies else 0
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
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _make_rows(self) -> None:
        n = self.num_envs
        self._contexts = Contexts(
            n, self.context_size, self.max_new_tokens, alternate=not self.copy
        )
        self._streams = InstanceStreams(self.task, self.split, n)
        self._prompt_ids: dict[str, NDArray[np.int64]] = {}
        self._all = np.arange(n)
        self._instances: list[Instance] = [Instance("")] * n
        self._turns: list[tuple[Turn, ...]] = [()] * n
        self._steps = np.zeros(n, np.int64)
        self._replied = np.zeros(n, np.bool_)
        self._reply_rewards = np.zeros(n, np.float64)
        # Rows that await a reset, and those among them whose episode was closed by a score.
        self._over = np.ones(n, np.bool_)
        self._closed = np.zeros(n, np.bool_)
        self._outcomes: list[tuple[float, str] | None] = [None] * n
        # Rows that `max_episode_steps` cut in the step before, as they were then.
        self._cut: dict[int, Episode] = {}
        self._started = False

    @property
    def _asks_for_replies(self) -> bool:
        return type(self.task).reply is not Task.reply

    def _count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    # ------------------------------------------------------------------ reset
    def reset(  # type: ignore[override]  # a list of seeds too, as SyncVectorEnv takes
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
        super().reset(seed=int(seed) if hasattr(seed, "__index__") else None)  # type: ignore[arg-type]
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
        for row, instance, prompt_ids in zip(rows, instances, prompts, strict=True):
            self._contexts.load(row, prompt_ids)
            self._instances[row] = instance
            self._turns[row] = ()
            self._outcomes[row] = None
        self._steps[rows] = 0
        self._replied[rows] = False
        self._reply_rewards[rows] = 0.0
        self._over[rows] = False
        self._closed[rows] = False
        for payer in self._payers:
            payer.forget(rows)
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
        contexts = self._contexts
        contexts.advance()
        self._cut = {}
        if len(rows) < self.num_envs:
            self._begin_next(np.flatnonzero(self._over).tolist(), infos)
        rewards = np.zeros(self.num_envs, np.float64)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        exhausted = contexts.append(rows, tokens)
        self._steps[rows] += 1
        if self.max_episode_steps is not None:
            truncated[rows] = self._steps[rows] >= self.max_episode_steps
        stopped = tokens == self.tokenizer.eos_token_id
        ending = np.flatnonzero(stopped | exhausted)
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        where: Infos = {} if same_step else infos
        done: list[int] = []
        episodes: list[Episode] = []
        if ending.size:
            done, reasons = self._end_turns(
                rows[ending].tolist(), stopped[ending].tolist(), rewards
            )
            episodes = self._records(done, reasons)
            terminated[done] = True
        error = self._pay(done, episodes, rewards, where)
        over = terminated | truncated if truncated.any() else terminated
        if same_step:
            if over.any():
                self._restart(np.flatnonzero(over).tolist(), infos, where)
        else:
            self._over = over.copy()
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
        # As unsigned numbers, negative ids are huge: one comparison finds both kinds.
        faulty = tokens.astype(np.uint64) >= self._allowed.size
        if faulty.any():
            i = int(np.argmax(faulty))
            raise ValueError(
                f"action {tokens[i]} of row {rows[i]} is not a token id: expected 0 <= action < "
                f"{self._allowed.size}, the tokenizer's V. Nothing has changed."
            )
        tokens = tokens.astype(np.int64)
        if self._masked:
            self._check_allowed(rows, tokens)
        return rows, tokens

    def _check_allowed(self, rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> None:
        early = self._contexts.generated()[rows] < self.min_new_tokens
        faulty = ~self._allowed[tokens] | (early & (tokens == self.tokenizer.eos_token_id))
        if faulty.any():
            i = int(np.argmax(faulty))
            raise ValueError(
                f"action {tokens[i]} of row {rows[i]} is masked (of V = {self._allowed.size} "
                "tokens): choose one that `action_masks()` allows. Nothing has changed."
            )

    def _end_turns(
        self, rows: list[int], stopped: list[bool], rewards: NDArray[np.float64]
    ) -> tuple[list[int], list[FinishReason]]:
        """Close the turns of `rows`; return the rows whose episodes end with them, and why."""
        turns = [self._contexts.turn_ids(row) for row in rows]
        turns = [ids[:-1] if stop else ids for ids, stop in zip(turns, stopped, strict=True)]
        done: list[int] = []
        reasons: list[FinishReason] = []
        for row, stop, text in zip(
            rows, stopped, self.tokenizer.decode_completions(turns), strict=True
        ):
            self._turns[row] = (*self._turns[row], Turn("agent", text))
            reason: FinishReason | None = "length"
            if stop:
                reason = self._answer(row, rewards) if self._asks_for_replies else "stop"
            if reason is not None:
                done.append(row)
                reasons.append(reason)
        return done, reasons

    def _answer(self, row: int, rewards: NDArray[np.float64]) -> FinishReason | None:
        """Let the task reply to the turn of `row` just ended; None if the episode goes on."""
        turns = self._turns[row]
        reply = self.task.reply(self._instances[row], turns)
        if reply is None:
            return "stop"
        ids = self.tokenizer.encode(reply.text, special_tokens=False)
        room = self.context_size - int(self._contexts.lengths[row])
        remaining = int(self._contexts.observation["remaining"][row, 0])
        if len(ids) + remaining > room:
            raise ValueError(
                f"{type(self.task).__name__}: a reply of {len(ids)} tokens takes the episode's "
                f"replies {len(ids) + remaining - room} beyond its `reply_bound`."
            )
        self._contexts.extend(row, ids)
        self._turns[row] = (*turns, Turn("task", reply.text))
        self._replied[row] = True
        self._reply_rewards[row] += reply.reward
        rewards[row] += reply.reward
        if reply.terminated:
            return "task"
        if sum(turn.role == "agent" for turn in turns) >= self.max_turns:
            return "stop"
        return "length" if remaining == 0 else None

    def _records(self, rows: list[int], reasons: list[FinishReason]) -> list[Episode]:
        return [
            self._episode(row, self._turns[row], reason)
            for row, reason in zip(rows, reasons, strict=True)
        ]

    def _episode(self, row: int, turns: tuple[Turn, ...], reason: FinishReason | None) -> Episode:
        return Episode(
            instance=self._instances[row],
            input_ids=self._contexts.input_ids(row),
            completion_mask=self._contexts.completion_mask(row),
            completion_text="\n".join(turn.text for turn in turns if turn.role == "agent"),
            turns=turns,
            finish_reason=reason,
        )

    # ------------------------------------------------------------------ rewards and infos
    def _pay(
        self, done: list[int], episodes: list[Episode], rewards: NDArray[np.float64], where: Infos
    ) -> RewardError | None:
        """Score `done` and pay every reward; report both in `where`."""
        error: RewardError | None = None
        components: Infos = {}
        n = self.num_envs
        if done:
            scores = self._scores(episodes)
            if self.task.scored and self.score_weight:
                rewards[done] += self.score_weight * scores
                put_numbers(components, "score", done, self.score_weight * scores, n)
            replied = [row for row in done if self._replied[row]]
            if replied:
                put_numbers(components, "replies", replied, self._reply_rewards[replied], n)
            self._closed[done] = True
        for payer in self._payers:
            totals, problem = payer.pay(rewards, (done, episodes), self.unfinished)
            error = error or problem
            if done:
                put_numbers(components, payer.term.name, done, totals, n)
        if done:
            reasons = [episode.finish_reason for episode in episodes]
            for row, score, reason in zip(done, scores.tolist(), reasons, strict=True):
                self._outcomes[row] = (score, str(reason))
            put_objects(where, "prompt", done, [e.prompt for e in episodes], n)
            put_objects(where, "completion", done, [e.completion_text for e in episodes], n)
            put_objects(where, "finish_reason", done, reasons, n)
            put_numbers(where, "score", done, scores, n)
            where["rewards"] = components
            mark(where, "rewards", done, n)
            put_objects(where, "episode_record", done, episodes, n)
        return error

    def _scores(self, episodes: list[Episode]) -> NDArray[np.float64]:
        if not self.task.scored:
            return np.zeros(len(episodes))
        scores = np.asarray(self.task.score_batch(episodes), np.float64)
        if scores.shape != (len(episodes),) or not np.isfinite(scores).all():
            raise ValueError(
                f"{type(self.task).__name__}.score_batch must return {len(episodes)} finite "
                f"scores, got {scores!r}."
            )
        return scores

    def unfinished(self) -> tuple[list[int], list[Episode]]:
        """The rows in mid-episode that hold a token of their own, and their records so far.

        Rows that `max_episode_steps` cut in the last step are among them, as they were then.
        """
        rows = np.flatnonzero((self._contexts.generated() > 0) & ~self._closed).tolist()
        return [*rows, *self._cut], [*self._partial(rows), *self._cut.values()]

    def _partial(self, rows: list[int]) -> list[Episode]:
        texts = self.tokenizer.decode_completions([self._contexts.turn_ids(row) for row in rows])
        ongoing = (self._contexts.lengths > self._contexts.turn_starts)[rows]
        return [
            self._episode(
                row, (*self._turns[row], Turn("agent", text)) if own else self._turns[row], None
            )
            for row, text, own in zip(rows, texts, ongoing, strict=True)
        ]

    def _restart(self, rows: list[int], infos: Infos, final_info: Infos) -> None:
        """`SAME_STEP`: file what ended under `final_obs` and `final_info`, and begin anew."""
        put_objects(infos, "final_obs", rows, self._contexts.copied_rows(rows), self.num_envs)
        self._put_mask(final_info, rows)
        infos["final_info"] = final_info
        mark(infos, "final_info", rows, self.num_envs)
        cut = [row for row in rows if not self._closed[row]]
        if cut:
            self._cut = dict(zip(cut, self._partial(cut), strict=True))
        self._begin_next(rows, infos)

    def _observation(self) -> Observation:
        return self._contexts.copied() if self.copy else self._contexts.observation

    # ------------------------------------------------------------------ masks
    @property
    def action_masks(self) -> Callable[[], NDArray[np.bool_]]:
        """Method that returns `[B, V] bool`, True where a token is allowed.

        Absent (`AttributeError`) where no mask applies, which is how libraries tell.
        """
        if not self._masked:
            raise AttributeError("no action mask applies: every token is always allowed")
        return self._action_masks

    def _action_masks(self) -> NDArray[np.bool_]:
        masks = np.tile(self._allowed, (self.num_envs, 1))
        early = self._contexts.generated() < self.min_new_tokens
        masks[early, self.tokenizer.eos_token_id] = False
        return masks

    @property
    def ended(self) -> bool:
        """Whether a row awaits a reset."""
        return self._started and bool(self._over.any())

    def _put_mask(self, infos: Infos, rows: Any) -> None:
        if self._masked:
            masks = self._action_masks()[rows].astype(np.int8)
            put_numbers(infos, "action_mask", rows, masks, self.num_envs)

    # ------------------------------------------------------------------ rendering and snapshots
    def render(self) -> tuple[Any, ...] | None:
        """A frame a row: text (`"ansi"`), `[H, W, 3] uint8` (`"rgb_array"`), or None, printed."""
        if self.render_mode is None:
            raise ValueError('nothing to render to. Make the env with `render_mode="ansi"`.')
        if self.render_mode == "rgb_array":
            return tuple(rgb_array(self.scene(row), self.context_size) for row in self._all)
        frames = tuple(ansi(self.scene(row)) for row in self._all)
        if self.render_mode == "human":
            print("\n".join(frames), flush=True)
            return None
        return frames

    def scene(self, row: int = 0) -> Scene:
        """What there is to see of `row`."""
        turns = self._turns[row]
        if not self._closed[row]:
            (text,) = self.tokenizer.decode_completions([self._contexts.turn_ids(row)])
            turns = (*turns, Turn("agent", text))
        return Scene(self._instances[row].prompt, turns, self._outcomes[row])

    def _identity(self) -> dict[str, Any]:
        return {
            "task": type(self.task).__qualname__,
            "tokenizer": self.tokenizer.hash,
            "split": self.split,
            "num_envs": self.num_envs,
            "context_size": self.context_size,
            "max_new_tokens": self.max_new_tokens,
            "rewards": [payer.term.name for payer in self._payers],
        }

    def get_state(self) -> dict[str, Any]:
        """All that the future of every row depends on, as plain data that can be pickled."""
        return {
            "identity": self._identity(),
            "contexts": self._contexts.get_state(),
            "streams": self._streams.get_state(),
            "paid": [payer.paid.copy() for payer in self._payers],
            **{name: copy_of(getattr(self, name)) for name in _STATE},
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
        self._contexts.set_state(state["contexts"])
        self._streams.set_state(state["streams"])
        for payer, paid in zip(self._payers, state["paid"], strict=True):
            payer.paid = paid.copy()
        for name in _STATE:
            setattr(self, name, copy_of(state[name]))
