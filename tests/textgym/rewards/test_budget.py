"""`Budget`: the penalty for tokens beyond a budget."""

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.budget import Budget


def episode(tokens, reason="length"):
    ids = np.arange(tokens + 2)
    return Episode(Instance("p"), ids, ids > 1, "x", (Turn("agent", "x"),), reason)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Budget(4), {0: 0, 4: 0, 5: -0.25, 6: -0.5, 8: -1, 9: -1, 500: -1}),
        (Budget(4, cost=0.125), {4: 0, 5: -0.125, 11: -0.875, 12: -1, 13: -1}),
        (Budget(4, cost=3), {4: 0, 5: -1}),
        # DAPO with L_max = 20 and L_cache = 4: 0 to 16, then (16 - L) / 4, then -1.
        (Budget(16, cost=1 / 4), {16: 0, 17: -0.25, 19: -0.75, 20: -1, 21: -1}),
    ],
)
def test_values(reward, expected):
    values = reward([episode(tokens) for tokens in expected])
    assert values.dtype == np.float32
    assert values.tolist() == list(expected.values())
    assert reward.range == (-1.0, 0.0)


def test_the_end_of_sequence_is_free():
    assert Budget(4)([episode(5, "stop"), episode(5, "length")]).tolist() == [0.0, -0.25]


def test_specs():
    reward = Budget.from_arguments("200,cost=0.01")
    assert (reward.tokens, reward.cost, reward.name) == (200, 0.01, "budget")
    assert Budget.from_arguments("tokens=8").cost == 0.125
    with pytest.raises(ValueError, match="needs `tokens`"):
        Budget.from_arguments("")


@pytest.mark.parametrize("cost", [0, -0.1, float("nan"), float("inf")])
def test_bad_costs_are_named(cost):
    with pytest.raises(ValueError, match="`cost` must be a finite number above 0"):
        Budget(4, cost=cost)


def test_a_budget_is_a_positive_int():
    with pytest.raises(ValueError, match="`tokens` must be a positive int, got 0"):
        Budget(0)
    with pytest.raises(TypeError, match="`tokens` must be a positive int"):
        Budget(2.5)
