"""Differences of means, against closed forms, numbers by hand and enumeration."""

import itertools
import math

import numpy as np
import pytest

from textgym.differences import holm, mean_difference, t_test

NAN = math.nan


def rng(seed=0):
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------- Student's t
@pytest.mark.parametrize("t", [0.0, 0.01, 0.7, 2.0, 12.7, 300.0])
def test_t_in_closed_form(t):
    assert t_test(t, 1.0, 1.0) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-9)
    assert t_test(-3 * t, 3.0, 2.0) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-9)
    assert t_test(t, 1.0, 1e4) == pytest.approx(math.erfc(t / math.sqrt(2)), abs=1e-4)


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980)]
)
def test_t_as_in_tables(freedom, t):
    assert t_test(t, 1.0, freedom) == pytest.approx(0.05, abs=2e-4)


def test_t_without_an_error():
    assert t_test(0.0, 0.0, math.inf) == 1.0
    assert t_test(-0.1, 0.0, math.inf) == 0.0
    assert math.isnan(t_test(0.1, NAN, NAN))


# ---------------------------------------------------------------------- differences
def test_paired_by_hand():
    # 0.1, 0.2, 0.6: mean 0.3, variance 0.07; t = 0.3 / sqrt(0.07 / 3), of two degrees of freedom
    before = np.array([[0.9], [0.1], [0.5]])
    found = mean_difference(before, before + np.array([[0.1], [0.2], [0.6]]), rng())
    t = 0.3 / math.sqrt(0.07 / 3)
    assert found.value == pytest.approx(0.3)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-9)
    assert (found.seeds, found.paired) == (3, True)


def test_pairs_are_used():
    """Seeds that differ much, all lowered a little: only pairs can show it."""
    before = np.linspace(0.0, 1.0, 5)[:, None]
    after = before - [[0.009], [0.011], [0.010], [0.009], [0.011]]
    assert mean_difference(before, after, rng()).p_value < 1e-4
    apart = np.concatenate([before, np.full_like(before, NAN)])
    other = np.concatenate([np.full_like(after, NAN), after])
    found = mean_difference(apart, other, rng())
    assert found.value == pytest.approx(-0.01)
    assert found.p_value > 0.9
    assert (found.seeds, found.paired) == (5, False)


def test_welch_by_hand():
    """Variances of 2 and 8 over 2 runs each: t = 3 / sqrt(5), 25 / 17 degrees of freedom."""
    before, after = [[1.0], [3.0], [NAN], [NAN]], [[NAN], [NAN], [3.0], [7.0]]
    found = mean_difference(before, after, rng())
    assert found.value == pytest.approx(3.0)
    assert found.p_value == pytest.approx(t_test(3.0, math.sqrt(5.0), 25 / 17), abs=1e-12)
    assert found.low == pytest.approx(0.0)  # one run of each side: 3 or 7, less 1 or 3
    assert found.high == pytest.approx(6.0)


def test_one_pair_is_none():
    before, after = [[0.1], [0.2], [NAN]], [[NAN], [0.4], [0.5]]
    found = mean_difference(before, after, rng())
    assert found.value == pytest.approx(0.3)
    assert (found.seeds, found.paired) == (2, False)


def test_a_paired_and_an_unpaired_task():
    before = [[0.5, 1.0], [0.7, 3.0], [NAN, NAN], [NAN, NAN], [0.1, NAN]]
    after = [[0.6, NAN], [1.0, NAN], [NAN, 3.0], [NAN, 7.0], [NAN, NAN]]
    found = mean_difference(before, after, rng())
    assert found.value == pytest.approx((0.2 + 3.0) / 2)  # the seed 0.1 has no pair
    assert (found.before, found.after) == pytest.approx(((0.6 + 2) / 2, (0.8 + 5) / 2))
    variances = [0.02 / 2, 2.0 / 2, 8.0 / 2]
    freedom = sum(variances) ** 2 / sum(v * v for v in variances)
    error = math.sqrt(sum(variances)) / 2
    assert found.p_value == pytest.approx(t_test(1.6, error, freedom), abs=1e-12)
    assert not found.paired


def test_interval_against_all_resamples_there_are():
    """Two of three differences are drawn, and one of two: 9 and 2 equally probable draws."""
    first, second = [0.0, 0.3, 0.9], [0.1, 0.5]
    draws = itertools.product(itertools.product(first, repeat=2), second)
    means = [(sum(pair) / 2 + one) / 2 for pair, one in draws]
    after = [[0.0, 0.1], [0.3, 0.5], [0.9, NAN]]
    before = [[0.0, 0.0], [0.0, 0.0], [0.0, NAN]]
    found = mean_difference(before, after, rng(1), resamples=50_000, confidence=0.7)
    expected = np.quantile(np.repeat(means, 1000), [0.15, 0.85])
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("tasks", [1, 6])
def test_agents_that_do_not_differ_are_rarely_told_apart(seeds, tasks):
    generator = rng(8)
    draws = generator.normal(size=(600, 2, seeds, tasks))
    p_values = [mean_difference(a, b, generator, resamples=1).p_value for a, b in draws]
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.08
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_nothing_changed():
    scores = rng().random((3, 2))
    found = mean_difference(scores, scores, rng())
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("after", [[[0.6, 0.6]], [[0.6, 0.6], [0.5, NAN]]])
def test_of_a_single_run_nothing_is_known(after):
    before = np.full(np.shape(after), 0.5)
    found = mean_difference(before, after, rng())
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.p_value)
    assert math.isfinite(found.value)
    assert found.seeds == 1


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"got shapes \(1, 2\) and \(2, 1\)"):
        mean_difference([[0.5, 0.5]], [[0.5], [0.5]], rng())
    with pytest.raises(ValueError, match="`after` has no run of task 1"):
        mean_difference([[0.5, 0.5]], [[0.5, NAN]], rng())


# ---------------------------------------------------------------------- Holm
@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.04], [0.04]),
        ([0.01, 0.02, 0.03, 0.5], [0.04, 0.06, 0.06, 0.5]),
        ([0.5, 0.011, 0.02], [0.5, 0.033, 0.04]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02, NAN, 0.01], [0.02, NAN, 0.02]),
        ([], []),
    ],
)
def test_holm(p_values, expected):
    np.testing.assert_allclose(holm(p_values), expected, atol=1e-12)
