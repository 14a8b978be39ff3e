"""The graph and the tree of a `TokenLock`, from its automaton: no environment is stepped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from textgym.episode import Instance
from textgym.errors import check_positive_int
from textgym.exact.graph import DEFAULT_LIMIT, Graph, Layer, check_size, unroll
from textgym.tasks.token_lock import Memory, TokenLockTask
from textgym.tokenization import Tokenizer


def lock_graph(
    task: TokenLockTask,
    instances: Sequence[Instance] | None = None,
    *,
    max_new_tokens: int | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Graph:
    """All that can happen in a lock: what it remembers, by tokens left.

    Args:
        task: the lock.
        instances: those that are asked, equally probable; None is every prompt there can be.
        max_new_tokens: the environment's budget, where that is not the task's.
        limit: the most steps.

    Raises:
        ValueError: it is too large (a long `delay`: all that is owed is remembered).

    Example:
        >>> graph = lock_graph(TokenLockTask())
        >>> graph.weights.tolist()[:4] # the last letter, of seven, says which of four keys fits
        [0.2857142857142857, 0.2857142857142857, 0.2857142857142857, 0.14285714285714285]
    """
    budget = _budget(task, max_new_tokens)
    letters = [task.from_prompt(" ".join(x * task.prompt_length)) for x in task.letters]
    asked = [task.start(instance) for instance in (letters if instances is None else instances)]
    starts = [key * (task.pins + 1) for key in range(task.keys)]
    places = {start: place for place, start in enumerate(starts)}
    counts = np.bincount([places[start] for start in asked], minlength=task.keys)
    nodes: dict[Memory, int] = {task.begin(start): place for start, place in places.items()}
    layers, steps = [], 0
    for depth in range(budget):
        steps += len(nodes) * task.vocab_size
        check_size(
            steps, limit, "this lock", "Use a smaller lock, budget or `delay`", at_least=True
        )
        layer, nodes = _layer(task, nodes, last=depth == budget - 1)
        layers.append(layer)
    return Graph(
        tuple(layers), counts / counts.sum(), lambda instance: places[task.start(instance)]
    )


def lock_tree(
    task: TokenLockTask,
    instances: Sequence[Instance],
    *,
    max_new_tokens: int | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Graph:
    """Every context of `instances`, with the observation that an environment would give.

    Args:
        task: the lock.
        instances: equally probable; ``task.prompts("train")`` are all where there are few.
        max_new_tokens, limit: as in `lock_graph`.

    Raises:
        ValueError: it is too large.
    """
    budget = _budget(task, max_new_tokens)
    tokenizer = task.tokenizer or Tokenizer.load()
    graph = lock_graph(task, instances, max_new_tokens=budget, limit=limit)
    prompts = [tokenizer.encode(instance.prompt) for instance in instances]
    bound = task.prompt_bound(lambda text: len(tokenizer.encode(text)))
    return unroll(graph, instances, prompts, context_size=bound + budget, limit=limit)


def _budget(task: TokenLockTask, max_new_tokens: int | None) -> int:
    if max_new_tokens is None:
        return task.max_new_tokens
    return check_positive_int("max_new_tokens", max_new_tokens)


def _layer(
    task: TokenLockTask, nodes: dict[Memory, int], *, last: bool
) -> tuple[Layer, dict[Memory, int]]:
    """The layer of `nodes`, and those of the next."""
    shape = (len(nodes), task.vocab_size)
    rewards, children = np.zeros(shape), np.full(shape, -1, np.int64)
    following: dict[Memory, int] = {}
    for memory, node in nodes.items():
        for token in range(task.vocab_size):  # 0 ends the text, the others are letters
            after, pays, ended = task.step(memory, token - 1 if token else None, last)
            rewards[node, token] = pays
            if not ended:
                children[node, token] = following.setdefault(after, len(following))
    return Layer(rewards, children, np.ones(shape, np.bool_)), following
