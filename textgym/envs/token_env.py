"""`TokenEnv`: one row of the token MDP as a `gymnasium.Env`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos, row_info
from textgym.envs.rendering import BRIGHT, DIM, PLAIN, RENDER_MODES, Scene
from textgym.envs.token_vector_env import StepResult, TokenVectorEnv
from textgym.episode import Episode
from textgym.errors import RewardError
from textgym.rewards.terms import RewardTerm
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer, TokenizerSource


class TokenEnv(gym.Env[Observation, np.int64]):
    """An environment in which an agent writes text token by token: one row of `TokenVectorEnv`.

    ## Description
    Reset gives a prompt; each action appends a token. See `docs/semantics.md`.

    ## Observation Space
    `Dict(input_ids: [C] int64, attention_mask: [C] int8, remaining: [1] int64)`: the whole context,
    right-padded with id 0, and the tokens left of the budget.

    ## Action Space
    `TokenSpace(V)`, which is `Discrete(V)`: the next token.

    ## Rewards
    The task's score times `score_weight`, plus `rewards`, when the episode ends.

    ## Episode End
    `terminated` on end-of-sequence, on the task's own end and on the budget.

    ## Arguments
    Those of `TokenVectorEnv`, but for those that only several rows need.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        task: Task,
        *,
        tokenizer: TokenizerSource = None,
        split: str = "train",
        max_new_tokens: int | None = None,
        max_turns: int | None = None,
        min_new_tokens: int = 0,
        banned_tokens: Iterable[int | str] = (),
        max_episode_steps: int | None = None,
        rewards: Iterable[Any] = (),
        score_weight: float = 1.0,
        max_positions: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._rows = TokenVectorEnv(
            task,
            1,
            tokenizer=tokenizer,
            split=split,
            max_new_tokens=max_new_tokens,
            max_turns=max_turns,
            min_new_tokens=min_new_tokens,
            banned_tokens=banned_tokens,
            max_episode_steps=max_episode_steps,
            autoreset_mode="DISABLED",
            rewards=rewards,
            score_weight=score_weight,
            max_positions=max_positions,
            render_mode=render_mode,
        )
        self.observation_space = self._rows.single_observation_space
        self.action_space = self._rows.single_action_space
        self.render_mode = self._rows.render_mode
        self._shown, self._verdict_shown = "", False

    @property
    def task(self) -> Task:
        """What is asked and how it is scored."""
        return self._rows.task

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose ids are the actions."""
        return self._rows.tokenizer

    @property
    def split(self) -> str:
        """``"train"`` or ``"test"``."""
        return self._rows.split

    @property
    def max_new_tokens(self) -> int:
        """The budget of the agent's own tokens."""
        return self._rows.max_new_tokens

    @property
    def context_size(self) -> int:
        """C, the longest context."""
        return self._rows.context_size

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin a new episode.

        Args:
            seed: starts the stream (seed, split, 0); None lets the stream go on.
            options: `instance`, `prompt` or `index` fixes what is asked; never changed.
        """
        super().reset(seed=seed)
        observation, infos = self._rows.reset(seed=seed, options=options)
        if self.render_mode == "human":
            self._shown, self._verdict_shown = "", False
            self._show()
        return _first(observation), row_info(infos, 0)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Infos]:
        """Append `action`, a token id.

        Raises:
            ValueError: for an id outside [0, V) or masked; nothing has changed then.
            ResetNeeded: when the episode has ended.
            RewardError: where an added reward failed; the step is done, see its `result`.
        """
        actions = np.asarray(action)
        if actions.shape != ():
            raise ValueError(f"`action` must be one token id, got {action!r}.")
        if self._rows.ended:
            raise ResetNeeded("the episode has ended. Call `reset` first.")
        try:
            result = self._rows.step(actions[None])
        except RewardError as error:
            error.result = self._unbatched(error.result) if error.result else None
            raise
        if self.render_mode == "human":
            self._show()
        return self._unbatched(result)

    @staticmethod
    def _unbatched(result: StepResult | tuple[Any, ...]) -> tuple[Any, float, bool, bool, Infos]:
        observation, rewards, terminated, truncated, infos = result
        return (
            _first(observation),
            rewards.item(),
            terminated.item(),
            truncated.item(),
            row_info(infos, 0) if infos else {},
        )

    @property
    def action_masks(self) -> Callable[[], NDArray[np.bool_]]:
        """Method that returns `[V] bool`, True where a token is allowed.

        Absent (`AttributeError`) where no mask applies, which is how libraries tell.
        """
        _ = self._rows.action_masks
        return self._action_masks

    def _action_masks(self) -> NDArray[np.bool_]:
        masks: NDArray[np.bool_] = self._rows.action_masks()[0]
        return masks

    @property
    def score_weight(self) -> float:
        """Weight of the task's score in the reward."""
        return self._rows.score_weight

    @property
    def max_episode_steps(self) -> int | None:
        """Steps after which an episode is cut off; None is no limit."""
        return self._rows.max_episode_steps

    @property
    def reward_terms(self) -> list[RewardTerm]:
        """The rewards that this environment itself adds, with their names and weights."""
        return self._rows.reward_terms

    def unfinished(self) -> Episode | None:
        """The record of the episode so far; None when it has ended or holds no token yet."""
        _, episodes = self._rows.unfinished()
        return episodes[0] if episodes else None

    def scene(self) -> Scene:
        """What there is to see."""
        return self._rows.scene(0)

    def render(self) -> Any:
        """Text (`"ansi"`), `[H, W, 3] uint8` (`"rgb_array"`), or None (`"human"` prints)."""
        if self.render_mode == "human":
            self._show()
            return None
        frames = self._rows.render()
        return frames[0] if frames else None

    def _show(self) -> None:
        """Print what has been written since the last call: the text grows as it is typed."""
        scene = self.scene()
        # A character of several tokens reads as a replacement character until it is complete.
        text = "".join(piece for piece, _ in scene.pieces()).rstrip("\ufffd")
        style = BRIGHT if self._shown else DIM
        if text.startswith(self._shown) and text != self._shown:
            print(f"{style}{text[len(self._shown) :]}{PLAIN}", end="", flush=True)
            self._shown = text
        if scene.outcome is not None and not self._verdict_shown:
            print(f"\n{scene.verdict()}", flush=True)
            self._verdict_shown = True

    def get_state(self) -> dict[str, Any]:
        """All that the future depends on, as plain data that can be pickled."""
        return self._rows.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave, here or in another env made alike."""
        self._rows.set_state(state)


def _first(observation: Observation) -> Observation:
    return {key: value[0] for key, value in observation.items()}
