"""Normalised scores, interquartile means and intervals, against numbers worked out by hand."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from textgym import Tokenizer
from textgym.registration import REGISTRY
from textgym.scoring import (
    ANCHORS,
    Estimate,
    Reference,
    bootstrap_interval,
    interquartile_mean,
    normalized,
    references,
)

ROOT = Path(__file__).resolve().parents[2]
OWN = [row for row in REGISTRY.values() if not row.bridged]
HALVES = Reference(random=Estimate.exact(0.2), oracle=Estimate.exact(0.7))


class Dealer:
    """Stands in for a generator: deals the resamples it is given."""

    def __init__(self, *resamples):
        self.left = list(resamples)

    def integers(self, high, size):
        drawn = np.array(self.left.pop(0))
        assert len(drawn) == size
        assert drawn.max() < high
        return drawn


# ---------------------------------------------------------------------- normalised scores
@pytest.mark.parametrize(("score", "expected"), [(0.2, 0.0), (0.7, 1.0), (0.3, 0.2), (0.1, -0.2)])
def test_normalized(score, expected):
    result = normalized(score, HALVES)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, abs=1e-12)


def test_normalized_of_an_array():
    result = normalized(np.array([[0.2, 0.45], [0.7, 1.2]]), HALVES)
    np.testing.assert_allclose(result, [[0.0, 0.5], [1.0, 2.0]], atol=1e-12)


def test_normalized_by_id():
    reference = references()["textgym/TokenLock-v0"]
    random = reference.random.mean
    assert normalized(random, "textgym/TokenLock-v0") == 0.0
    assert normalized(1.0, "textgym/TokenLock-v0") == 1.0
    assert normalized((1.0 + random) / 2, "textgym/TokenLock-v0") == pytest.approx(0.5)


def test_an_unknown_id_lists_near_matches():
    with pytest.raises(TypeError, match=r"textgym/Stroy-v0.*did you mean `textgym/Story-v0`"):
        normalized(0.5, "textgym/Stroy-v0")


def test_without_a_score_there_is_nothing_to_normalise_by():
    with pytest.raises(ValueError, match=r"textgym/Continuation-v0 has no random return \(no sc"):
        normalized(0.5, "textgym/Continuation-v0")
    with pytest.raises(ValueError, match="this reference has no oracle return, so"):
        normalized(0.5, Reference(random=Estimate.exact(0.0)))


def test_an_oracle_no_better_than_chance_is_refused():
    flat = Reference(random=Estimate.exact(0.5), oracle=Estimate.exact(0.5))
    with pytest.raises(ValueError, match="must be above the random one"):
        normalized(0.5, flat)


# ---------------------------------------------------------------------- interquartile mean
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 2.0, 6.0], 3.0),  # a quarter of three, rounded down, is none
        ([100.0, 2.0, 4.0, -100.0], 3.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),  # of 3, 4, 5, 6
        ([0.0, 0.0, 1.0, 2.0, 6.0, 90.0, 90.0], 19.8),  # one off each end: 99 / 5
    ],
)
def test_interquartile_mean(values, expected):
    assert interquartile_mean(values) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------------- intervals
DEALT = ([0, 0], [0, 1], [1, 0], [1, 1], [1, 1])  # means of 0, 2, 2, 4, 4


@pytest.mark.parametrize(("confidence", "expected"), [(0.5, (2.0, 4.0)), (0.75, (1.0, 4.0))])
def test_bootstrap_of_dealt_resamples(confidence, expected):
    dealer = Dealer(*DEALT)
    interval = bootstrap_interval([0.0, 4.0], dealer, resamples=5, confidence=confidence)
    assert interval == pytest.approx(expected, abs=1e-12)
    assert dealer.left == []


def test_bootstrap_of_another_statistic():
    interval = bootstrap_interval(
        [0.0, 4.0], Dealer(*DEALT), statistic=np.max, resamples=5, confidence=0.5
    )
    assert interval == (4.0, 4.0)  # maxima of 0, 4, 4, 4, 4


def test_bootstrap_interval_of_many_is_that_of_the_normal_distribution():
    values = np.repeat([0.0, 1.0], [750, 250])
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    half = 1.96 * (0.25 * 0.75 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.004)


def test_the_generator_alone_decides():
    values = np.arange(20.0)
    first, again, other = (
        bootstrap_interval(values, np.random.default_rng(seed), resamples=50) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_estimate():
    estimate = Estimate.of([0.0, 1.0], np.random.default_rng(0))
    assert estimate == Estimate(mean=0.5, low=0.0, high=1.0, episodes=2)
    assert Estimate.exact(0.3) == Estimate(0.3, 0.3, 0.3, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [([], r"got shape \(0,\)"), ([[1.0]], "got shape"), ([1.0, np.nan], "got nan at place 1")],
)
def test_what_cannot_be_averaged_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        interquartile_mean(values)
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, np.random.default_rng(0))


@pytest.mark.parametrize("keywords", [{"confidence": 1.0}, {"confidence": 0}, {"resamples": 0}])
def test_arguments_are_checked(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` must be"):
        bootstrap_interval([1.0], np.random.default_rng(0), **keywords)


# ---------------------------------------------------------------------- references
def test_json_there_and_back():
    reference = Reference(
        random=Estimate(0.25, 0.125, 0.5, 8),
        optimal=Estimate.exact(1.0),
        level=2,
        seed=3,
        versions={"numpy": "2.0"},
        notes={"oracle": "none"},
    )
    record = json.loads(json.dumps(reference.to_json()))
    assert record["random"] == {"mean": 0.25, "low": 0.125, "high": 0.5, "episodes": 8}
    assert record["oracle"] is None
    assert Reference.from_json(record) == reference


def test_references_cannot_be_changed():
    known = references()
    with pytest.raises(TypeError):
        known["textgym/Story-v0"] = HALVES
    with pytest.raises(TypeError):
        known["textgym/Story-v0"].versions["numpy"] = "0"


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.id)
def test_every_environment_has_its_own(row):
    """Where one fails: `python benchmarks/references.py --only ID`."""
    reference, task = references()[row.id], row.task_class()()
    estimates = {name: getattr(reference, name) for name in ANCHORS}
    for name, estimate in estimates.items():
        assert (estimate is None) == (name in reference.notes), name
        if estimate is not None:
            assert 0.0 <= estimate.low <= estimate.mean <= estimate.high <= 1.0
    assert (reference.random is not None) == task.scored
    assert (reference.oracle is not None) == task.has_oracle
    if task.scored:
        assert reference.random.mean <= row.random_bound
    if task.has_oracle:
        assert reference.oracle.mean == 1.0
    assert reference.level == 1


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.id)
def test_they_are_of_the_tokenizer_and_model_there_are(row):
    """Where one fails: `python benchmarks/references.py --only ID`."""
    reference = references()[row.id]
    tokenizer = Tokenizer.load(row.task_class()().tokenizer)
    assert reference.versions["tokenizer"] == tokenizer.hash
    if reference.bundled is not None:
        weights = ROOT / "agents" / "textgym_agents" / "bundled" / "model.safetensors"
        found = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        assert reference.versions["bundled"] == found
