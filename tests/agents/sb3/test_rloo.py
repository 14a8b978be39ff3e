"""RLOO: its advantages by hand, its gradients by Hugging Face alone, its optimum exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from textgym_agents.sb3.rloo import RLOO, leave_one_out_advantages


def test_leave_one_out_advantages():
    returns = np.array([1.0, 3.0, 8.0, 2.0, 2.0, 5.0])
    # 1 - 5.5, 3 - 4.5, 8 - 2; 2 - 3.5, 2 - 3.5, 5 - 2
    expected = [-4.5, -1.5, 6.0, -1.5, -1.5, 3.0]
    assert leave_one_out_advantages(returns, 3).tolist() == pytest.approx(expected)


def test_gradients_are_those_of_the_definition(lock, collect, gradients, naive_gradients):
    agent = lock.agent(RLOO, rows=8, group_size=4, kl_coef=0.3)
    collect(agent)
    with torch.no_grad():
        for parameter in agent.policy.reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    buffer = collect(agent)  # now with a KL that is paid for
    ours = gradients(agent)
    ends = np.cumsum(buffer.counts)
    scores = [lock.task.score(buffer.episode(row)) for row in range(8)]
    returns = []
    for row, (end, count) in enumerate(zip(ends, buffer.counts, strict=True)):
        own = slice(end - count, end)
        kl = float((buffer.log_probs[own] - buffer.ref_log_probs[own]).sum())
        returns.append(scores[row] - 0.3 * kl)

    def loss(row, log_prob):
        group = range(row // 4 * 4, row // 4 * 4 + 4)
        others = np.mean([returns[i] for i in group if i != row])
        return -(returns[row] - others) * log_prob.sum() / 8

    naive = naive_gradients(agent, loss)
    assert ours.keys() == naive.keys()
    for name, gradient in naive.items():
        assert torch.allclose(ours[name], gradient, atol=2e-6), name
    assert max(float(g.abs().max()) for g in naive.values()) > 1e-3


def test_reaches_95_percent_of_the_kl_regularised_optimum(lock):
    share, base = lock.share(lock.agent(RLOO, rate=1.5e-3, group_size=8), 24_000)
    assert base < 0.3
    assert share >= 0.95


def test_a_group_of_one_is_refused(lock):
    with pytest.raises(ValueError, match="REINFORCE"):
        lock.agent(RLOO, group_size=1)
