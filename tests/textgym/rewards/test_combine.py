"""Sums, products, minima, gates and clips: values, ranges, specifications."""

import math

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards import FunctionReward, Keywords, Length, Repetition
from textgym.rewards.base import Reward
from textgym.rewards.combine import Clip, Gate, Minimum, Product, WeightedSum, as_part
from textgym.rewards.specs import _made_of_parts

INF = math.inf
GARBAGE = ["", " ", "a" * 100_000, "\x00\x01", "\ud800", "\ufffd\ufffd", "日本語", "(" * 500]


def episode(text, tokens=3, finish_reason="stop"):
    ids = np.arange(tokens + 1)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), finish_reason)


class Table(Reward):
    """Says of a text that is a number that number."""

    def __init__(self, low=-INF, high=INF, name="table", factor=1.0):
        self.range, self.name, self.factor, self.asked = (low, high), name, factor, 0

    def __call__(self, episodes):
        self.asked += len(episodes)
        return np.array([float(e.completion_text) * self.factor for e in episodes], np.float32)


class PerToken(Reward):
    """Pays token i of an episode i + 1."""

    per_token, name = True, "tokens"

    def per_token_rewards(self, episodes):
        return [np.arange(1, e.completion_mask.sum() + 1, dtype=np.float32) for e in episodes]

    def __call__(self, episodes):
        return np.array([a.sum() for a in self.per_token_rewards(episodes)], np.float32)


def values(reward, *numbers):
    found = reward([episode(str(n)) for n in numbers])
    assert found.dtype == np.float32
    return found.tolist()


def test_values():
    once, double = Table(), Table(factor=2.0)
    assert values(WeightedSum([once, (double, -1.5)]), 1, -2, 0) == [-2.0, 4.0, 0.0]
    assert values(Product([once, (double, 0.5)]), 1, -2, 0) == [1.0, 4.0, 0.0]
    assert values(Minimum([once, double, (once, 3)]), 1, -2, 0) == [1.0, -6.0, 0.0]
    assert values(Gate(once, double, threshold=1), 1, -2, 0.5, 3) == [2.0, 0.0, 0.0, 6.0]
    assert values(Clip(once, -1, 1), -3, -0.5, 0.5, 9) == [-1.0, -0.5, 0.5, 1.0]
    assert values(Clip(once, high=1), -3, 9) == [-3.0, 1.0]
    assert values(Clip(once, low=1), -3, 9) == [1.0, 9.0]


def test_a_gate_compares_as_float32_and_asks_only_where_it_is_open():
    for threshold in np.arange(1, 100) / 100:
        assert values(Gate(Table(), Table(factor=0.0), threshold=threshold), threshold) == [0.0]
        assert values(
            Gate(Table(), lambda es: [1.0] * len(es), threshold=threshold), threshold
        ) == [1.0]
    costly = Table()
    assert values(Gate(Table(), costly, threshold=2), 1, 2, 3) == [0.0, 2.0, 3.0]
    assert costly.asked == 2
    values(Gate(Table(), costly, threshold=2), 1, 1)
    assert costly.asked == 2


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (WeightedSum([(Table(0, 1), 2), (Table(-1, 3), -1)]), (-3, 3)),
        (WeightedSum([(Table(0, INF), -1), Table(0, 1)]), (-INF, 1)),
        (WeightedSum([(Table(-INF, INF), 0.0), Table(0, 1)]), (0, 1)),
        (Product([Table(-2, 3), Table(-5, 4)]), (-15, 12)),
        (Product([Table(-1, 0), Table(0, INF)]), (-INF, 0)),
        (Product([Table(-1, 1), Table(-INF, INF)]), (-INF, INF)),
        (Product([Table(0, 0), Table(-INF, INF)]), (0, 0)),
        (Minimum([Table(0, 1), Table(-3, INF)]), (-3, 1)),
        (Gate(Table(0, 1), Table(1, 2)), (0, 2)),
        (Gate(Table(0, 1), Table(1, 2), threshold=0), (1, 2)),
        (Gate(Table(0, 1), Table(1, 2), threshold=2), (0, 0)),
        (Clip(Table(), -1, 1), (-1, 1)),
        (Clip(Table(0, 5), high=2), (0, 2)),
        (Clip(Table(3, 5), -1, 1), (1, 1)),
    ],
)
def test_ranges(reward, expected):
    assert reward.range == expected


