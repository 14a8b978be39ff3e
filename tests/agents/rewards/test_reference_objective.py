"""What beta * log p_ref in the reward makes of agents with entropy terms, on chains with optima.

Exact throughout: nothing is sampled, and every number is computed twice, here and by
`textgym.exact`.
"""

import numpy as np
import pytest

from textgym.exact import Graph, Layer, evaluate, optimum

BETA = 0.5


def chain(rewards, children):
    """A graph of one node a layer, two or more tokens in each."""
    layers = tuple(
        Layer(np.array([paid], float), np.array([to]), np.ones((1, len(paid)), bool))
        for paid, to in zip(rewards, children, strict=True)
    )
    return Graph(layers, np.ones(1), lambda instance: 0)


def early_end(choices):
    """Token 0 ends the episode at once, token 1 goes on to `choices` more tokens; nothing pays."""
    steps = choices + 1
    return chain(np.zeros((steps, 2)), [[-1, 0], *[[0, 0]] * (choices - 1), [-1, -1]])


def random_chain(rng, steps, tokens):
    """Random rewards; the last token ends the episode, the others go on."""
    going = [[0] * (tokens - 1) + [-1]] * (steps - 1)
    graph = chain(rng.normal(size=(steps, tokens)), [*going, [-1] * tokens])
    return graph, [np.log(rng.dirichlet(np.ones(tokens), 1)) for _ in range(steps)]


def with_log_probs(graph, reference):
    """The graph as the wrapper pays it: reward + beta * log p_ref."""
    layers = tuple(
        Layer(layer.rewards + BETA * ref, layer.children, layer.allowed)
        for layer, ref in zip(graph.layers, reference, strict=True)
    )
    return Graph(layers, graph.weights, graph.root_of)


def uniform(graph):
    return [
        np.log(np.full(layer.rewards.shape, 1 / layer.rewards.shape[1])) for layer in graph.layers
    ]


def soft_value_iteration(graph):
    """The policy of an agent whose values count `BETA` times the entropy of all later steps."""
    policy, after = [], 0.0
    for layer in reversed(graph.layers):
        q = layer.rewards + np.where(layer.children >= 0, after, 0.0)
        after = BETA * np.logaddexp.reduce(q / BETA, axis=1)[0]
        policy.append((q - after) / BETA)
    return policy[::-1], after


def policy_gradient(graph, *, natural=False):
    """Where exact ascent on the objective of a stock PPO ends: a log-softmax a layer.

    Its gradient is that of the expected advantages of the rewards, plus `BETA` times that of the
    entropy of the states visited, whose visits are held fixed. The natural gradient is nothing
    where the gradient is, and gets there sooner where tokens are rare.
    """
    logits = [np.zeros_like(layer.rewards) for layer in graph.layers]
    for _ in range(1500):
        log_probs = [z - np.logaddexp.reduce(z, axis=1, keepdims=True) for z in logits]
        now = evaluate(graph, log_probs)
        for z, log_p, advantages, visits in zip(
            logits, log_probs, now.advantages, now.visits, strict=True
        ):
            p = np.exp(log_p)
            entropy = -(p * log_p).sum(axis=1, keepdims=True)
            step = advantages - BETA * (log_p + entropy)
            z += 0.1 * step if natural else visits[:, None] * p * step
    return log_probs


@pytest.mark.parametrize("seed", range(5))
def test_soft_values_reach_the_kl_regularised_optimum(seed):
    rng = np.random.default_rng(seed)
    graph, reference = random_chain(rng, steps=4, tokens=int(rng.integers(2, 5)))
    best = optimum(graph, beta=BETA, reference=reference)
    policy, value = soft_value_iteration(with_log_probs(graph, reference))
    assert value == pytest.approx(best.objective, abs=1e-9)
    for ours, exact in zip(policy, best.log_probs, strict=True):
        assert ours == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("choices", "expected"), [(0, 1 / 2), (1, 1 / 3), (2, 1 / 5), (3, 1 / 9)])
def test_a_stock_entropy_bonus_learns_to_end_early(choices, expected):
    graph = early_end(choices) if choices else chain([[0.0, 0.0]], [[-1, -1]])
    best = optimum(graph, beta=BETA)
    assert np.exp(best.log_probs[0][0, 1]) == pytest.approx(0.5, abs=1e-9)
    paid = with_log_probs(graph, uniform(graph))
    soft, _ = soft_value_iteration(paid)
    assert np.exp(soft[0][0, 1]) == pytest.approx(0.5, abs=1e-9)
    learnt = policy_gradient(paid)
    # To go on costs `choices` log-probs of 1/2 more, and no entropy is credited for them.
    assert np.exp(learnt[0][0, 1]) == pytest.approx(expected, abs=1e-6)
    regret = best.objective - evaluate(graph, learnt, beta=BETA).objective
    divergence = expected * np.log(2 * expected) + (1 - expected) * np.log(2 * (1 - expected))
    assert regret == pytest.approx(BETA * divergence, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_in_episodes_of_one_step_both_are_right(seed):
    rng = np.random.default_rng(seed)
    graph, reference = random_chain(rng, steps=1, tokens=4)
    best = optimum(graph, beta=BETA, reference=reference)
    paid = with_log_probs(graph, reference)
    (soft,), _ = soft_value_iteration(paid)
    (learnt,) = policy_gradient(paid, natural=True)
    assert soft == pytest.approx(best.log_probs[0], abs=1e-9)
    assert learnt == pytest.approx(best.log_probs[0], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_in_longer_episodes_the_two_differ(seed):
    graph, reference = random_chain(np.random.default_rng(seed), steps=4, tokens=3)
    best = optimum(graph, beta=BETA, reference=reference)
    learnt = policy_gradient(with_log_probs(graph, reference), natural=True)
    reached = evaluate(graph, learnt, beta=BETA, reference=reference)
    assert best.objective - reached.objective > 1e-3
    # The whole KL as a reward does reach it: its gradient at the optimum is nothing.
    whole = with_log_probs(graph, [r - p for r, p in zip(reference, best.log_probs, strict=True)])
    for advantages in evaluate(whole, best.log_probs).advantages:
        assert advantages == pytest.approx(0.0, abs=1e-9)
