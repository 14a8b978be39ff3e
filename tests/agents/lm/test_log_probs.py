"""Chunked log-probs and entropies against the plain formulas, and the sampling rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from textgym_agents.lm import (
    Head,
    SamplingRule,
    log_probs,
    pack_support,
    sample,
    token_log_probs,
    unpack_support,
)

N, D, V, ROWS = 7, 6, 20, 23


def problem(truncated):
    torch.manual_seed(0)
    hidden = torch.randn(N, D, requires_grad=True)
    weight = torch.randn(ROWS, D, requires_grad=True)
    bias = torch.randn(ROWS, requires_grad=True)
    actions = torch.randint(0, V, (N,))
    inside = torch.rand(N, V) < 0.5
    inside[torch.arange(N), actions] = True
    return hidden, weight, bias, actions, inside if truncated else None


def plain(hidden, weight, bias, actions, inside, temperature, scale, softcap):
    """As in a textbook, with every logit in memory."""
    logits = (hidden @ weight[:V].T + bias[:V]) * scale
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    logits = logits / temperature
    if inside is not None:
        logits = logits.masked_fill(~inside, -1e9)
    distribution = torch.distributions.Categorical(logits=logits)
    return distribution.log_prob(actions), distribution.entropy()


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("keep", [0, 2**20])
def test_equals_the_plain_formulas(monkeypatch, truncated, softcap, chunk, keep):
    monkeypatch.setattr(log_probs, "_KEEP_BYTES", keep)
    hidden, weight, bias, actions, inside = problem(truncated)
    head = Head(weight, bias, V, 0.7, softcap)
    support = None if inside is None else pack_support(inside)
    ours = token_log_probs(hidden, head, actions, temperature=1.3, support=support, chunk=chunk)
    theirs = plain(hidden, weight, bias, actions, inside, 1.3, 0.7, softcap)
    leaves = [hidden, weight, bias]
    weights = torch.arange(N)
    for (log_p, entropy), name in ((ours, "ours"), (theirs, "theirs")):
        loss = (weights * log_p).sum() + (entropy**2).sum()
        grads = torch.autograd.grad(loss, leaves, retain_graph=True)
        if name == "ours":
            kept = grads
    for first, second in zip([*ours, *kept], [*theirs, *grads], strict=True):
        assert torch.allclose(first, second, atol=1e-5)
    # Embedding rows beyond V are no tokens.
    assert (kept[1][V:] == 0).all()


def test_no_entropy_gradient_where_none_is_asked_for():
    hidden, weight, bias, actions, _ = problem(False)
    log_p, _ = token_log_probs(hidden, Head(weight, bias, V), actions)
    (grad,) = torch.autograd.grad(log_p.sum(), [hidden])
    expected = plain(hidden, weight, bias, actions, None, 1.0, 1.0, None)[0].sum()
    assert torch.allclose(grad, torch.autograd.grad(expected, [hidden])[0], atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 513])
def test_packing_round_trips(size):
    support = torch.rand(5, size, generator=torch.Generator().manual_seed(size)) < 0.5
    packed = pack_support(support)
    assert packed.shape == (5, -(-size // 8))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack_support(packed, size), support)
    expected = np.packbits(support.numpy(), axis=-1, bitorder="little")
    np.testing.assert_array_equal(packed.numpy(), expected)


@pytest.mark.parametrize("rule", [(0.7, 0, 1.0), (1.0, 5, 1.0), (1.0, 0, 0.8), (1.4, 8, 0.6)])
def test_support_is_that_of_hugging_face(rule):
    temperature, top_k, top_p = rule
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1)) * 2
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    support = SamplingRule(temperature, top_k, top_p).support(logits)
    if support is None:
        support = torch.ones_like(logits, dtype=torch.bool)
    assert torch.equal(support, torch.isfinite(expected))


def test_samples_follow_the_distribution():
    torch.manual_seed(0)
    p = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    drawn = sample(p.log().expand(40_000, -1))
    share = torch.bincount(drawn, minlength=6) / len(drawn)
    assert share[1] == share[5] == 0
    assert torch.allclose(share, p, atol=4 * (0.25 / len(drawn)) ** 0.5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"temperature": 0}, "temperature"), ({"top_k": -1}, "top_k"), ({"top_p": 0}, "top_p")],
)
def test_impossible_rules_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        SamplingRule(**keywords)
