"""`Normalize` against numpy's own standard deviation."""

import math
import pickle

import numpy as np
import pytest

from textgym.episode import Episode, Instance
from textgym.rewards import Length, Repetition
from textgym.rewards.normalize import Normalize


def number(episodes):
    return [float(e.completion_text) for e in episodes]


def episodes(values, finish_reason="stop"):
    ids = np.arange(3)
    return [Episode(Instance("p"), ids, ids > 0, str(v), (), finish_reason) for v in values]


def fed(values, **keywords):
    reward = Normalize(number, **keywords)
    reward(episodes(values))
    return reward


@pytest.mark.parametrize("center", [False, True])
def test_values_are_in_standard_deviations_of_those_before(center):
    rng = np.random.default_rng(0)
    reward = Normalize(number, center=center, warmup=5)
    seen = np.zeros(0)
    for size in (3, 1, 4, 7, 20):
        new = rng.normal(3.0, 2.0, size).astype(np.float32).astype(float)
        paid = reward(episodes(new))
        assert paid.dtype == np.float32
        expected = new
        if len(seen) >= 5:
            expected = (new - seen.mean() * center) / seen.std()
        assert paid == pytest.approx(expected, rel=1e-6)
        seen = np.append(seen, new)
        assert reward.mean == pytest.approx(seen.mean())
        assert reward.figures()["std"] == pytest.approx(seen.std())
    assert reward.count == 35


def test_statistics_do_not_depend_on_batches():
    values = np.random.default_rng(1).normal(1e3, 1e-1, 100)
    together, apart = fed(values), Normalize(number)
    for value in values:
        apart(episodes([value]))
    assert together.mean == pytest.approx(apart.mean, rel=1e-12)
    assert together.std == pytest.approx(apart.std, rel=1e-6)


def test_nothing_is_learnt_from_held_out_unfinished_or_broken_values():
    reward = fed(range(20))
    state = reward.get_state()
    reward.set_learning(False)
    a, b = reward(episodes([7, 8])), reward(episodes([7, 8]))
    assert a.tolist() == b.tolist() == [float(reward(episodes([n]))[0]) for n in (7, 8)]
    reward.set_learning(True)
    reward(episodes([5.0], finish_reason=None))
    reward(episodes([math.nan]))
    assert reward.get_state() == state
    assert reward([]).shape == (0,)


def test_state_goes_on():
    reward = fed(range(20), center=True)
    other = Normalize(number, center=True)
    other.set_state(pickle.loads(pickle.dumps(reward.get_state())))
    for _ in range(3):
        new = episodes([30, -4])
        assert other(new).tolist() == reward(new).tolist()


def test_constants_and_outliers_are_clipped():
    reward = fed([2.0] * 20, center=True)
    assert reward(episodes([2.0])).tolist() == [0.0]
    reward = fed(range(20), clip=0.7)
    bound = float(np.float32(0.7))
    assert reward(episodes([1e30, -1e30])).tolist() == [bound, -bound]
    assert reward.range == (-bound, bound)
    assert Normalize(Repetition()).range == (-10.0, 0.0)
    assert Normalize(Length(4)).range == (0.0, 10.0)


@pytest.mark.parametrize("bad", [{"clip": 0.0}, {"clip": math.inf}, {"warmup": 1}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Normalize(number, **bad)
    with pytest.raises(ValueError, match="one reward, got 2"):
        Normalize.from_parts([(Length(4), 1.0)] * 2)
