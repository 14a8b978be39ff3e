"""Optima and exact evaluations by backward induction over a `Graph`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.episode import Instance
from textgym.exact.graph import Graph, Layer, sums

Table = tuple[NDArray[np.float64], ...]  # one array a layer, `[n, ...]`
Function = Callable[[Observation], Any]
Policy = Function | Sequence[NDArray[np.float64]] | None

# Tokens whose values are this close are equally good.
_TIE = 1e-9
# Observations given to a policy at one time.
_BATCH = 4096


@dataclass(frozen=True)
class Solution:
    """A policy and what exactly it is worth.

    Values count what the KL to the reference costs from there on, and Q-values what it costs after
    the token, each times `beta`.

    Args:
        graph: what it is a policy for.
        log_probs: `[n, V]` a layer, nats: the policy.
        ref_log_probs: `[n, V]` a layer, nats: the reference.
        values: `[n]` a layer, V of each node.
        q_values: `[n, V]` a layer, Q of each token; -inf where it is not allowed.
        expected_return: of an episode.
        kl: KL(policy, reference) of an episode, nats.
        objective: J, ``expected_return - beta * kl``.
    """

    graph: Graph
    log_probs: Table
    ref_log_probs: Table
    values: Table
    q_values: Table
    expected_return: float
    kl: float
    objective: float

    @cached_property
    def advantages(self) -> Table:
        """`[n, V]` a layer, Q - V."""
        return tuple(q - v[:, None] for q, v in zip(self.q_values, self.values, strict=True))

    @cached_property
    def visits(self) -> Table:
        """`[n]` a layer: the probability that an episode comes by each node."""
        found = [self.graph.weights]
        layers = self.graph.layers
        for layer, after, log_probs in zip(layers, layers[1:], self.log_probs, strict=False):
            parents, tokens = np.nonzero(layer.children >= 0)
            flow = found[-1][parents] * np.exp(log_probs[parents, tokens])
            found.append(sums(layer.children[parents, tokens], flow, len(after)))
        return tuple(found)

    def value(self, instance: Instance, tokens: Sequence[int] = ()) -> float:
        """V after `tokens`, written to answer `instance`."""
        depth, node = self.graph.locate(instance, tokens)
        return float(self.values[depth][node])

    def q_value(self, instance: Instance, tokens: Sequence[int] = ()) -> NDArray[np.float64]:
        """`[V]`, Q of every token there."""
        depth, node = self.graph.locate(instance, tokens)
        q_values: NDArray[np.float64] = self.q_values[depth][node]
        return q_values

    def advantage(self, instance: Instance, tokens: Sequence[int] = ()) -> NDArray[np.float64]:
        """`[V]`, Q - V of every token there."""
        return self.q_value(instance, tokens) - self.value(instance, tokens)

    def value_error(self, values: Table) -> float:
        """Root mean square error of `values`, `[n]` a layer, where this policy goes."""
        squares = sum(
            float(visits @ (found - exact) ** 2)
            for visits, found, exact in zip(self.visits, values, self.values, strict=True)
        )
        return float(np.sqrt(squares / sum(visits.sum() for visits in self.visits)))

    def advantage_error(self, advantages: Table) -> float:
        """The same of `advantages`, `[n, V]` a layer, for the tokens this policy takes."""
        total = 0.0
        for visits, log_probs, found, exact in zip(
            self.visits, self.log_probs, advantages, self.advantages, strict=True
        ):
            taken = np.isfinite(log_probs)
            squares = np.where(taken, found - np.where(taken, exact, 0.0), 0.0) ** 2
            total += float(visits @ (np.exp(log_probs) * squares).sum(axis=1))
        return float(np.sqrt(total / sum(visits.sum() for visits in self.visits)))


def optimum(
    graph: Graph, *, beta: float = 0.0, reference: Policy = None, gamma: float = 1.0
) -> Solution:
    """The best policy for ``J = return - beta * KL(policy, reference)``, and its worth.

    With ``beta == 0`` that is the greatest return, and tokens that are equally good are equally
    probable. With more, ``V = beta * log(sum over tokens of p_ref * exp(Q / beta))`` and the
    policy is ``p_ref * exp((Q - V) / beta)``.

    Args:
        graph: all that can happen.
        beta: weight of the KL, at least 0.
        reference: see `tabulate_policy`; None is uniformly random over the tokens allowed.
        gamma: discount of rewards and KL alike.
    """
    _check(beta, gamma)
    refs = tabulate_policy(graph, reference, name="reference")
    after = np.zeros(0)
    policies: list[NDArray[np.float64]] = []
    for layer, ref in zip(reversed(graph.layers), reversed(refs), strict=True):
        q = _q_values(layer, after, gamma)
        if beta == 0.0:
            after = q.max(axis=1)
            best = q >= after[:, None] - _TIE
            log_probs = np.where(best, -np.log(best.sum(axis=1, keepdims=True)), -np.inf)
        else:
            weighted = ref + np.where(layer.allowed, q, 0.0) / beta
            total = np.logaddexp.reduce(weighted, axis=1, keepdims=True)
            after, log_probs = beta * total[:, 0], weighted - total
        policies.append(log_probs)
    return _worth(graph, tuple(reversed(policies)), refs, beta, gamma)


def evaluate(
    graph: Graph,
    policy: Policy = None,
    *,
    beta: float = 0.0,
    reference: Policy = None,
    gamma: float = 1.0,
) -> Solution:
    """What `policy` is worth, exactly.

    Args:
        graph: all that can happen.
        policy: see `tabulate_policy`; None is uniformly random over the tokens allowed.
        beta, reference, gamma: as in `optimum`.
    """
    _check(beta, gamma)
    log_probs = tabulate_policy(graph, policy, name="policy")
    same = reference is policy
    refs = log_probs if same else tabulate_policy(graph, reference, name="reference")
    return _worth(graph, log_probs, refs, beta, gamma)


def relative_regret(best: Solution, reached: Solution, base: Solution) -> float:
    """``(J* - J) / (J* - J_base)``: 0 at the optimum, 1 where nothing was gained on `base`."""
    return (best.objective - reached.objective) / (best.objective - base.objective)


def tabulate(graph: Graph, function: Function) -> Table:
    """What `function` says of every observation, one array a layer.

    Args:
        graph: a tree, with observations.
        function: takes observations as a vector environment gives them, at most 4,096 at a time,
            and returns `[B, ...]`, one row an observation.

    Raises:
        ValueError: the nodes of `graph` stand for many contexts each.
    """
    found = []
    for layer in graph.layers:
        if layer.observations is None:
            raise ValueError(
                "a function of observations needs the tree of all contexts, and the nodes of this "
                "graph stand for many each. Use `lock_tree` or `enumerate_env`."
            )
        seen = layer.observations
        parts = [
            np.asarray(function({key: a[i : i + _BATCH] for key, a in seen.items()}), np.float64)
            for i in range(0, len(layer), _BATCH)
        ]
        found.append(np.concatenate(parts))
    return tuple(found)


def tabulate_policy(graph: Graph, policy: Policy, *, name: str = "policy") -> Table:
    """The log-probs of `policy`, `[n, V] float64` a layer.

    Args:
        graph: what it acts in.
        policy: None (uniformly random over the tokens allowed), a function from observations to
            log-probs `[B, V]` (see `tabulate`), or such a table.
        name: the argument it came from, for messages.

    Raises:
        ValueError: what is not log-probs of the tokens allowed, each row adding up to 1.
    """
    if policy is None:
        return tuple(
            np.where(layer.allowed, -np.log(layer.allowed.sum(axis=1, keepdims=True)), -np.inf)
            for layer in graph.layers
        )
    table = tabulate(graph, policy) if callable(policy) else tuple(policy)
    if len(table) != len(graph.layers):
        raise ValueError(
            f"`{name}` has tables of {len(table)} layers, expected {len(graph.layers)}."
        )
    return tuple(
        _normalised(np.asarray(log_probs, np.float64), layer, name)
        for log_probs, layer in zip(table, graph.layers, strict=True)
    )


def _normalised(log_probs: NDArray[np.float64], layer: Layer, name: str) -> NDArray[np.float64]:
    """`log_probs` of `layer`, checked, and freed of rounding errors."""
    if log_probs.shape != layer.allowed.shape:
        raise ValueError(
            f"`{name}` gave log-probs of shape {log_probs.shape}, expected {layer.allowed.shape}: "
            "one for each observation and token."
        )
    within = np.where(layer.allowed, log_probs, -np.inf)
    total = np.logaddexp.reduce(within, axis=1, keepdims=True)
    if not np.all(np.abs(total) < 1e-3):
        worst = float(np.exp(total).ravel()[np.abs(total).argmax()])
        raise ValueError(
            f"`{name}`: the probabilities of the tokens allowed add up to {worst:.6g} somewhere, "
            "expected 1. Return log-probs (a log-softmax over the tokens allowed), in nats."
        )
    return within - total


def _worth(graph: Graph, log_probs: Table, refs: Table, beta: float, gamma: float) -> Solution:
    """Evaluate a policy given as tables."""
    after, paid, cost = np.zeros(0), np.zeros(0), np.zeros(0)
    values: list[NDArray[np.float64]] = []
    q_values: list[NDArray[np.float64]] = []
    for i in reversed(range(len(graph.layers))):
        layer, log_pi = graph.layers[i], log_probs[i]
        pi = np.exp(log_pi)
        taken = pi > 0
        ratio = np.where(taken, np.where(taken, log_pi, 0.0) - np.where(taken, refs[i], 0.0), 0.0)
        kl = (pi * ratio).sum(axis=1)
        q = _q_values(layer, after, gamma)
        reached = np.where(taken, q, 0.0)
        paid = (pi * (layer.rewards + gamma * _following(layer, paid))).sum(axis=1)
        cost = kl + gamma * (pi * _following(layer, cost)).sum(axis=1)
        after = (pi * reached).sum(axis=1) - (beta * kl if beta else 0.0)
        values.append(after)
        q_values.append(q)
    expected, kl_total = float(graph.weights @ paid), float(graph.weights @ cost)
    return Solution(
        graph=graph,
        log_probs=log_probs,
        ref_log_probs=refs,
        values=tuple(reversed(values)),
        q_values=tuple(reversed(q_values)),
        expected_return=expected,
        kl=kl_total,
        objective=float(graph.weights @ after),
    )


def _q_values(layer: Layer, after: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    q = layer.rewards + gamma * _following(layer, after)
    return np.where(layer.allowed, q, -np.inf)


def _following(layer: Layer, after: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[n, V]`, of `after [n']` what each token leads to; 0 at the end."""
    found: NDArray[np.float64] = np.append(after, 0.0)[layer.children]  # the last one is -1
    return found


def _check(beta: float, gamma: float) -> None:
    if not 0.0 <= beta < np.inf:
        raise ValueError(f"`beta` must be a finite number of at least 0, got {beta!r}.")
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"`gamma` must be above 0 and at most 1, got {gamma!r}.")
