"""`random` and `oracle`: what scores are normalised by. Neither needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym import Instance
from textgym.demonstrations import demonstrate
from textgym.suites import SuiteTask


class RandomAgent:
    """Any token, as likely as any other.

    Args:
        actions: V.
        seed: of its own generator.
    """

    def __init__(self, actions: int, seed: int) -> None:
        self.actions = actions
        self.rng = np.random.default_rng(seed)

    def predict(
        self, observation: dict[str, NDArray[Any]], action_masks: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """`[B] int64`, of those allowed."""
        rows = len(observation["remaining"])
        if action_masks is None:
            return self.rng.integers(self.actions, size=rows)
        chances = self.rng.random((rows, self.actions))
        return np.where(action_masks, chances, -1.0).argmax(axis=1)


class Oracle:
    """Writes what the task's own oracle says."""

    def decode(self, task: SuiteTask, instances: Sequence[Instance]) -> list[NDArray[np.int64]]:
        """The tokens of each text, every end-of-sequence among them."""
        envs = task.make_envs("test")
        return [
            demonstrate(envs.task, instance, envs.tokenizer).completion_ids
            for instance in instances
        ]


def random(envs: Any, budget: int, seed: int) -> RandomAgent:
    """Random tokens; nothing is learnt."""
    return RandomAgent(int(envs.single_action_space.n), seed)


def oracle(envs: Any, budget: int, seed: int) -> Oracle:
    """The task's own oracle; nothing is learnt."""
    return Oracle()
