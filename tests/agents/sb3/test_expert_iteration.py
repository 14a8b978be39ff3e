"""Expert iteration: keeps the best, fits exactly those, and comes to the optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textgym import exact
from textgym_agents.sb3.expert_iteration import ExpertIteration, best_of_groups


def test_best_of_groups():
    returns = np.array([0.0, 2.0, 2.0, 1.0, 0.5, 0.0])
    assert best_of_groups(returns, 3).tolist() == [1, 3]
    assert best_of_groups(returns, 3, threshold=1.5).tolist() == [1]
    assert best_of_groups(returns, 3, threshold=9.0).tolist() == []


def test_gradients_are_those_of_the_best_texts(lock, collect, gradients, naive_log_probs):
    agent = lock.agent(ExpertIteration, rows=16, group_size=4, n_epochs=1, kl_coef=0.0)
    buffer = collect(agent)
    ours = gradients(agent)
    scores = [lock.task.score(buffer.episode(row)) for row in range(16)]
    best = [max(range(i, i + 4), key=lambda row: scores[row]) for i in range(0, 16, 4)]
    lm, log_probs = agent.policy.lm, []
    for row in best:
        episode = buffer.episode(row)
        log_probs.append(naive_log_probs(lm, episode.input_ids, episode.completion_mask))
    lm.zero_grad()
    (-torch.cat(log_probs).mean()).backward()
    for name, parameter in lm.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(ours[name], parameter.grad, atol=2e-6), name


def test_nothing_good_enough_changes_nothing(lock):
    agent = lock.agent(ExpertIteration, threshold=1e6)
    before = [parameter.clone() for parameter in agent.policy.lm.parameters()]
    agent.learn(300)
    for old, new in zip(before, agent.policy.lm.parameters(), strict=True):
        assert torch.equal(old, new)


def test_reaches_95_percent_of_the_optimum(lock):
    agent = lock.agent(ExpertIteration, kl_coef=0.0, threshold=0.5, n_epochs=1)
    base = exact.evaluate(lock.tree, lock.log_probs_of(agent.policy.lm)).expected_return
    agent.learn(12_000)
    reached = exact.evaluate(lock.tree, lock.log_probs_of(agent.policy.lm)).expected_return
    assert base < 0.2
    assert exact.optimum(lock.tree).expected_return == 1.0
    assert reached >= 0.95


def test_wrong_options(lock):
    with pytest.raises(ValueError, match="best of one"):
        lock.agent(ExpertIteration, group_size=1)
    with pytest.raises(ValueError, match="`batch_episodes`"):
        lock.agent(ExpertIteration, batch_episodes=0)
