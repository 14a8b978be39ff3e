"""`Schedule`: a reward whose weight changes in the course of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.combine import Parts, as_part, exactly, part_values, scaled_range


class Schedule(Reward):
    """A reward times a weight that goes from `start` to `end`, and stays there.

    A reward sees episodes, not time steps: `over` counts the finished episodes it has judged, or
    the tokens that the agent wrote in them (which is time steps, all rows together). All episodes
    of a batch get the weight from before it. Nothing is counted while `learning` is False.
    Maximised as the reward is, while the weight is positive.

    Written ``schedule(length:40; start=1; end=0; over=10000)``.

    Args:
        reward: the one to weigh.
        start: the weight at first.
        end: the weight in the end.
        over: episodes or tokens in which it gets there.
        unit: what `over` counts.
        shape: ``"linear"``, or ``"cosine"``: slow at both ends.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.rewards import Length
        >>> fading = Schedule(Length(40), start=1.0, end=0.0, over=1000)
        >>> fading.weight, fading.range
        (1.0, (0.0, 1.0))
    """

    def __init__(
        self,
        reward: Any,
        start: float = 0.0,
        end: float = 1.0,
        over: int = 10_000,
        *,
        unit: Literal["episodes", "tokens"] = "episodes",
        shape: Literal["linear", "cosine"] = "linear",
        name: str = "schedule",
    ) -> None:
        for key, weight in (("start", start), ("end", end)):
            if not math.isfinite(weight):
                raise ValueError(f"`{key}` must be a finite number, got {weight!r}.")
        if unit not in ("episodes", "tokens"):
            raise ValueError(f"`unit` must be 'episodes' or 'tokens', got {unit!r}.")
        if shape not in ("linear", "cosine"):
            raise ValueError(f"`shape` must be 'linear' or 'cosine', got {shape!r}.")
        self.reward = as_part(reward)
        self.parts = (self.reward,)
        self.start, self.end = float(start), float(end)
        self.over = check_positive_int("over", over)
        self.unit, self.shape, self.name = unit, shape, name
        self.count = 0
        self.range = scaled_range((min(start, end), max(start, end)), self.reward.range)

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        start: float = 0.0,
        end: float = 1.0,
        over: int = 10_000,
        unit: Literal["episodes", "tokens"] = "episodes",
        shape: Literal["linear", "cosine"] = "linear",
        name: str = "schedule",
    ) -> Self:
        """``schedule(REWARD; start=1; end=0; over=10000)``."""
        (reward,) = exactly(parts, 1, "schedule(REWARD; start=1; end=0; over=10000)")
        return cls(reward, start, end, over, unit=unit, shape=shape, name=name)

    @property
    def weight(self) -> float:
        """The weight now."""
        done = min(1.0, self.count / self.over)
        if self.shape == "cosine":
            done = (1.0 - math.cos(math.pi * done)) / 2
        weight = (1.0 - done) * self.start + done * self.end
        # Rounding must not take it beyond either.
        return min(max(weight, min(self.start, self.end)), max(self.start, self.end))

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`."""
        values = self.weight * part_values(self.reward, episodes)
        if self.learning:
            finished = [e for e in episodes if e.finish_reason is not None]
            if self.unit == "episodes":
                self.count += len(finished)
            else:
                self.count += sum(int(e.completion_mask.sum()) for e in finished)
        return values.astype(np.float32)

    def figures(self) -> dict[str, float]:
        """The weight now."""
        return {**super().figures(), "weight": self.weight}

    def own_state(self) -> dict[str, Any]:
        """The episodes or tokens so far."""
        return {"count": self.count}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self.count = int(state["count"])
