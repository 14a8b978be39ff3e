"""Figures of several seeds and tasks, against numbers by hand, plain loops and enumeration."""

import itertools
import math
import statistics as plain

import numpy as np
import pytest

from textgym.scoring import interquartile_mean
from textgym.statistics import (
    Band,
    Interval,
    iqm,
    mean,
    median,
    on_grid,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    sample_efficiency,
    verdict,
)

NAN = math.nan
# Two seeds, three tasks; means of 0.4, 0.9 and -0.1.
BY_HAND = [[0.2, 1.2, -0.2], [0.6, 0.6, 0.0]]
# One, two and three runs; means of 0.5, 0.7 and 0.2.
RAGGED = [[0.5, NAN, 0.1], [NAN, 0.6, 0.2], [NAN, 0.8, 0.3]]
AGGREGATES = [mean, median, iqm, optimality_gap]


def rng(seed=0):
    return np.random.default_rng(seed)


def random_scores(seeds=7, tasks=5):
    return rng(3).normal(0.5, 0.4, size=(seeds, tasks)).round(2)


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        (mean, 0.4),  # of 0.4, 0.9, -0.1
        (median, 0.4),
        (iqm, 0.35),  # of 0.0, 0.2, 0.6, 0.6: a quarter of six, rounded down, is one
        (optimality_gap, (0.8 + 0.4 + 0.0 + 0.4 + 1.2 + 1.0) / 6),
    ],
)
def test_by_hand(statistic, expected):
    found = statistic(BY_HAND, rng())
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.seeds == 2
    assert found.low <= found.value <= found.high
    assert found.low < found.high


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        (mean, (0.5 + 0.7 + 0.2) / 3),
        (median, 0.5),
        (iqm, (0.2 + 0.3 + 0.5 + 0.6) / 4),  # six runs as one sample, without 0.1 and 0.8
        (optimality_gap, (0.5 + 0.3 + 0.8) / 3),
    ],
)
def test_tasks_with_different_numbers_of_runs(statistic, expected):
    assert statistic(RAGGED, rng()).value == pytest.approx(expected, abs=1e-12)


def test_against_plain_loops():
    scores = random_scores()
    columns = [[float(row[task]) for row in scores] for task in range(5)]
    runs = sorted(itertools.chain(*columns))
    middle = runs[35 // 4 : 35 - 35 // 4]
    means = [plain.fmean(column) for column in columns]
    expected = {
        mean: plain.fmean(means),
        median: plain.median(means),
        iqm: plain.fmean(middle),
        optimality_gap: 1.0 - plain.fmean(min(run, 1.0) for run in runs),
    }
    for statistic, value in expected.items():
        assert statistic(scores, rng()).value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seeds", range(1, 10))
def test_the_interquartile_mean_is_that_of_scoring(seeds):
    scores = random_scores(seeds, 1)
    assert iqm(scores, rng()).value == pytest.approx(interquartile_mean(scores[:, 0]), abs=1e-12)


def test_threshold_of_the_gap():
    assert optimality_gap([[0.2], [0.7]], rng(), threshold=0.5).value == pytest.approx(0.15)


# ---------------------------------------------------------------------- intervals
@pytest.mark.parametrize("statistic", AGGREGATES)
def test_against_all_resamples_there_are(statistic):
    """Two seeds, two tasks: 16 equally probable resamples, never across tasks."""
    scores = np.array([[0.0, 0.5], [0.4, 0.9]])
    all_values = [
        statistic([[scores[i, 0], scores[k, 1]], [scores[j, 0], scores[m, 1]]], rng()).value
        for i, j, k, m in itertools.product(range(2), repeat=4)
    ]
    found = statistic(scores, rng(1), resamples=20_000, confidence=0.8)
    expected = np.quantile(np.repeat(all_values, 1000), [0.1, 0.9])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)


def test_unequal_tasks_are_resampled_within():
    """Of three runs and two: 27 and 4 equally probable draws."""
    first, second = [0.0, 0.3, 0.9], [10.0, 11.0]
    draws = itertools.product(itertools.product(first, repeat=3), itertools.product(second, second))
    means = [(sum(a) / 3 + sum(b) / 2) / 2 for a, b in draws]
    scores = [[0.0, 10.0], [0.3, 11.0], [0.9, NAN]]
    found = mean(scores, rng(2), resamples=50_000, confidence=0.7)
    expected = np.quantile(np.repeat(means, 1000), [0.15, 0.85])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02)


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_coverage(statistic):
    """Ten seeds of four tasks, whose truth is known: 95% intervals hold it, or nearly as often."""
    generator, centres = rng(5), np.array([0.35, 0.45, 0.55, 0.65])
    hits = 0
    for _ in range(400):
        scores = generator.normal(centres, 0.2, size=(10, 4))
        found = statistic(scores, generator, resamples=300)
        hits += found.low <= 0.5 <= found.high
    assert 0.90 <= hits / 400 <= 0.97


