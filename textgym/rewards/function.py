"""`FunctionReward`: any function of a batch of episodes, as a reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward, RewardFunction


class FunctionReward(Reward):
    """A user's function as a reward.

    Args:
        function: takes a list of B episodes, returns B floats.
        name: its name in `info["rewards"]`; that of the function by default, and ``"reward"`` for
            a lambda.
        range: the least and the greatest value it can give, where known.

    Example:
        >>> brevity = FunctionReward(lambda episodes: [-len(e.completion_text) for e in episodes])
        >>> brevity.name
        'reward'
    """

    def __init__(
        self,
        function: RewardFunction,
        name: str | None = None,
        range: tuple[float, float] = (-float("inf"), float("inf")),
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"`reward` must be a `Reward` or a function of episodes, got {function!r}."
            )
        own_name = getattr(function, "__name__", type(function).__name__)
        self.function = function
        self.name = name or ("reward" if own_name == "<lambda>" else own_name)
        self.range = range

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, what the function returns; an array of its shape if that is not [B]."""
        return np.asarray(self.function(episodes), dtype=np.float32)
