"""`Normalize`: a reward in units of its own standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.combine import Parts, as_float32, as_part, exactly, part_values

# Added to the variance, so that a constant reward is not divided by 0.
_EPSILON = 1e-8


class Normalize(Reward):
    """A reward divided by the standard deviation of its values so far, then clipped.

    As Gymnasium's `NormalizeReward` and SB3's `VecNormalize` do with returns: a reward that is paid
    once an episode is that episode's return. The mean is left alone unless `center` is set;
    subtracting it changes what an episode is worth that ends early, or late.

    A batch is normalised by what was known before it, so that its episodes are judged alike and in
    any order; then its finished episodes are counted in. Until `warmup` of them have been, values
    are only clipped. Nothing is counted while `learning` is False. Maximised as the reward is, up
    to where it is clipped.

    Written ``normalize(length:40; center=true)``.

    Args:
        reward: the one to normalise.
        center: subtract the mean of the values so far as well.
        clip: the greatest absolute value, in standard deviations.
        warmup: episodes to see before anything is divided, at least 2.
        name: its name in `info["rewards"]`.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances" (the running variance).

    Example:
        >>> from textgym.rewards import Length
        >>> Normalize(Length(40)).range, Normalize(Length(40), center=True).range
        ((0.0, 10.0), (-10.0, 10.0))
    """

    def __init__(
        self,
        reward: Any,
        *,
        center: bool = False,
        clip: float = 10.0,
        warmup: int = 16,
        name: str = "normalize",
    ) -> None:
        if not 0.0 < clip < math.inf:
            raise ValueError(f"`clip` must be a finite number above 0, got {clip!r}.")
        if check_positive_int("warmup", warmup) < 2:
            raise ValueError(f"`warmup` must be at least 2, got {warmup}: one value varies not.")
        self.reward = as_part(reward)
        self.parts = (self.reward,)
        self.center = bool(center)
        self.clip, self.warmup, self.name = float(clip), int(warmup), name
        self.count, self.mean, self._squares = 0, 0.0, 0.0
        low, high = self.reward.range
        # Dividing keeps signs, subtracting does not.
        low = 0.0 if low >= 0.0 and not center else -self.clip
        high = 0.0 if high <= 0.0 and not center else self.clip
        self.range = as_float32(low, high)

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        center: bool = False,
        clip: float = 10.0,
        warmup: int = 16,
        name: str = "normalize",
    ) -> Self:
        """``normalize(REWARD; center=true)``."""
        (reward,) = exactly(parts, 1, "normalize(REWARD; center=true)")
        return cls(reward, center=center, clip=clip, warmup=warmup, name=name)

    @property
    def std(self) -> float:
        """The standard deviation of the values so far; 1 before any."""
        return math.sqrt(self._squares / self.count + _EPSILON) if self.count else 1.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [-`clip`, `clip`]."""
        values = part_values(self.reward, episodes)
        normalised = values
        if self.count >= self.warmup:
            normalised = (values - self.mean * self.center) / self.std
        if self.learning:
            finished = np.array([e.finish_reason is not None for e in episodes], np.bool_)
            self._count_in(values[finished & np.isfinite(values)])
        return np.clip(normalised, -self.clip, self.clip).astype(np.float32)

    def _count_in(self, values: NDArray[np.float64]) -> None:
        if not len(values):
            return
        total, mean = self.count + len(values), float(values.mean())
        off = mean - self.mean
        self._squares += float(((values - mean) ** 2).sum())
        self._squares += off**2 * self.count * len(values) / total
        self.mean += off * len(values) / total
        self.count = total

    def figures(self) -> dict[str, float]:
        """The mean and the standard deviation so far."""
        return {**super().figures(), "mean": self.mean, "std": self.std}

    def own_state(self) -> dict[str, Any]:
        """How many values there were, their mean and their squared distances from it."""
        return {"count": self.count, "mean": self.mean, "squares": self._squares}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self.count, self.mean = int(state["count"]), float(state["mean"])
        self._squares = float(state["squares"])
