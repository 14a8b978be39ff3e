"""Rewards made of others: `WeightedSum`, `Product`, `Minimum`, `Gate` and `Clip`.

Ranges are those that the parts' ranges allow, rounded to float32 as the values are. Only a sum
passes on what per-token parts pay as it comes; all others take what an episode earns in total.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward
from textgym.rewards.terms import RewardTerm

Parts = list[tuple[Reward, float]]  # rewards and their weights, as a specification gives them
Range = tuple[float, float]


class WeightedSum(Reward):
    """The sum of rewards, each times a weight.

    Per-token where one of its parts is: the others are then paid with the last token of a finished
    episode. Maximised as its parts are together; a part of a wide range drowns the others.

    Written ``sum(length:40*0.5; keywords:fox)``.

    Args:
        parts: each a `Reward`, a function of episodes or a spec, or one of these and a weight.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.rewards import Keywords, Length
        >>> WeightedSum([(Length(4), 0.5), (Keywords(["fox"]), -2)]).range
        (-2.0, 0.5)
    """

    def __init__(self, parts: Sequence[Any], *, name: str = "sum") -> None:
        terms = [_term(item) for item in _some(parts, "WeightedSum")]
        self.parts = tuple(term.reward for term in terms)
        self.weights = tuple(term.weight for term in terms)
        self.per_token = any(part.per_token for part in self.parts)
        self.name = name
        low = high = 0.0
        for part, weight in zip(self.parts, self.weights, strict=True):
            ends = sorted(_times(weight, end) for end in part.range)
            low, high = low + ends[0], high + ends[1]
        self.range = as_float32(low, high)

    @classmethod
    def from_parts(cls, parts: Parts, *, name: str = "sum") -> Self:
        """``sum(REWARD*WEIGHT; REWARD; ...)``."""
        return cls(parts, name=name)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`."""
        if self.per_token:
            arrays = self.per_token_rewards(episodes)
            sums = [float(array.sum(dtype=np.float64)) for array in arrays]
            return np.clip(np.array(sums, np.float32), *self.range)
        total = np.zeros(len(episodes))
        for part, weight in zip(self.parts, self.weights, strict=True):
            total += weight * part_values(part, episodes)
        return total.astype(np.float32)

    def per_token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """`[N] float32` an episode: the parts', weighted and added up."""
        totals = [np.zeros(int(e.completion_mask.sum())) for e in episodes]
        ends = [i for i, e in enumerate(episodes) if e.finish_reason and len(totals[i])]
        finished = [episodes[i] for i in ends]
        for part, weight in zip(self.parts, self.weights, strict=True):
            if part.per_token:
                for total, array in zip(totals, part.per_token_rewards(episodes), strict=True):
                    total += weight * array
            elif finished:
                for i, value in zip(ends, part_values(part, finished), strict=True):
                    totals[i][-1] += weight * value
        return [total.astype(np.float32) for total in totals]


class Product(Reward):
    """The product of rewards: for rewards in [0, 1], all must be good at once.

    Mind the signs: two negative parts make a positive product.

    Written ``product(length:40; keywords:fox)``.

    Args:
        parts: each a `Reward`, a function of episodes or a spec, or one of these and a weight.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.rewards import Keywords, Repetition
        >>> Product([Keywords(["fox"]), (Repetition(), 2)]).range
        (-2.0, 0.0)
    """

    def __init__(self, parts: Sequence[Any], *, name: str = "product") -> None:
        self.parts = tuple(as_part(item) for item in _some(parts, "Product"))
        self.name = name
        low = high = 1.0
        for part in self.parts:
            corners = [_times(x, y) for x in (low, high) for y in part.range]
            low, high = min(corners), max(corners)
        self.range = as_float32(low, high)

    @classmethod
    def from_parts(cls, parts: Parts, *, name: str = "product") -> Self:
        """``product(REWARD; REWARD; ...)``."""
        return cls(parts, name=name)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`."""
        total = np.ones(len(episodes))
        for part in self.parts:
            total *= part_values(part, episodes)
        return total.astype(np.float32)


class Minimum(Reward):
    """The least of several rewards: the worst case counts.

    Only what is worst pays to improve, so that no part can be traded for another.

    Written ``minimum(length:40; keywords:fox)``.

    Args:
        parts: each a `Reward`, a function of episodes or a spec, or one of these and a weight.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.rewards import Keywords, Repetition
        >>> Minimum([Keywords(["fox"]), Repetition()]).range
        (-1.0, 0.0)
    """

    def __init__(self, parts: Sequence[Any], *, name: str = "minimum") -> None:
        self.parts = tuple(as_part(item) for item in _some(parts, "Minimum"))
        self.name = name
        self.range = as_float32(
            min(part.range[0] for part in self.parts), min(part.range[1] for part in self.parts)
        )

    @classmethod
    def from_parts(cls, parts: Parts, *, name: str = "minimum") -> Self:
        """``minimum(REWARD; REWARD; ...)``."""
        return cls(parts, name=name)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`."""
        values = [part_values(part, episodes) for part in self.parts]
        least: NDArray[np.float32] = np.min(values, axis=0).astype(np.float32)
        return least


class Gate(Reward):
    """A reward that counts only where a test is passed; elsewhere 0.

    The reward is not even asked where the test fails, which saves a costly one the trouble. Where
    it can be negative, failing the test is a way out of it.

    Written ``gate(keywords:fox; length:40; threshold=0.5)``.

    Args:
        test: passed where its value is at least `threshold`.
        reward: what counts there.
        threshold: in units of `test`.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.rewards import Keywords, Length
        >>> Gate(Keywords(["fox"]), Length(40)).range
        (0.0, 1.0)
    """

    def __init__(
        self, test: Any, reward: Any, *, threshold: float = 0.5, name: str = "gate"
    ) -> None:
        if not math.isfinite(threshold):
            raise ValueError(f"`threshold` must be a finite number, got {threshold!r}.")
        self.test, self.reward = self.parts = (as_part(test), as_part(reward))
        # As float32: a test that says 0.7 in float32 says a little less than 0.7.
        self.threshold = float(np.float32(threshold))
        self.name = name
        low, high = self.reward.range
        if self.test.range[0] < self.threshold:
            low, high = min(low, 0.0), max(high, 0.0)
        if self.test.range[1] < self.threshold:
            low = high = 0.0
        self.range = as_float32(low, high)

    @classmethod
    def from_parts(cls, parts: Parts, *, threshold: float = 0.5, name: str = "gate") -> Self:
        """``gate(TEST; REWARD; threshold=0.5)``."""
        test, reward = exactly(parts, 2, "gate(TEST; REWARD; threshold=0.5)")
        return cls(test, reward, threshold=threshold, name=name)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`."""
        tested = part_values(self.test, episodes)
        passed = np.flatnonzero(tested >= self.threshold).tolist()
        values = np.zeros(len(episodes), np.float32)
        if passed:
            values[passed] = part_values(self.reward, [episodes[i] for i in passed])
        return values


