"""`PricedDepartures`: each token costs what it is less probable than the model's first choice."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from textgym_agents.wrappers import PricedDepartures, TopKActions

K, BETA = 4, 0.25


def test_what_a_departure_costs(make, model):
    plain, priced = (
        TopKActions(make(3, autoreset_mode=AutoresetMode.SAME_STEP), model, K) for _ in range(2)
    )
    priced = PricedDepartures(priced, BETA)
    rng, ends = np.random.default_rng(0), 0
    _, infos = plain.reset(seed=0)
    priced.reset(seed=0)
    for _ in range(12):
        log_probs, actions = infos["candidate_log_probs"], rng.integers(K, size=3)
        price = BETA * (log_probs[:, 0] - np.diag(log_probs[:, actions]))
        _, rewards, terminated, truncated, infos = plain.step(actions)
        _, left, *_ = priced.step(actions)
        assert left == pytest.approx(rewards - price)
        assert (price[actions > 0] > 0).all()
        ends += (terminated | truncated).sum()
    assert ends > 0  # also of tokens chosen right after a reset


def test_other_environments_are_refused(make, model):
    with pytest.raises(ValueError, match="Wrap in `TopKActions` first"):
        PricedDepartures(make(2, autoreset_mode=AutoresetMode.SAME_STEP), BETA)
    with pytest.raises(ValueError, match="`SAME_STEP` mode"):
        PricedDepartures(
            TopKActions(make(2, autoreset_mode=AutoresetMode.NEXT_STEP), model, K), BETA
        )
