"""`Schedule`: the weight after so many episodes or tokens."""

import math

import numpy as np
import pytest

from textgym.episode import Episode, Instance
from textgym.rewards import Length
from textgym.rewards.schedule import Schedule


def one(episodes):
    return [1.0] * len(episodes)


def batch(size, tokens=2, finish_reason="stop"):
    ids = np.arange(tokens + 1)
    return [Episode(Instance("p"), ids, ids > 0, "", (), finish_reason)] * size


def test_linear_over_episodes():
    reward = Schedule(one, 1.0, 0.0, over=8)
    paid = [reward(batch(2)).tolist() for _ in range(6)]
    assert paid == [[1.0] * 2, [0.75] * 2, [0.5] * 2, [0.25] * 2, [0.0] * 2, [0.0] * 2]
    assert reward.figures() == {"weight": 0.0}


def test_cosine_over_tokens():
    reward = Schedule(one, 2.0, 4.0, over=12, unit="tokens", shape="cosine")
    paid = [float(reward(batch(1, tokens=4))[0]) for _ in range(5)]
    expected = [3 - math.cos(math.pi * done) for done in (0, 1 / 3, 2 / 3, 1, 1)]
    assert paid == pytest.approx(expected)


def test_only_finished_episodes_count_and_only_while_learning():
    reward = Schedule(one, over=10)
    reward(batch(3))
    reward(batch(3, finish_reason=None))
    reward.set_learning(False)
    reward(batch(3))
    assert reward.weight == 0.3
    other = Schedule(one, over=10)
    other.set_state(reward.get_state())
    assert other.weight == 0.3
    assert reward([]).shape == (0,)


def test_ranges_and_constant_weights():
    assert Schedule(Length(4), -1.0, 2.0).range == (-1.0, 2.0)
    assert Schedule(one, 0.0, 1.0).range == (-math.inf, math.inf)
    steady = Schedule(one, 0.1, 0.1, over=97)
    for _ in range(100):
        assert reward_in_range(steady)
    fading = Schedule.from_parts([(Length(4), 2.0)], start=1.0, end=0.0, shape="cosine")
    assert fading.range == (0.0, 2.0)


def reward_in_range(reward):
    weight = reward.weight
    reward(batch(1))
    return weight == 0.1


@pytest.mark.parametrize(
    "bad",
    [{"start": math.inf}, {"end": math.nan}, {"over": 0}, {"unit": "steps"}, {"shape": "square"}],
)
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Schedule(one, **bad)
