"""REINFORCE: its baselines by hand, its gradients by Hugging Face alone, its optimum exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textgym_agents.sb3.reinforce import REINFORCE, RunningMeans


def test_running_means():
    means = RunningMeans(decay=0.5)
    assert means.of(None, 2).tolist() == [0.0, 0.0]
    means.update([None, None], [np.array([1.0, 2.0]), np.array([3.0])])
    assert means.of(None, 2).tolist() == [2.0, 2.0]
    means.update([None], [np.array([6.0, 4.0, 8.0])])
    # The second update of the first two weighs half; the third had none before.
    assert means.of(None, 4).tolist() == [4.0, 3.0, 8.0, 8.0]
    means.update([None], [np.array([0.0])])
    assert means.of(None, 2).tolist() == [2.0, 3.0]  # half again, not a third


def test_running_means_by_instance():
    means = RunningMeans(decay=0.9)
    means.update(["a", "a", "b"], [np.array([1.0]), np.array([2.0]), np.array([6.0])])
    assert means.of("a", 1).tolist() == [1.5]
    assert means.of("b", 1).tolist() == [6.0]
    assert means.of("c", 1).tolist() == [3.0]  # never seen: the mean of all


@pytest.mark.parametrize("baseline", ["running", "instance", "none"])
def test_gradients_are_those_of_the_definition(lock, collect, gradients, naive_gradients, baseline):
    options = {"baseline": baseline, "rows": 8, "kl_coef": 0.0, "env": {"reward": "dense"}}
    agent = lock.agent(REINFORCE, **options)
    first = collect(agent)

    def to_go(buffer):
        """What is earned from each token on, an array an episode."""
        found = []
        for row in range(8):
            (paid,) = agent.env.envs.unwrapped.task.token_rewards([buffer.episode(row)])
            found.append(np.array([paid[t:].sum() for t in range(len(paid))]))
        return found

    seen, asked = to_go(first), list(agent.instances)
    agent.advantages(first)  # an update of the baseline
    buffer = collect(agent)
    ours = gradients(agent)
    returns = to_go(buffer)

    def expected(row, t):
        if baseline == "none":
            return 0.0
        own = range(8)
        if baseline == "instance" and agent.instances[row] in asked:
            own = [i for i in range(8) if asked[i] == agent.instances[row]]
        while not any(len(seen[i]) > t for i in own):
            t -= 1
        return np.mean([seen[i][t] for i in own if len(seen[i]) > t])

    def loss(row, log_prob):
        terms = [
            (float(returns[row][t]) - expected(row, t)) * log_prob[t] for t in range(len(log_prob))
        ]
        return -sum(terms) / 8

    naive = naive_gradients(agent, loss)
    for name, gradient in naive.items():
        assert torch.allclose(ours[name], gradient, atol=2e-6), name
    assert max(float(g.abs().max()) for g in naive.values()) > 1e-3


@pytest.mark.parametrize("baseline", ["running", "instance"])
def test_reaches_95_percent_of_the_kl_regularised_optimum(lock, baseline):
    agent = lock.agent(REINFORCE, rows=128, rate=1.5e-3, baseline=baseline)
    share, base = lock.share(agent, 30_000)
    assert base < 0.3
    assert share >= 0.95


def test_wrong_options(lock):
    with pytest.raises(ValueError, match="`baseline`"):
        lock.agent(REINFORCE, baseline="mean")
    with pytest.raises(ValueError, match="`decay`"):
        lock.agent(REINFORCE, decay=1.0)