def test_confidence_and_seed():
    scores = random_scores()
    wide, narrow = (iqm(scores, rng(), confidence=share) for share in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert iqm(scores, rng(1)) == iqm(scores, rng(1)) != iqm(scores, rng(2))


@pytest.mark.parametrize("statistic", AGGREGATES)
@pytest.mark.parametrize("scores", [[[0.5, 0.2]], RAGGED])
def test_of_a_single_run_nothing_is_known(statistic, scores):
    found = statistic(scores, rng())
    assert not found.known
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isfinite(found.value)
    assert found.seeds == 1


def test_seeds_that_agree_leave_no_interval():
    found = mean([[0.5, 0.25]] * 3, rng())
    assert (found.low, found.value, found.high) == (0.375, 0.375, 0.375)
    assert found.known


# ---------------------------------------------------------------------- profile
def test_profile_by_hand():
    band = performance_profile([[0.0, 0.5], [0.5, 1.0]], [-0.1, 0.0, 0.5, 1.0], rng())
    np.testing.assert_allclose(band.value, [1.0, 0.75, 0.25, 0.0])
    assert band.seeds == 2


def test_profile_weighs_tasks_alike():
    band = performance_profile(RAGGED, [0.45, 0.65], rng())
    np.testing.assert_allclose(band.value, [2 / 3, 0.5 / 3])
    assert np.isnan(band.low).all()
    assert np.isnan(band.high).all()


def test_profile_falls_from_one_to_zero():
    scores = random_scores()
    thresholds = np.linspace(scores.min() - 0.1, scores.max() + 0.1, 30)
    band = performance_profile(scores, thresholds, rng())
    expected = [sum(run > tau for run in scores.ravel()) / 35 for tau in thresholds]
    np.testing.assert_allclose(band.value, expected)
    for line in (band.low, band.value, band.high):
        assert (np.diff(line) <= 1e-12).all()
        assert line[0] == pytest.approx(1.0)
        assert line[-1] == 0.0
    assert (band.low <= band.value + 1e-12).all()
    assert (band.value <= band.high + 1e-12).all()
    assert (band.low < band.high).any()


def test_the_area_under_the_profile_is_the_mean():
    scores = np.clip(random_scores(), 0.0, 1.0)
    thresholds = (np.arange(2000) + 0.5) / 2000
    area = performance_profile(scores, thresholds, rng(), resamples=1).value.mean()
    assert area == pytest.approx(mean(scores, rng()).value, abs=1e-3)


# ---------------------------------------------------------------------- probability of improvement
def test_probability_of_improvement_by_hand():
    # First task: 3 of 4 pairs won. Second: a win, a tie and two losses, of three runs against two.
    scores, others = [[0.5, 0.3], [0.9, 0.1], [NAN, 0.2]], [[0.4, 0.3], [0.6, 0.2]]
    found = probability_of_improvement(scores, others, rng())
    assert found.value == pytest.approx((3 / 4 + (0.5 + 1 + 0 + 0 + 0 + 0.5) / 6) / 2)
    assert found.seeds == 2


def test_probability_of_improvement_against_plain_loops():
    scores, others = random_scores(6, 4).round(1), random_scores(5, 4).round(1) + 0.1
    shares = []
    for task in range(4):
        pairs = itertools.product(scores[:, task], others[:, task])
        shares.append(plain.fmean((x > y) + (x == y) / 2 for x, y in pairs))
    found = probability_of_improvement(scores, others, rng())
    assert found.value == pytest.approx(plain.fmean(shares), abs=1e-12)
    back = probability_of_improvement(others, scores, rng())
    assert back.value == pytest.approx(1.0 - found.value, abs=1e-12)


def test_probability_of_improvement_against_all_resamples_there_are():
    x, y = [0.1, 0.6], [0.2, 0.5, 0.7]

    def share(left, right):
        return plain.fmean((a > b) + (a == b) / 2 for a, b in itertools.product(left, right))

    draws = itertools.product(itertools.product(x, repeat=2), itertools.product(y, repeat=3))
    shares = [share(left, right) for left, right in draws]
    found = probability_of_improvement(
        np.array([x]).T, np.array([y]).T, rng(4), resamples=50_000, confidence=0.7
    )
    expected = np.quantile(np.repeat(shares, 1000), [0.15, 0.85])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)


def test_probability_of_improvement_over_oneself():
    scores = random_scores()
    found = probability_of_improvement(scores, scores, rng())
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    assert not probability_of_improvement(scores, scores[:1], rng()).known


# ---------------------------------------------------------------------- learning
@pytest.mark.parametrize(("name", "aggregate"), [("iqm", iqm), ("median", median), ("mean", mean)])
def test_each_point_of_a_curve_is_an_aggregate(name, aggregate):
    points = [random_scores(), random_scores() + 0.1, random_scores()[::-1] ** 2]
    band = sample_efficiency(np.stack(points, axis=-1), [1, 2, 3], rng(7), statistic=name)
    assert isinstance(band, Band)
    for place, scores in enumerate(points):
        one = aggregate(scores, rng(7))  # the same draws at all points
        found = (band.value[place], band.low[place], band.high[place])
        assert found == pytest.approx((one.value, one.low, one.high), abs=1e-12)