class Clip(Reward):
    """A reward, raised to a least and lowered to a greatest value.

    Beyond them nothing more is to be gained or lost.

    Written ``clip(length:40; low=0.2; high=0.8)``.

    Args:
        reward: the one to clip.
        low: its least value; None is no bound.
        high: its greatest value; None is no bound.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.rewards import Repetition
        >>> Clip(Repetition(), low=-0.5).range
        (-0.5, 0.0)
    """

    def __init__(
        self,
        reward: Any,
        low: float | None = None,
        high: float | None = None,
        *,
        name: str = "clip",
    ) -> None:
        if low is None and high is None:
            raise ValueError("`Clip` takes `low`, `high` or both, got neither.")
        low = -math.inf if low is None else low
        high = math.inf if high is None else high
        if not low <= high:
            raise ValueError(f"`low` must be at most `high`, got low={low}, high={high}.")
        self.reward = as_part(reward)
        self.parts = (self.reward,)
        self.low, self.high = as_float32(low, high)
        self.name = name
        ends = [min(max(end, self.low), self.high) for end in self.reward.range]
        self.range = as_float32(ends[0], ends[1])

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        low: float | None = None,
        high: float | None = None,
        name: str = "clip",
    ) -> Self:
        """``clip(REWARD; low=-1; high=1)``."""
        (reward,) = exactly(parts, 1, "clip(REWARD; low=-1; high=1)")
        return cls(reward, low, high, name=name)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [`low`, `high`]."""
        values = np.clip(part_values(self.reward, episodes), self.low, self.high)
        return values.astype(np.float32)


# ---------------------------------------------------------------------- for rewards made of others
def as_part(item: Any) -> Reward:
    """A reward from what `parts` may hold; with a weight other than 1, a `WeightedSum` of one."""
    term = _term(item)
    if term.weight == 1.0:
        return term.reward
    return WeightedSum([(term.reward, term.weight)], name=term.name)


def part_values(part: Reward, episodes: Sequence[Episode]) -> NDArray[np.float64]:
    """`[B] float64`, what `part` says of `episodes`.

    Raises:
        ValueError: where it does not return one number each.
    """
    values = np.asarray(part(episodes), np.float64)
    if values.shape != (len(episodes),):
        raise ValueError(
            f"its part `{part.name}` returned values of shape {values.shape} for {len(episodes)} "
            f"episodes, expected ({len(episodes)},): one number each."
        )
    return values


def exactly(parts: Parts, count: int, form: str) -> Parts:
    """`parts`, if there are `count` of them; `form` is how the specification is written."""
    if len(parts) != count:
        rewards = "one reward" if count == 1 else f"{count} rewards"
        raise ValueError(f"it takes {rewards}, got {len(parts)}. Write `{form}`.")
    return parts


def as_float32(low: float, high: float) -> Range:
    """A range as it is after rounding, which keeps the order of values."""
    with np.errstate(over="ignore"):
        return float(np.float32(low)), float(np.float32(high))


def scaled_range(scale: Range, by: Range) -> Range:
    """All that a number in `scale` times one in `by` can be."""
    corners = [_times(x, y) for x in scale for y in by]
    return as_float32(min(corners), max(corners))


def _times(x: float, y: float) -> float:
    return 0.0 if x == 0.0 or y == 0.0 else x * y  # not NaN where the other is infinite


def _term(item: Any) -> RewardTerm:
    reward, weight = item if isinstance(item, tuple) else (item, 1.0)
    return RewardTerm.of(reward, weight=weight)


def _some(parts: Sequence[Any], kind: str) -> Sequence[Any]:
    if isinstance(parts, str | Reward) or callable(parts):
        raise TypeError(f"`parts` must be a list, got {parts!r}. Use `{kind}([...])`.")
    if not parts:
        raise ValueError(f"`{kind}` needs at least one reward, got none.")
    return parts
