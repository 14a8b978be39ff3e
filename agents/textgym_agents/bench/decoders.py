"""Agents that learn nothing: what the model writes as it is, and what searches make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym import Instance
from textgym.suites import SuiteTask
from textgym_agents.bench.models import model_kwargs
from textgym_agents.decoding import Decoded, beam_search
from textgym_agents.decoding import best_of_n as best_texts
from textgym_agents.sb3 import LMPolicy, TextVecEnv

_BEAM_WIDTH = 4
_TEXTS = 8


def untrained(envs: VectorEnv, seed: int) -> LMPolicy:
    """The policy that learners begin with."""
    text = TextVecEnv(envs)
    policy = LMPolicy(
        text.observation_space,
        text.action_space,
        lambda remaining: 0.0,
        **model_kwargs(envs, seed) | {"kl_coef": 0.0},
    )
    policy.set_training_mode(False)
    return policy


class Writer:
    """A policy that always samples, or never does.

    Args:
        policy: the model.
        greedy: the most probable token always.
    """

    def __init__(self, policy: LMPolicy, *, greedy: bool) -> None:
        self.policy, self.greedy = policy, greedy

    def predict(self, observation: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        """`[B] int64`."""
        return self.policy.predict(observation, deterministic=self.greedy)[0]


class BestOfN:
    """Writes several texts to each instance and keeps the one of greatest return.

    Args:
        policy: the model.
        n: texts to each instance.
    """

    def __init__(self, policy: LMPolicy, n: int) -> None:
        self.policy, self.n = policy, n

    def decode(self, task: SuiteTask, instances: Sequence[Instance]) -> list[NDArray[np.int64]]:
        """The tokens of the best texts."""
        found = best_texts(self.policy.lm, task.make_envs("test"), instances, self.n)
        return [text.tokens for text in found]


class Beam:
    """Searches the most probable text.

    Args:
        policy: the model.
        width: prefixes kept.
    """

    def __init__(self, policy: LMPolicy, width: int) -> None:
        self.policy, self.width = policy, width

    def decode(self, task: SuiteTask, instances: Sequence[Instance]) -> list[NDArray[np.int64]]:
        """The tokens of the texts that were found."""
        env = task.make_env("test")

        def search(instance: Instance) -> Decoded:
            options = {"instance": instance}
            return beam_search(self.policy.lm, env, width=self.width, options=options)

        return [search(instance).tokens for instance in instances]


def sample(envs: VectorEnv, budget: int, seed: int) -> Writer:
    """The model at temperature 1."""
    return Writer(untrained(envs, seed), greedy=False)


def greedy(envs: VectorEnv, budget: int, seed: int) -> Writer:
    """The model's most probable tokens."""
    return Writer(untrained(envs, seed), greedy=True)


def beam(envs: VectorEnv, budget: int, seed: int) -> Beam:
    """Beam search."""
    return Beam(untrained(envs, seed), _BEAM_WIDTH)


def best_of_n(envs: VectorEnv, budget: int, seed: int) -> BestOfN:
    """The best of eight, as the task itself judges them."""
    return BestOfN(untrained(envs, seed), _TEXTS)