def test_ranges_are_true_after_rounding_and_are_reached():
    rng = np.random.default_rng(0)
    for _ in range(300):
        parts, corners = [], []
        for _ in range(3):
            low, high = np.sort(rng.normal(size=2)).astype(np.float32).tolist()
            parts.append((Table(low, high), float(rng.normal())))
            corners.append((low, high))
        for make in (WeightedSum, Product, Minimum):
            reward = make(parts)
            found = []
            for pick in range(8):  # all corners of the box
                for part, ends, bit in zip(parts, corners, range(3), strict=True):
                    part[0].factor = ends[pick >> bit & 1]
                found += values(reward, 1)
            assert min(found) == reward.range[0]
            assert max(found) == reward.range[1]


def test_a_sum_with_a_per_token_part_is_per_token():
    mixed = WeightedSum([(PerToken(), 2.0), (Table(), 10.0)])
    assert mixed.per_token
    assert not WeightedSum([Table()]).per_token
    done, going = episode("0.5"), episode("0.5", finish_reason=None)
    arrays = mixed.per_token_rewards([done, going])
    assert [a.tolist() for a in arrays] == [[2.0, 4.0, 11.0], [2.0, 4.0, 6.0]]
    assert mixed([done, going]).tolist() == [17.0, 12.0]
    empty = mixed.per_token_rewards([episode("1", tokens=0)])
    assert [a.tolist() for a in empty] == [[]]


def test_batched_is_single_on_garbage():
    parts = [Length(4), (Keywords(["fox", "日本語"]), 0.5), Repetition(1)]
    for reward in (
        WeightedSum(parts),
        Product(parts),
        Minimum(parts),
        Gate(Keywords(["fox"]), Length(4)),
        Clip(Length(4), 0.25, 0.5),
    ):
        episodes = [episode(text) for text in [*GARBAGE, "the fox and the owl"]]
        together = reward(episodes)
        assert together.tolist() == [float(reward([e])[0]) for e in episodes]
        assert reward.range[0] <= together.min()
        assert together.max() <= reward.range[1]
        assert reward([]).shape == (0,)


def test_parts_may_be_specs_and_functions():
    def ones(episodes):
        return [1.0] * len(episodes)

    reward = WeightedSum(["keywords:fox*0.5", ones, (ones, 2)])
    assert reward.weights == (0.5, 1.0, 2.0)
    assert reward([episode("fox")]).tolist() == [3.5]
    assert as_part(ones).name == "ones"
    assert isinstance(as_part((ones, 2)), WeightedSum)
    assert as_part((ones, 2)).name == "ones"


def test_figures_learning_and_state_reach_the_parts():
    inner = Table()
    inner.figures = lambda: {"failures": 2.0}
    reward = Clip(Gate(Length(4), (inner, 2.0)), 0, 1)
    assert reward.figures() == {"gate/table/table/failures": 2.0}
    reward.set_learning(False)
    assert not inner.learning
    reward.set_state(reward.get_state())


def test_specs():
    def made(kind, spec):
        return _made_of_parts("x", kind, spec)

    total = made(WeightedSum, "sum(length:40*0.5; keywords:fox,owl)")
    assert (total.weights, total.parts[1].words, total.name) == ((0.5, 1.0), ("fox", "owl"), "sum")
    assert made(WeightedSum, "sum(length:40; name=both)").name == "both"
    assert made(Product, "product(length:40; repetition*-1)").range == (0.0, 1.0)
    assert len(made(Minimum, "minimum(length:40; repetition; keywords:fox)").parts) == 3
    gate = made(Gate, "gate(keywords:fox; length:40; threshold=1)")
    assert (gate.threshold, gate.test.name, gate.reward.name) == (1.0, "keywords", "length")
    clip = made(Clip, "clip(length:40*3; low=-1; high=2)")
    assert clip.range == (0.0, 2.0)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: WeightedSum([]), ValueError, "at least one"),
        (lambda: WeightedSum("length:4"), TypeError, r"WeightedSum\(\[\.\.\.\]\)"),
        (lambda: Product(Length(4)), TypeError, "must be a list"),
        (lambda: Minimum([3]), TypeError, "function of episodes"),
        (lambda: WeightedSum([(Length(4), INF)]), ValueError, "weight"),
        (lambda: Gate(Length(4), Length(4), threshold=math.nan), ValueError, "threshold"),
        (lambda: Clip(Length(4)), ValueError, "neither"),
        (lambda: Clip(Length(4), 2, 1), ValueError, "at most `high`"),
        (lambda: Gate.from_parts([(Length(4), 1.0)]), ValueError, r"2 rewards, got 1.*gate\(TEST"),
        (lambda: Clip.from_parts([], low=1), ValueError, "one reward, got 0"),
    ],
)
def test_bad_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_a_part_that_returns_the_wrong_shape_is_named():
    bad = FunctionReward(lambda episodes: [1.0], "bad")
    with pytest.raises(ValueError, match=r"part `bad` returned values of shape \(1,\) for 2"):
        WeightedSum([bad])([episode("a"), episode("b")])
