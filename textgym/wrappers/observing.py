"""What the wrappers that replace observations share: single and vector, final observations too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Dict, Discrete
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos
from textgym.errors import RewardError
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.vector import AnyVectorWrapper

# observation, reward, terminated, truncated, info
Step = tuple[Any, Any, Any, Any, Infos]


class ObservationMap:
    """What B rows observe, made into something else; as it stands, of one row at a time.

    Attributes:
        space: of one row's new observation.
    """

    space: gym.Space[Any]

    def __call__(self, observation: Any) -> Any:
        """The new observations of B rows, from the batched old ones."""
        raise NotImplementedError

    def finals(self, observation: Any, rows: Sequence[int], finals: Sequence[Any]) -> Any:
        """The new observations `[R]` of the episodes that ended in `rows`.

        Called, in a step that reset `rows`, before `__call__`.

        Args:
            observation: batched, of all rows after the reset.
            rows: R of them.
            finals: what they observed last, one by one.
        """
        return self(stacked(finals))


class SingleObserving(Snapshots, gym.Wrapper[Any, Any, Any, Any]):
    """A single environment whose observations are replaced by what `mapped` makes of them."""

    def __init__(self, env: gym.Env[Any, Any], mapped: ObservationMap) -> None:
        gym.Wrapper.__init__(self, env)
        self._map = mapped
        self.observation_space = mapped.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._map(stacked([observation]))[0], info

    def step(self, action: Any) -> Step:
        """Step, then replace the observation."""
        try:
            result = self.env.step(action)
        except RewardError as error:
            if error.result is not None:  # the step is done
                error.result = self._seen(error.result)
            raise
        return self._seen(result)

    def _seen(self, result: tuple[Any, ...]) -> Step:
        observation, reward, terminated, truncated, info = result
        return self._map(stacked([observation]))[0], reward, terminated, truncated, info


class VectorObserving(Snapshots, AnyVectorWrapper):
    """A vector environment whose observations are replaced by what `mapped` makes of them.

    Those in `infos["final_obs"]` are replaced too.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], mapped: ObservationMap) -> None:
        AnyVectorWrapper.__init__(self, env)
        self._map = mapped
        self.single_observation_space = mapped.space
        self.observation_space = batch_space(mapped.space, env.num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin new episodes."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return self._map(observation), infos

    def step(self, actions: Any) -> Step:
        """Step, then replace the observations."""
        try:
            result = self.env.step(actions)
        except RewardError as error:
            if error.result is not None:  # the step is done
                error.result = self._seen(error.result)
            raise
        return self._seen(result)

    def _seen(self, result: tuple[Any, ...]) -> Step:
        observation, rewards, terminated, truncated, infos = result
        if "final_obs" in infos:
            rows = np.flatnonzero(infos["_final_obs"]).tolist()
            finals = self._map.finals(observation, rows, [infos["final_obs"][r] for r in rows])
            for row, final in zip(rows, finals, strict=True):
                infos["final_obs"][row] = final
        return self._map(observation), rewards, terminated, truncated, infos


def stacked(observations: Sequence[Any]) -> Any:
    """One batched observation of several single ones."""
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    return np.stack(observations)


def with_finals(observation: Observation, rows: Sequence[int], finals: Sequence[Any]) -> Any:
    """A copy of a batched dict observation in which `rows` are as they were in `finals`.

    Those who read contexts one token at a time take this first and then `observation`: all rows
    have one new token then, and those that were reset have a new prompt afterwards.
    """
    seen = {key: values.copy() for key, values in observation.items()}
    for row, final in zip(rows, finals, strict=True):
        for key, value in final.items():
            seen[key][row] = value
    return seen


def token_spaces(env: Any, wrapper: str) -> tuple[Dict, Discrete]:
    """The observation and action space of one row, where it observes and writes tokens.

    Args:
        env: single or vector, wrapped or not.
        wrapper: who asks, for the message.

    Raises:
        TypeError: contexts are not observed, or actions are not tokens.
    """
    single = not isinstance(env, VectorEnv)
    observed = env.observation_space if single else env.single_observation_space
    actions = env.action_space if single else env.single_action_space
    if not isinstance(observed, Dict) or not {"input_ids", "remaining"} <= set(observed.spaces):
        raise TypeError(
            f"`{wrapper}` reads `input_ids`, but `env` observes {str(observed)[:80]}. Put it "
            "directly around a token environment, inside wrappers that replace observations."
        )
    if not isinstance(actions, Discrete):
        raise TypeError(f"`{wrapper}` needs an `env` with Discrete actions, got {actions}.")
    return observed, actions


def fractions(remaining: NDArray[Any], budget: int) -> NDArray[np.float32]:
    """`[B, 1] float32`, how much of a `budget` of tokens is left."""
    left: NDArray[np.float32] = (np.asarray(remaining) / budget).astype(np.float32)
    return left.reshape(-1, 1)
