"""`TextMetrics`: what is recorded of a rollout is what happened in it."""

from __future__ import annotations

import numpy as np
import pytest

from textgym.rewards import Reward, WeightedSum
from textgym_agents.sb3 import TextMetrics
from textgym_agents.sb3.reinforce import REINFORCE


class Telling(Reward):
    """The share of the token 1, and something to tell besides."""

    name = "telling"
    range = (0.0, 1.0)

    def __init__(self):
        self.paid = []

    def __call__(self, episodes):
        shares = [float((e.completion_ids == 1).mean()) for e in episodes]
        self.paid += shares
        return np.array(shares, np.float32)

    def figures(self):
        return {**super().figures(), "episodes": float(len(self.paid)), "most": max(self.paid)}


def silent(episodes):
    return [0.25] * len(episodes)


def recorded(lock, rewards):
    """What an agent's logger holds after one rollout, and its update, of 16 episodes."""
    agent = lock.agent(REINFORCE, rows=16, env={"rewards": rewards})
    agent.learn(1, callback=TextMetrics(), log_interval=None)
    return agent.logger.name_to_value


def test_figures_of_rewards_are_recorded_under_their_names(lock):
    telling = Telling()
    logged = recorded(lock, [(telling, 2.0), silent])
    assert len(telling.paid) == 16
    assert max(telling.paid) > 0
    own = {key: value for key, value in logged.items() if key.startswith("reward/")}
    assert own == {"reward/telling/episodes": 16.0, "reward/telling/most": max(telling.paid)}
    # What was paid is another matter: the mean over episodes, by the reward's weight.
    assert logged["rollout/reward/telling"] == pytest.approx(2 * np.mean(telling.paid))
    assert logged["rollout/reward/silent"] == pytest.approx(0.25)


def test_figures_of_parts_are_recorded_under_both_names(lock):
    telling = Telling()
    logged = recorded(lock, [WeightedSum([(telling, 1.0), (silent, 1.0)], name="both")])
    assert logged["reward/both/telling/episodes"] == len(telling.paid) == 16
