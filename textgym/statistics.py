"""What a few seeds on a few tasks say about an agent, and how far that is known.

    >>> import numpy as np
    >>> from textgym.statistics import iqm
    >>> scores = [[0.5, 0.8], [0.7, 0.9], [0.6, 0.4]] # three seeds, two tasks
    >>> print(iqm(scores, np.random.default_rng(0)))
    0.65 [0.50, 0.78]

Scores are `[n_seeds, n_tasks]`, normalised: 0 is a random policy's, 1 the oracle's. Each is the
mean return of one run: an agent trained once. Where tasks have different numbers of runs, NaN
stands for those there are not. The mean, the median, the optimality gap and the profile then
average within tasks first, so that each task weighs the same; the interquartile mean takes runs
of all tasks as one sample, by its definition, so that a task with more runs weighs more.

Intervals are percentiles of a stratified bootstrap: runs are drawn again, with replacement, within
each task. So they tell how far another set of seeds may lie, on these tasks; not what another
task would give. Two or three seeds make them too narrow. **A task with a single run says nothing of
its spread: then both ends are NaN**, and `Interval.known` is False.

Source: Agarwal, Schwarzer, Castro, Courville, Bellemare, Deep reinforcement learning at the edge of
the statistical precipice, 2021, https://arxiv.org/abs/2108.13264; the figures are those of its
library, rliable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from textgym.errors import check_choice
from textgym.resampling import CONFIDENCE, RESAMPLES, Floats, Runs, estimate, points
from textgym.scoring import interquartile_means


# ---------------------------------------------------------------------- what is found
@dataclass(frozen=True)
class Interval:
    """A figure and its interval.

    Args:
        value: of the runs themselves.
        low, high: the ends; NaN where a task has a single run.
        seeds: the fewest runs of any task.
    """

    value: float
    low: float
    high: float
    seeds: int

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a point. False, too, where one is not `known`."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        ends = f" [{self.low:z.2f}, {self.high:z.2f}]" if self.known else " (1 seed: no interval)"
        return f"{self.value:z.2f}{ends}"


@dataclass(frozen=True)
class Band:
    """A figure and its interval at each of some points.

    Args:
        at: `[n_points]`, thresholds or numbers of tokens.
        value, low, high: `[n_points]`; the ends NaN where a task has a single run.
        seeds: the fewest runs of any task.
    """

    at: Floats
    value: Floats
    low: Floats
    high: Floats
    seeds: int


# ---------------------------------------------------------------------- aggregates
def mean(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The mean of the tasks' means. One task with large scores can carry it.

    Args:
        scores: `[n_seeds, n_tasks]`, NaN where a run is missing.
        rng: draws the resamples.
        resamples: how many.
        confidence: probability to be covered, in (0, 1).

    Raises:
        ValueError: another shape, an infinite score, a task without runs.
    """
    return _interval(scores, _mean, rng, resamples, confidence)


