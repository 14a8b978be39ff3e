"""The stratified bootstrap: runs drawn again within each task, all resamples at once.

`textgym.statistics` and `textgym.differences` are figures made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgym.errors import check_positive_int
from textgym.scoring import percentile_interval

Floats = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95

_AXES = {2: "[n_seeds, n_tasks]", 3: "[n_seeds, n_tasks, n_points]"}


@dataclass(frozen=True)
class Runs:
    """The runs there are, task after task, without gaps.

    Args:
        values: `[..., n_runs]`; before that, resamples or points of a curve.
        counts: `[n_tasks]`, runs of each task, at least 1.
    """

    values: Floats
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, scores: ArrayLike, ndim: int = 2) -> Self:
        """Those of `scores`, where NaN stands for a run that there is not.

        Args:
            name: of the argument, for messages.
            scores: `[n_seeds, n_tasks]`, or `[n_seeds, n_tasks, n_points]` if `ndim` is 3: then
                `values` are `[n_points, n_runs]`.
            ndim: 2 or 3.

        Raises:
            ValueError: another shape, an infinite score, a run with some points missing, a task
                without runs.
        """
        array = np.asarray(scores, dtype=np.float64)
        if array.ndim != ndim or not array.size:
            raise ValueError(f"`{name}` must be `{_AXES[ndim]}`, got shape {array.shape}.")
        if np.isinf(array).any():
            raise ValueError(f"`{name}` must be finite, or NaN where a run is missing; got inf.")
        known = ~np.isnan(array).reshape(*array.shape[:2], -1)
        there = known.all(axis=-1)
        for seed, task in np.argwhere(known.any(axis=-1) & ~there)[:1]:
            raise ValueError(
                f"`{name}`: the run in row {seed} of task {task} has NaN at some points. Give it "
                "values at all of them, or NaN at all."
            )
        counts = there.sum(axis=0)
        for task in np.flatnonzero(counts == 0)[:1]:
            raise ValueError(
                f"`{name}` has no run of task {task}. Leave its column out, for all agents that "
                "are to be compared."
            )
        return cls(array.swapaxes(0, 1)[there.T].T, counts)

    @property
    def fewest(self) -> int:
        """Runs of the task with the fewest."""
        return int(self.counts.min())

    @property
    def starts(self) -> NDArray[np.int64]:
        """`[n_tasks]`, where the runs of each begin."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    def with_values(self, values: Floats) -> Self:
        """Other `values`, `[..., n_runs]`, of the same runs."""
        return type(self)(values, self.counts)

    def by_task(self) -> list[Floats]:
        """`values`, apart: `[..., n]` for each task."""
        return np.split(self.values, self.starts[1:], axis=-1)

    def task_means(self) -> Floats:
        """`[..., n_tasks]`."""
        return np.asarray(np.add.reduceat(self.values, self.starts, axis=-1) / self.counts)

    def resampled(self, rng: np.random.Generator, resamples: int, fewer: int = 0) -> Self:
        """Runs drawn with replacement within each task: `values` are `[..., resamples, n_runs]`.

        Args:
            rng: draws them.
            resamples: how many times.
            fewer: so many fewer than there are, of each task.
        """
        kept = self.counts - fewer
        of_task = np.repeat(self.counts, kept)
        drawn = np.repeat(self.starts, kept) + rng.integers(of_task, size=(resamples, len(of_task)))
        return type(self)(self.values[..., drawn], kept)


def estimate(
    statistic: Callable[..., Floats],
    samples: Sequence[Runs],
    rng: np.random.Generator,
    resamples: int,
    confidence: float,
    *,
    fewer: int = 0,
) -> tuple[Floats, Floats, Floats]:
    """A statistic of some samples, and the ends of its percentile interval.

    Args:
        statistic: from `samples`, as arguments, to `[...]`; from their resamples, whose `values`
            have one more axis, to `[..., resamples]`.
        samples: each is resampled on its own.
        rng, resamples, fewer: see `Runs.resampled`.
        confidence: probability to be covered, in (0, 1).

    Returns:
        Value and ends, `[...]` each; the ends NaN where a task has a single run, of whose spread
        nothing is known.

    Raises:
        ValueError: `resamples` or `confidence` out of range.
    """
    check_positive_int("resamples", resamples)
    value = np.asarray(statistic(*samples))
    if min(runs.fewest for runs in samples) > 1:
        drawn = statistic(*(runs.resampled(rng, resamples, fewer) for runs in samples))
    else:
        drawn = np.full((*value.shape, 1), np.nan)
    low, high = percentile_interval(drawn, confidence)
    return value, low, high


def points(name: str, values: ArrayLike) -> Floats:
    """`values` as `[n]`, of finite numbers, at least one.

    Raises:
        ValueError: they are not, naming the argument.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"`{name}` must be a list of numbers, got shape {array.shape}.")
    for place in np.flatnonzero(~np.isfinite(array))[:1]:
        raise ValueError(f"`{name}` must be finite, got {array[place]} at place {place}.")
    return array
