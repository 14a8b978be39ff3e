"""`Graph`: everything that can happen in an episode, in layers, as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.envs.contexts import PAD_ID, Observation
from textgym.episode import Instance

# The most steps (a token taken in some situation) that are listed without asking for more.
DEFAULT_LIMIT = 2_000_000


@dataclass(frozen=True)
class Layer:
    """The n situations (nodes) that can be met after as many tokens as the layer has before it.

    Args:
        rewards: `[n, V] float64`, what each token pays.
        children: `[n, V] int64`, the node of the next layer that it leads to; -1 where it ends the
            episode, or is not allowed.
        allowed: `[n, V] bool`.
        observations: what the agent sees in each node, `[n, ...]` arrays; None where a node stands
            for many contexts with the same future.
    """

    rewards: NDArray[np.float64]
    children: NDArray[np.int64]
    allowed: NDArray[np.bool_]
    observations: Observation | None = None

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Graph:
    """A finite decision process: layer t is what can be met after t tokens.

    Args:
        layers: the layers, the first one being where episodes begin.
        weights: `[n_0] float64`, how probable each beginning is.
        root_of: the node of the first layer that an instance begins in.
    """

    layers: tuple[Layer, ...]
    weights: NDArray[np.float64]
    root_of: Callable[[Instance], int]

    @property
    def steps(self) -> int:
        """How many pairs of a node and a token allowed in it there are."""
        return int(sum(layer.allowed.sum() for layer in self.layers))

    def locate(self, instance: Instance, tokens: Sequence[int] = ()) -> tuple[int, int]:
        """The layer and the node that `tokens`, written after `instance`, lead to.

        Raises:
            ValueError: one of the tokens cannot be written there, or the episode is over.
        """
        depth, node = 0, self.root_of(instance)
        for token in tokens:
            children = self.layers[depth].children
            if not 0 <= token < children.shape[1] or not self.layers[depth].allowed[node, token]:
                raise ValueError(
                    f"token {token} cannot be written after {list(tokens[:depth])}. Expected one "
                    f"of {np.flatnonzero(self.layers[depth].allowed[node]).tolist()}."
                )
            child = int(children[node, token])
            if child < 0:
                raise ValueError(
                    f"the episode is over after {list(tokens[: depth + 1])}, where nothing is left "
                    "to value. Leave out the last token."
                )
            depth, node = depth + 1, child
        return depth, node


def check_size(steps: float, limit: int, what: str, remedy: str, *, at_least: bool = False) -> None:
    """Raise `ValueError` where `steps` are more than `limit`."""
    if steps <= limit:
        return
    size = f"{steps:,.0f}" if steps < 1e12 else f"10^{math.floor(math.log10(steps))}"
    raise ValueError(
        f"{what} has {'at least ' if at_least else ''}{size} steps (a token in a situation) to "
        f"list, more than `limit={limit:,}`. {remedy}, or raise `limit`."
    )


def unroll(
    graph: Graph,
    instances: Sequence[Instance],
    prompts: Sequence[Sequence[int]],
    *,
    context_size: int,
    limit: int = DEFAULT_LIMIT,
) -> Graph:
    """The tree of all contexts of `instances`, each a node with its observation.

    A language model tells contexts apart that have the same future; in the tree it can be
    evaluated, and be the reference of a KL-regularised objective.

    Args:
        graph: where each node stands for many contexts.
        instances: equally probable.
        prompts: the token ids of each.
        context_size: C.
        limit: the most steps.

    Raises:
        ValueError: it is too large.
    """
    nodes = np.array([graph.root_of(instance) for instance in instances], np.int64)
    _check_tree(graph, nodes, limit)
    budget = len(graph.layers)
    contexts = np.full((len(instances), context_size), PAD_ID, np.int64)
    for row, ids in enumerate(prompts):
        contexts[row, : len(ids)] = ids
    lengths = np.array([len(ids) for ids in prompts], np.int64)
    layers = []
    for depth, layer in enumerate(graph.layers):
        mask = (np.arange(context_size) < lengths[:, None]).astype(np.int8)
        remaining = np.full((len(nodes), 1), budget - depth, np.int64)
        seen: Observation = {"input_ids": contexts, "attention_mask": mask, "remaining": remaining}
        merged = layer.children[nodes]
        parents, tokens = np.nonzero(merged >= 0)
        children = np.full(merged.shape, -1, np.int64)
        children[parents, tokens] = np.arange(len(parents))
        layers.append(Layer(layer.rewards[nodes], children, layer.allowed[nodes], seen))
        contexts, lengths = contexts[parents], lengths[parents]
        contexts[np.arange(len(parents)), lengths] = tokens
        nodes, lengths = merged[parents, tokens], lengths + 1
    return Graph(tuple(layers), np.full(len(instances), 1 / len(instances)), root_index(instances))


def sums(nodes: NDArray[np.int64], flow: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """`[size]`, what flows into each node: `flow [k]` goes to `nodes [k]`."""
    return np.bincount(nodes, weights=flow, minlength=size).astype(np.float64)


def _check_tree(graph: Graph, nodes: NDArray[np.int64], limit: int) -> None:
    """Count the steps of the tree before any of it is made."""
    counts = np.bincount(nodes, minlength=len(graph.weights)).astype(np.float64)
    steps = 0.0
    for layer, after in zip(graph.layers, [*graph.layers[1:], None], strict=True):
        steps += float(counts @ layer.allowed.sum(axis=1))
        if after is not None:
            parents, tokens = np.nonzero(layer.children >= 0)
            into = layer.children[parents, tokens]
            counts = sums(into, counts[parents], len(after))
    remedy = "Use fewer instances, a smaller vocabulary or a smaller budget"
    check_size(steps, limit, f"the tree of {len(nodes):,} instances", remedy)


def root_index(instances: Sequence[Instance]) -> Callable[[Instance], int]:
    """A function that says which of `instances` it is given."""
    places = {instance: place for place, instance in enumerate(instances)}

    def root_of(instance: Instance) -> int:
        if instance not in places:
            raise ValueError(
                f"{instance.prompt[:80]!r} is none of the {len(places)} instances listed. Name it "
                "when the graph is made."
            )
        return places[instance]

    return root_of