def median(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The median of the tasks' means: what the worst half scores does not move it.

    Arguments and errors as in `mean`.
    """
    return _interval(scores, _median, rng, resamples, confidence)


def iqm(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The interquartile mean of the runs of all tasks: of the middle half.

    As `textgym.scoring.interquartile_mean`. Arguments and errors as in `mean`.
    """
    return _interval(scores, _iqm, rng, resamples, confidence)


def optimality_gap(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    threshold: float = 1.0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """How far runs fall short of `threshold`, on average over runs and tasks. Lower is better.

    What is scored above the threshold does not make up for what is below. Other arguments and
    errors as in `mean`.
    """

    def gap(runs: Runs) -> Floats:
        return _mean(runs.with_values(np.maximum(threshold - runs.values, 0.0)))

    return _interval(scores, gap, rng, resamples, confidence)


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Band:
    """The share of runs that score above each threshold, averaged over tasks.

    Args:
        scores: `[n_seeds, n_tasks]`, NaN where a run is missing.
        thresholds: `[n_points]`.
        rng, resamples, confidence: as in `mean`.

    Raises:
        ValueError: as in `mean`, or no thresholds.
    """
    at, runs = points("thresholds", thresholds), Runs.of("scores", scores)

    def above(runs: Runs) -> Floats:
        # One threshold after the other: all at once would be the resamples times their number.
        return np.stack([_mean(runs.with_values(1.0 * (runs.values > tau))) for tau in at])

    return Band(at, *estimate(above, [runs], rng, resamples, confidence), runs.fewest)


def probability_of_improvement(
    scores: ArrayLike,
    others: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """How probably a run of one agent scores above a run of another, averaged over tasks.

    The statistic of Mann and Whitney over the number of pairs, ties counted as a half. By how much
    it is better, this does not tell.

    Args:
        scores: `[n_seeds, n_tasks]` of the one agent, NaN where a run is missing.
        others: `[n_other_seeds, n_tasks]` of the other.
        rng: draws the resamples, of each agent's runs on their own.
        resamples, confidence: as in `mean`.

    Raises:
        ValueError: as in `mean`, or other numbers of tasks.
    """
    one, other = Runs.of("scores", scores), Runs.of("others", others)
    if len(one.counts) != len(other.counts):
        raise ValueError(
            "`scores` and `others` must be of the same tasks, got "
            f"{len(one.counts)} and {len(other.counts)}."
        )

    def wins(one: Runs, other: Runs) -> Floats:
        shares = []
        for left, right in zip(one.by_task(), other.by_task(), strict=True):
            x, y = left[..., :, None], right[..., None, :]
            shares.append(np.mean((x > y) + 0.5 * (x == y), axis=(-2, -1)))
        return np.asarray(np.mean(shares, axis=0))

    value, low, high = estimate(wins, [one, other], rng, resamples, confidence)
    return Interval(float(value), float(low), float(high), min(one.fewest, other.fewest))


# ---------------------------------------------------------------------- learning
def on_grid(tokens: ArrayLike, values: ArrayLike, grid: ArrayLike) -> Floats:
    """A run's learning curve at the points of a common grid, by linear interpolation.

    Args:
        tokens: `[n]`, increasing, when `values` were measured.
        values: `[n]`.
        grid: `[n_points]`, in tokens; or in shares of a budget, if `tokens` are.

    Returns:
        `[n_points]`; before the first measurement its value, after the last one that.

    Raises:
        ValueError: other shapes, or `tokens` that do not increase.

    >>> on_grid([100, 200], [0.0, 1.0], [50, 150, 175, 300]).tolist()
    [0.0, 0.5, 0.75, 1.0]
    """
    at, measured = points("tokens", tokens), points("values", values)
    if len(at) != len(measured):
        raise ValueError(
            f"`tokens` and `values` must be equally many, got {len(at)} and {len(measured)}."
        )
    for place in np.flatnonzero(np.diff(at) <= 0)[:1]:
        raise ValueError(f"`tokens` must increase, got {at[place]:g} before {at[place + 1]:g}.")
    return np.asarray(np.interp(points("grid", grid), at, measured))


def sample_efficiency(
    scores: ArrayLike,
    grid: ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: str = "iqm",
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Band:
    """An aggregate at each point of training; a resampled run keeps its whole curve.

    Args:
        scores: `[n_seeds, n_tasks, n_points]`, as `on_grid` makes them; NaN at all points where a
            run is missing.
        grid: `[n_points]`, where they were taken: tokens, or shares of the budget.
        rng, resamples, confidence: as in `mean`.
        statistic: ``"iqm"``, ``"median"`` or ``"mean"``.

    Raises:
        ValueError: as in `mean`, a run with points missing, or another statistic.
    """
    check_choice("statistic", statistic, _AGGREGATES)
    runs, at = Runs.of("scores", scores, ndim=3), points("grid", grid)
    if len(at) != len(runs.values):
        raise ValueError(
            f"`grid` must have a point for each of `scores`, got {len(at)} for {len(runs.values)}."
        )
    found = estimate(_AGGREGATES[statistic], [runs], rng, resamples, confidence)
    return Band(at, *found, runs.fewest)


# ---------------------------------------------------------------------- in words
@dataclass(frozen=True)
class Verdict:
    """Whether two intervals tell two agents apart.

    Args:
        apart: whether they do; None where one of them is not known.
        better: the name of the better agent; None where they are not told apart.
        words: a sentence with the figures.
    """

    apart: bool | None
    better: str | None
    words: str

    def __str__(self) -> str:
        return self.words


def verdict(
    name: str, one: Interval, other_name: str, other: Interval, *, lower_is_better: bool = False
) -> Verdict:
    """What may be said of two agents, from the intervals of a figure of both.

    That is careful: where intervals overlap a little, `textgym.differences.mean_difference` may
    still show that the agents differ.

    >>> ppo, grpo = Interval(0.61, 0.55, 0.66, seeds=5), Interval(0.58, 0.51, 0.64, seeds=5)
    >>> verdict("PPO", ppo, "GRPO", grpo).words.split(": ")[1]
    'the intervals overlap; 5 seeds do not tell them apart'
    """
    figures = f"{name} {one} against {other_name} {other}"
    if not (one.known and other.known):
        return Verdict(None, None, f"{figures}: a single seed does not tell them apart")
    counts = dict.fromkeys([one.seeds, other.seeds])  # once, where both are the same
    seeds = f"{' and '.join(map(str, counts))} seeds"
    if one.overlaps(other):
        words = f"{figures}: the intervals overlap; {seeds} do not tell them apart"
        return Verdict(False, None, words)
    better = name if (one.value > other.value) != lower_is_better else other_name
    words = f"{figures}: the intervals do not overlap; {better} is better, by {seeds}"
    return Verdict(True, better, words)


def _mean(runs: Runs) -> Floats:
    return np.asarray(runs.task_means().mean(axis=-1))


def _median(runs: Runs) -> Floats:
    return np.asarray(np.median(runs.task_means(), axis=-1))


def _iqm(runs: Runs) -> Floats:
    return interquartile_means(runs.values)


_AGGREGATES: dict[str, Callable[[Runs], Floats]] = {"iqm": _iqm, "median": _median, "mean": _mean}


def _interval(
    scores: ArrayLike,
    statistic: Callable[[Runs], Floats],
    rng: np.random.Generator,
    resamples: int,
    confidence: float,
) -> Interval:
    runs = Runs.of("scores", scores)
    value, low, high = estimate(statistic, [runs], rng, resamples, confidence)
    return Interval(float(value), float(low), float(high), runs.fewest)
