"""`Length`: reward a completion for how long it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward


class Length(Reward):
    """1 for a completion of the length asked for, falling linearly to 0.

    Lengths are in words (runs of non-blank characters) of the completion. Below `min` the reward is
    length / min; above `max` it is 0 from twice `max` on; `target` asks for both.

    Args:
        target: the length to have.
        min: the least length that earns 1.
        max: the greatest length that earns 1.
        name: its name in `info["rewards"]`.

    Example:
        >>> [Length(max=4).value(n) for n in (0, 4, 5, 8)]
        [1.0, 1.0, 0.75, 0.0]
        >>> [Length(target=4).value(n) for n in (0, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5]
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        target: int | None = None,
        *,
        min: int | None = None,
        max: int | None = None,
        name: str = "length",
    ) -> None:
        if (target is None) == (min is None and max is None):
            raise ValueError(
                "`Length` takes either `target` or `min` and/or `max`, got "
                f"target={target}, min={min}, max={max}. Use `Length(max=40)`, for instance."
            )
        bounds = {"target": target, "min": min, "max": max}
        for key, bound in bounds.items():
            if bound is not None:
                check_positive_int(key, bound)
        self.min = target if target is not None else min
        self.max = target if target is not None else max
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` must be at most `max`, got min={min}, max={max}.")
        self.name = name

    def value(self, length: int) -> float:
        """The reward of a completion of `length` words."""
        if self.min is not None and length < self.min:
            return length / self.min
        if self.max is not None and length > self.max:
            return max(0.0, 2.0 - length / self.max)
        return 1.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(len(e.completion_text.split())) for e in episodes], np.float32)
