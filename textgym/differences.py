"""Whether one agent is better than another, where both ran on the same tasks.

    >>> import numpy as np
    >>> from textgym.differences import mean_difference
    >>> before = np.array([[0.50, 0.80], [0.55, 0.70], [0.60, 0.75]]) # three seeds, two tasks
    >>> after = before - [[0.11], [0.09], [0.10]]
    >>> found = mean_difference(before, after, np.random.default_rng(0))
    >>> print(f"{found.value:.2f} [{found.low:.3f}, {found.high:.3f}], p = {found.p_value:.0e}")
    -0.10 [-0.107, -0.092], p = 2e-05

Several such differences at once want their p-values corrected, by `holm`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from textgym.resampling import CONFIDENCE, RESAMPLES, Floats, Runs, estimate

_NODES = 64


@dataclass(frozen=True)
class Difference:
    """A difference of means, and how far chance alone may explain it.

    Args:
        before, after: means within tasks, averaged over tasks, of the runs that count.
        value: ``after - before``.
        low, high: its interval; NaN where a task has a single run.
        p_value: how probably agents that do not differ would come out at least this far apart, to
            either side; NaN where a task has a single run.
        seeds: the fewest pairs, or runs of either side, of any task.
        paired: whether runs were paired by seed, in all tasks.
    """

    before: float
    after: float
    value: float
    low: float
    high: float
    p_value: float
    seeds: int
    paired: bool


def mean_difference(
    before: ArrayLike,
    after: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """``after - before``: the means within tasks, averaged over tasks.

    Where two seeds or more of a task were run by both, those runs are paired, and others of that
    task left out; where not, all runs of both count, each side on its own.

    The interval is a stratified bootstrap that draws one run fewer of a task than there are, which
    makes its variance that of the mean. With few seeds it is still too narrow for a single task
    (of 3 seeds, it misses the truth in a quarter of the cases), so decide by `p_value`: that of
    Student's t, with the degrees of freedom of Welch and Satterthwaite, which allows for few seeds.

    Args:
        before, after: `[n_seeds, n_tasks]`, row i of both of the same seed; NaN where a run is
            missing.
        rng: draws the resamples.
        resamples: how many.
        confidence: probability to be covered, in (0, 1).

    Raises:
        ValueError: different shapes, an infinite score, or a task without runs.

    Source: Rao and Wu, Resampling inference with complex survey data, 1988; Satterthwaite, An
    approximate distribution of estimates of variance components, 1946.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old.shape != new.shape:
        raise ValueError(
            "`before` and `after` must have a row for each seed of either and a column for each "
            f"task, got shapes {old.shape} and {new.shape}."
        )
    for name, scores in (("before", old), ("after", new)):
        Runs.of(name, scores)  # raises where they are no scores
    old, new, in_pairs = _that_count(old, new)
    strata: list[Floats] = []
    for task, paired in enumerate(in_pairs):
        sides = [new[:, task] - old[:, task]] if paired else [new[:, task], -old[:, task]]
        strata += [side[~np.isnan(side)] for side in sides]
    n_tasks = old.shape[1]
    runs = Runs(np.concatenate(strata), np.array([len(stratum) for stratum in strata]))

    def total(runs: Runs) -> Floats:
        return np.asarray(runs.task_means().sum(axis=-1) / n_tasks)

    value, low, high = (
        float(figure) for figure in estimate(total, [runs], rng, resamples, confidence, fewer=1)
    )
    error, freedom = _standard_error(strata)
    return Difference(
        before=float(np.nanmean(old, axis=0).mean()),
        after=float(np.nanmean(new, axis=0).mean()),
        value=value,
        low=low,
        high=high,
        p_value=t_test(value, error / n_tasks, freedom),
        seeds=runs.fewest,
        paired=all(in_pairs),
    )


def _that_count(old: Floats, new: Floats) -> tuple[Floats, Floats, list[bool]]:
    """The scores without runs that count not, and whether runs are paired, by task."""
    pairs = ~np.isnan(new - old)
    paired = pairs.sum(axis=0) > 1
    old, new = (np.where(pairs | ~paired, scores, np.nan) for scores in (old, new))
    return old, new, paired.tolist()


def _standard_error(strata: list[Floats]) -> tuple[float, float]:
    """That of the sum of the means of independent samples, and its degrees of freedom."""
    if min(map(len, strata)) < 2:
        return math.nan, math.nan
    variances = np.array([sample.var(ddof=1) / len(sample) for sample in strata])
    total = variances.sum()
    if total == 0.0:
        return 0.0, math.inf
    freedoms = np.array([len(sample) - 1 for sample in strata])
    return math.sqrt(total), float(total**2 / (variances**2 / freedoms).sum())


def t_test(value: float, error: float, freedom: float) -> float:
    """The two-sided p-value of an estimate, by Student's t.

    Args:
        value: the estimate, 0 if there is nothing.
        error: its standard error; 0 where all seeds agree.
        freedom: degrees of freedom of `error`, at least 1.

    Returns:
        In [0, 1]; NaN if `error` is. Without error, 1 for nothing and 0 for all else.

    >>> round(t_test(2.776, 1.0, 4.0), 4) # as in tables
    0.05
    """
    if error == 0.0:
        return float(value == 0.0)
    if math.isnan(error):
        return math.nan
    # With t = sqrt(freedom) tan(x), the density of Student's t is that of cos(x) ** (freedom - 1).
    start = math.atan(abs(value) / error / math.sqrt(freedom))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = (math.pi / 2 - start) / 2
    tail = half * float(weights @ np.cos(start + half * (nodes + 1)) ** (freedom - 1))
    whole = math.sqrt(math.pi) / 2
    whole *= math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(tail / whole, 1.0)


def holm(p_values: ArrayLike) -> Floats:
    """P-values corrected for their number: all that are below 0.05 hold together, with 95%.

    Args:
        p_values: `[n]`; NaN, where nothing was tested, does not count.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    found = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(found.shape, np.nan)
    order = np.argsort(found)[: int((~np.isnan(found)).sum())]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(found[order] * factors), 1.0)
    return corrected