def test_curves_of_runs_that_there_are_not():
    curves = np.repeat(np.array(RAGGED)[:, :, None], 2, axis=2)
    band = sample_efficiency(curves, [0.5, 1.0], rng(), statistic="mean")
    np.testing.assert_allclose(band.value, [1.4 / 3] * 2)
    assert np.isnan(band.low).all()


def test_on_grid_holds_the_ends():
    found = on_grid([10, 20, 40], [0.0, 1.0, 2.0], [5, 10, 15, 30, 50])
    np.testing.assert_allclose(found, [0.0, 0.0, 0.5, 1.5, 2.0])


# ---------------------------------------------------------------------- in words
PPO = Interval(0.61, 0.55, 0.66, seeds=5)


@pytest.mark.parametrize(
    ("other", "apart", "better", "ending"),
    [
        (Interval(0.58, 0.51, 0.64, 5), False, None, "overlap; 5 seeds do not tell them apart"),
        (Interval(0.50, 0.40, 0.55, 5), False, None, "overlap; 5 seeds do not tell them apart"),
        (Interval(0.70, 0.60, 0.80, 3), False, None, "overlap; 5 and 3 seeds do not tell them ap"),
        (Interval(0.40, 0.35, 0.45, 5), True, "PPO", "do not overlap; PPO is better, by 5 seeds"),
        (Interval(0.80, 0.75, 0.85, 5), True, "GRPO", "do not overlap; GRPO is better, by 5 seeds"),
        (Interval(0.80, NAN, NAN, 1), None, None, "a single seed does not tell them apart"),
    ],
)
def test_verdict(other, apart, better, ending):
    found = verdict("PPO", PPO, "GRPO", other)
    assert (found.apart, found.better) == (apart, better)
    assert str(found).startswith(f"PPO 0.61 [0.55, 0.66] against GRPO {other}: ")
    assert ending in found.words
    mirrored = verdict("GRPO", other, "PPO", PPO)
    assert (mirrored.apart, mirrored.better) == (apart, better)


def test_verdict_where_lower_is_better():
    found = verdict("PPO", PPO, "GRPO", Interval(0.8, 0.75, 0.85, 5), lower_is_better=True)
    assert found.better == "PPO"


def test_an_interval_in_words():
    assert str(PPO) == "0.61 [0.55, 0.66]"
    assert str(Interval(-0.001, -0.002, 0.0, 2)) == "0.00 [0.00, 0.00]"
    assert str(Interval(0.5, NAN, NAN, 1)) == "0.50 (1 seed: no interval)"


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.5, 0.6], r"`scores` must be `\[n_seeds, n_tasks\]`, got shape \(2,\)"),
        ([[]], r"got shape \(1, 0\)"),
        (np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\)"),
        ([[0.5, math.inf]], "`scores` must be finite, or NaN where a run is missing"),
        ([[0.5, NAN], [0.4, NAN]], "`scores` has no run of task 1. Leave its column out"),
    ],
)
def test_scores_are_checked(scores, message):
    for statistic in AGGREGATES:
        with pytest.raises(ValueError, match=message):
            statistic(scores, rng())
    with pytest.raises(ValueError, match=message):
        performance_profile(scores, [0.5], rng())
    with pytest.raises(ValueError, match=message):
        probability_of_improvement(scores, [[0.5, 0.5]], rng())


@pytest.mark.parametrize("scores", [[[0.5]], [[0.5], [0.6]]])
@pytest.mark.parametrize("keywords", [{"confidence": 1.0}, {"confidence": 0}, {"resamples": 0}])
def test_arguments_are_checked(scores, keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` must be"):
        mean(scores, rng(), **keywords)


def test_the_same_tasks_are_required():
    with pytest.raises(ValueError, match="of the same tasks, got 2 and 1"):
        probability_of_improvement([[0.5, 0.5]], [[0.5]], rng())


def test_curves_are_checked():
    curves = np.zeros((2, 1, 3))
    with pytest.raises(ValueError, match="a point for each of `scores`, got 2 for 3"):
        sample_efficiency(curves, [1, 2], rng())
    with pytest.raises(ValueError, match=r"got shape \(2, 3\)"):
        sample_efficiency(curves[:, 0], [1, 2, 3], rng())
    with pytest.raises(ValueError, match="`statistic` cannot be 'iqr'; did you mean `iqm`"):
        sample_efficiency(curves, [1, 2, 3], rng(), statistic="iqr")
    curves[1, 0, 2] = NAN
    with pytest.raises(ValueError, match="the run in row 1 of task 0 has NaN at some points"):
        sample_efficiency(curves, [1, 2, 3], rng())


@pytest.mark.parametrize(
    ("tokens", "values", "message"),
    [
        ([1, 2], [0.0], "equally many, got 2 and 1"),
        ([1, 3, 3], [0, 0, 0], "must increase, got 3 before 3"),
        ([], [], r"`tokens` must be a list of numbers, got shape \(0,\)"),
        ([1, 2], [0, NAN], "`values` must be finite, got nan at place 1"),
    ],
)
def test_grids_are_checked(tokens, values, message):
    with pytest.raises(ValueError, match=message):
        on_grid(tokens, values, [1.0])
