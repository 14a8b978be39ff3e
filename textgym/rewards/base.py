"""`Reward`: a judgement of finished episodes, batched, with a name and a range."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode

RewardFunction = Callable[[Sequence[Episode]], "NDArray[np.floating] | Sequence[float]"]


class Reward(abc.ABC):
    """Scores a batch of finished episodes.

    Holds no state of a row, so that one object serves a single env, a vector env and another
    trainer's reward function. Any function from episodes to floats will do instead, see
    `FunctionReward`.

    A per-token reward also defines `per_token_rewards` and sets `per_token`. Each step then pays
    what the sum of an episode's token rewards has grown by since the step before, so that over an
    episode they add up to the sum of those of the finished episode, and `__call__` is that sum.

    Attributes:
        name: the key under which the component appears in `info["rewards"]`.
        range: the least and the greatest value it can give.
        per_token: True for a reward that `per_token_rewards` pays at every step.
    """

    name: str = "reward"
    range: tuple[float, float] = (-float("inf"), float("inf"))
    per_token: bool = False

    @abc.abstractmethod
    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, one reward for each of `episodes`."""

    def per_token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """One `[N] float32` an episode: a reward for each of its completion tokens so far.

        Only called where `per_token` is True. Unfinished episodes have no `finish_reason`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no per-token rewards")
