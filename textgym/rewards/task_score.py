"""`TaskScore`: the environment's own score, for rewards made of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward, ScoreFunction
from textgym.tokenization import Tokenizer


class TaskScore(Reward):
    """What the task itself makes of an episode.

    An environment pays its score anyway. This is for where it is to be gated, scheduled,
    redistributed over tokens, or the potential of a shaping: ``shaped(task-score)``. It is known
    once an environment has bound it, and serves environments of one kind of task. Maximised by
    what the task asks for.

    Args:
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: where it judges before an environment has bound it.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = gym.make("textgym/Sorting-v0", score_weight=0.0, rewards=[TaskScore()])
        >>> _, info = env.reset(seed=0)
        >>> env.step(env.unwrapped.tokenizer.eos_token_id)[4]["rewards"]
        {'task-score': 0.0}
    """

    range = (0.0, 1.0)

    def __init__(self, *, name: str = "task-score") -> None:
        self.name = name
        self._score: ScoreFunction | None = None

    def bind(self, tokenizer: Tokenizer, score: ScoreFunction) -> None:
        """Learn the score; `ValueError` where it already serves another kind of task."""
        before, now = (_task_name(function) for function in (self._score, score))
        if self._score is not None and before != now:
            raise ValueError(
                f"this `TaskScore` already serves environments of {before}, and cannot score "
                f"{now} too. Make one for each."
            )
        self._score = score

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        if self._score is None:
            raise ValueError(
                f"reward `{self.name}` knows no task yet. Give it to an environment "
                '(`rewards=["task-score"]`, `AddReward`), or call `bind(tokenizer, '
                "task.score_batch)`."
            )
        return np.asarray(self._score(episodes), np.float32)


def _task_name(score: ScoreFunction | None) -> str:
    owner = getattr(score, "__self__", None)
    return getattr(score, "__qualname__", "?") if owner is None else type(owner).__name__
