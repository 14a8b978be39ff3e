"""`Constraint`: payments by hand, and the optimum of a bandit under a limit."""

import math

import numpy as np
import pytest

from textgym.episode import Episode, Instance
from textgym.rewards import Length, Repetition
from textgym.rewards.lagrangian import Constraint


def number(episodes):
    return [float(e.completion_text) for e in episodes]


def episodes(values, finish_reason="stop"):
    ids = np.arange(3)
    return [Episode(Instance("p"), ids, ids > 0, str(v), (), finish_reason) for v in values]


def test_payments_by_hand():
    reward = Constraint(number, at_most=1.0, learning_rate=0.5, proportional=0.0)
    assert reward(episodes([3.0, 2.0])).tolist() == [0.0, 0.0]  # lambda is 0, then 0.5 * (2 + 1)
    assert reward.multiplier == 1.5
    assert reward(episodes([3.0, 0.0])).tolist() == [-3.0, 1.5]
    assert reward.multiplier == 2.0
    assert reward.violation == pytest.approx((2 + 1 + 2 - 1) / 4)
    assert reward.figures() == {"multiplier": 2.0, "violation": reward.violation}
    reward(episodes([-100.0]))
    assert reward.multiplier == 0.0
    least = Constraint(number, at_least=1.0, start=2.0)
    assert least(episodes([0.5, 3.0])).tolist() == [-1.0, 4.0]


def test_steps_do_not_depend_on_batches():
    values = np.random.default_rng(0).uniform(0.0, 2.0, 300)
    together = Constraint(number, at_most=0.5, start=1.0, proportional=0.0)
    apart = Constraint(number, at_most=0.5, start=1.0, proportional=0.0)
    together(episodes(values))
    for value in values:
        apart(episodes([value]))
    assert together.multiplier == pytest.approx(apart.multiplier)
    assert apart.multiplier == pytest.approx(1.0 + 1e-3 * (values - 0.5).sum())
    assert apart.violation == pytest.approx(values[-100:].mean() - 0.5, abs=0.1)


def test_learning_state_and_bounds():
    reward = Constraint(number, at_most=0.0, learning_rate=1.0, proportional=2.0, maximum=9.0)
    reward(episodes([1.0]))
    assert reward.multiplier == 1.0 + 2.0
    state = reward.get_state()
    reward(episodes([5.0], finish_reason=None))
    reward(episodes([math.nan]))
    reward.set_learning(False)
    assert reward(episodes([5.0, 1.0])).tolist() == [-15.0, -3.0]
    assert reward.get_state() == state
    reward.set_learning(True)
    reward(episodes([100.0]))
    assert reward.multiplier == 9.0
    reward.set_state(state)
    assert reward.multiplier == 3.0
    assert reward([]).shape == (0,)


def test_ranges():
    assert Constraint(Length(4), at_most=0.25, maximum=2.0).range == (-1.5, 0.5)
    assert Constraint(Length(4), at_most=2.0, maximum=2.0).range == (0.0, 4.0)
    assert Constraint(Repetition(), at_least=-0.25, maximum=4.0).range == (-3.0, 1.0)
    assert Constraint(number, at_most=0.0).range == (-math.inf, math.inf)


PAYS, COSTS, LIMIT = np.array([1.0, 0.6, 0.1]), np.array([1.0, 0.3, 0.0]), 0.65


def trained(side, proportional, steps=3000):
    """Policies over the arms and multipliers, by gradients of a softmax that are exact."""
    sign = 1.0 if side == "at_most" else -1.0
    reward = Constraint(
        lambda es: [sign * float(e.completion_text) for e in es],
        **{side: sign * LIMIT},
        learning_rate=2e-4,
        proportional=proportional,
    )
    arms, rng = episodes(COSTS), np.random.default_rng(0)
    logits, policies, multipliers = np.zeros(3), [], []
    for _ in range(steps):
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        reward.set_learning(False)
        worth = PAYS + reward(arms)
        reward.set_learning(True)
        reward([arms[arm] for arm in rng.choice(3, 32, p=policy)])
        logits += 0.5 * policy * (worth - policy @ worth)
        policies.append(policy)
        multipliers.append(reward.multiplier)
    return np.array(policies), np.array(multipliers)


@pytest.mark.parametrize("side", ["at_most", "at_least"])
def test_the_constrained_optimum_of_a_bandit(side):
    """Arms pay 1, 0.6, 0.1 and cost 1, 0.3, 0. Half and half of the first two costs 0.65.

    With costs at 0.65 on average, at most, that pays 0.8, and no mixture of arms pays more: the
    multiplier of the limit is the slope between the two, 0.4 / 0.7.
    """
    policies, multipliers = trained(side, proportional=1.0)
    assert policies[-1] @ COSTS == pytest.approx(LIMIT, rel=0.02)
    assert policies[-1] @ PAYS == pytest.approx(0.8, rel=0.02)
    assert multipliers[-1000:].mean() == pytest.approx(0.4 / 0.7, rel=0.01)


def test_the_proportional_part_damps_what_circles_without_it():
    circling, resting = (trained("at_most", p)[0][-1000:] @ COSTS for p in (0.0, 1.0))
    assert np.ptp(circling) > 0.5
    assert np.ptp(resting) < 0.05


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({}, "either"),
        ({"at_most": 1.0, "at_least": 0.0}, "either"),
        ({"at_most": math.nan}, "finite"),
        ({"at_most": 1.0, "learning_rate": 0.0}, "learning_rate"),
        ({"at_most": 1.0, "proportional": -1.0}, "proportional"),
        ({"at_most": 1.0, "start": -1.0}, "start"),
        ({"at_most": 1.0, "start": 5.0, "maximum": 4.0}, "maximum"),
    ],
)
def test_bad_arguments(bad, match):
    with pytest.raises(ValueError, match=match):
        Constraint(number, **bad)
