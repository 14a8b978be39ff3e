"""Held-out episodes of an agent: one on each instance, whatever their lengths."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym import Episode, Instance
from textgym.wrappers import ended
from textgym.wrappers.vector import TokenVectorWrapper
from textgym_agents.bench.counting import check_actions

# What `predict` may take besides the observation.
_OPTIONAL = ("state", "episode_start", "deterministic", "action_masks")


@dataclass
class Played:
    """One episode.

    Args:
        instance: what was asked.
        rewards: what the environment paid for each token.
        episode: its record; None where an outside limit cut it.
        masks: `[V] bool` for each token, what was allowed; empty where no mask applied.
    """

    instance: Instance
    rewards: list[float] = field(default_factory=list)
    episode: Episode | None = None
    masks: list[NDArray[np.bool_]] = field(default_factory=list)

    @property
    def total(self) -> float:
        """The return, undiscounted."""
        return float(sum(self.rewards))


class _Recording(TokenVectorWrapper):
    """Keeps the first episode of each row after a reset: what the environment itself pays."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.played: list[Played] = []
        self.open = np.zeros(env.num_envs, np.bool_)

    def begin(self, instances: Sequence[Instance]) -> None:
        """The rows are about to be asked `instances`."""
        self.played = [Played(instance) for instance in instances]
        self.open[:] = True

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step, and keep what the open rows are paid."""
        result = self.env.step(check_actions(self.env, actions))
        _, rewards, _, _, infos = result
        where, closed = ended(infos, self.autoreset_mode)
        for row in np.flatnonzero(self.open):
            self.played[row].rewards.append(float(rewards[row]))
        for row in closed:
            if self.open[row]:
                self.played[row].episode = where["episode_record"][row]
                self.open[row] = False
        return result


def play(
    agent: Any,
    envs: VectorEnv[Any, Any, Any],
    instances: Sequence[Instance],
    *,
    deterministic: bool = False,
) -> list[Played]:
    """One episode on each of `instances`, in rounds of as many as there are rows.

    A round lasts until all of its episodes are over; rows that are over go on with others, which
    nobody counts.

    Args:
        agent: has `predict`, and `wrap` where it acts in wrapped environments.
        envs: in `SAME_STEP` mode, unwrapped.
        instances: what is asked.
        deterministic: the best action always, where `predict` takes that.

    Raises:
        InvalidActionError: an action that is no token, or masked.
    """
    inner = _Recording(envs)
    outer = agent.wrap(inner) if callable(getattr(agent, "wrap", None)) else inner
    takes = _parameters(agent.predict)
    found: list[Played] = []
    for first in range(0, len(instances), envs.num_envs):
        part = list(instances[first : first + envs.num_envs])
        asked = part + part[-1:] * (envs.num_envs - len(part))
        inner.begin(asked)
        observation, _ = outer.reset(options={"instance": asked})
        state, starts = None, np.ones(envs.num_envs, np.bool_)
        while inner.open.any():
            masks = _masks(outer)
            given = {
                "state": state,
                "episode_start": starts,
                "deterministic": deterministic,
                "action_masks": masks,
            }
            answer = agent.predict(observation, **{k: v for k, v in given.items() if k in takes})
            actions, state = answer if isinstance(answer, tuple) else (answer, None)
            if masks is not None:
                for row in np.flatnonzero(inner.open):
                    inner.played[row].masks.append(masks[row].copy())
            observation, _, terminated, truncated, _ = outer.step(actions)
            starts = terminated | truncated
        found += inner.played[: len(part)]
    return found


class Reciter:
    """An agent that writes tokens that were chosen before.

    Args:
        texts: `[n] int64` each, in the order of the instances.
        envs: where they will be written.
    """

    def __init__(self, texts: Sequence[NDArray[np.int64]], envs: VectorEnv[Any, Any, Any]) -> None:
        self.texts, self.rows = texts, envs.num_envs
        self.end = int(envs.unwrapped.tokenizer.eos_token_id)
        self.first = -self.rows

    def predict(
        self, observation: dict[str, NDArray[Any]], state: int | None = None
    ) -> tuple[NDArray[np.int64], int]:
        """The next token of each row; `state` is how many were written in this round."""
        written = state or 0
        if not written:
            self.first += self.rows
        tokens = np.full(self.rows, self.end, np.int64)  # after a text, whatever ends one
        for row, text in enumerate(self.texts[self.first : self.first + self.rows]):
            if written < len(text):
                tokens[row] = text[written]
        return tokens, written + 1


def takes_deterministic(agent: Any) -> bool:
    """Whether the agent can be asked for its best actions."""
    return "deterministic" in _parameters(getattr(agent, "predict", None))


def _parameters(function: Any) -> set[str]:
    """Which of the optional arguments of `predict` a function takes."""
    if function is None:
        return set()
    found = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in found.values()):
        return set(_OPTIONAL)
    return set(found) & set(_OPTIONAL)


def _masks(envs: VectorEnv[Any, Any, Any]) -> NDArray[np.bool_] | None:
    """`[B, V]` of the outermost layer that masks; None where none does."""
    layer: Any = envs
    while layer is not layer.unwrapped and not hasattr(layer, "action_masks"):
        layer = layer.env
    found = getattr(layer, "action_masks", None)
    return None if found is None else np.asarray(found(), np.bool_)
