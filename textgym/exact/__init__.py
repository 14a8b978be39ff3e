"""Exact solutions: optima, values and advantages to measure a learner against, not estimates.

A `Graph` lists everything that can happen: `lock_graph` and `lock_tree` make that of a `TokenLock`
from its automaton, `enumerate_env` that of any environment small enough. `optimum` and `evaluate`
then give a `Solution`.

    >>> from textgym.exact import evaluate, lock_graph, optimum
    >>> from textgym.tasks.token_lock import TokenLockTask
    >>> task = TokenLockTask(max_new_tokens=5) # four pins and the end
    >>> graph = lock_graph(task)
    >>> best, random = optimum(graph), evaluate(graph)
    >>> best.expected_return
    1.0
    >>> round(random.expected_return, 4)
    0.0062
    >>> instance = task.from_prompt("g c a e b d f a")
    >>> best.advantage(instance).round(3).tolist() # of end-of-sequence and seven letters
    [-1.0, -0.5, -0.5, -0.5, -0.5, 0.0, -0.5, -0.5]

With a reference policy and `beta`, `optimum` gives that of the KL-regularised objective, and
`relative_regret` how far from it a trained policy is. Policies are functions of observations, as an
environment gives them, or tables.
"""

from textgym.exact.dynamic import (
    Policy,
    Solution,
    Table,
    evaluate,
    optimum,
    relative_regret,
    tabulate,
    tabulate_policy,
)
from textgym.exact.enumeration import enumerate_env
from textgym.exact.graph import DEFAULT_LIMIT, Graph, Layer
from textgym.exact.lock import lock_graph, lock_tree

__all__ = [
    "DEFAULT_LIMIT",
    "Graph",
    "Layer",
    "Policy",
    "Solution",
    "Table",
    "enumerate_env",
    "evaluate",
    "lock_graph",
    "lock_tree",
    "optimum",
    "relative_regret",
    "tabulate",
    "tabulate_policy",
]
