"""`MaskObservation`: the action mask as a key of the observation, for libraries that look there."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.envs.infos import Infos
from textgym.wrappers.snapshots import Snapshots
from textgym.wrappers.vector import TokenVectorWrapper


def MaskObservation(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any], *, key: str = "action_mask"
) -> SingleMaskObservation | VectorMaskObservation:
    """Add `[V] int8`, 1 where a token is allowed, to every observation under `key`.

    TorchRL and RLlib look for ``"action_mask"``, Tianshou's DQN for ``"mask"``. Where no mask
    applies it is all ones.

    Args:
        env: a token environment, single or vector, wrapped or not.
        key: its name in the observation.

    Raises:
        ValueError: where the observation has such a key already.
    """
    kind = VectorMaskObservation if isinstance(env, VectorEnv) else SingleMaskObservation
    return kind(env, key=key)  # type: ignore[arg-type]


class SingleMaskObservation(
    Snapshots, gym.Wrapper[Observation, np.int64, Observation, np.int64], RecordConstructorArgs
):
    """Adds the action mask to the observations of a single environment; see `MaskObservation`."""

    def __init__(self, env: gym.Env[Observation, np.int64], *, key: str = "action_mask") -> None:
        RecordConstructorArgs.__init__(self, key=key)
        gym.Wrapper.__init__(self, env)
        self._key = key
        self._ones = _all_allowed(env.action_space)
        self.observation_space = _with_mask(env.observation_space, key, self._ones.size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._masked(observation, info), info

    def step(self, action: Any) -> tuple[Observation, Any, bool, bool, Infos]:
        """Step, then add the mask."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._masked(observation, info), reward, terminated, truncated, info

    def _masked(self, observation: Observation, info: Infos) -> Observation:
        return {**observation, self._key: info.get("action_mask", self._ones).copy()}


class VectorMaskObservation(
    Snapshots,
    TokenVectorWrapper,
    RecordConstructorArgs,
):
    """Adds the action masks to the observations of a vector environment; see `MaskObservation`.

    The observations in `infos["final_obs"]` get theirs too.
    """

    def __init__(
        self,
        env: VectorEnv[Observation, NDArray[np.int64], NDArray[Any]],
        *,
        key: str = "action_mask",
    ) -> None:
        RecordConstructorArgs.__init__(self, key=key)
        TokenVectorWrapper.__init__(self, env)
        self._key = key
        ones = _all_allowed(env.single_action_space)
        self._ones = np.tile(ones, (env.num_envs, 1))
        self.single_observation_space = _with_mask(env.single_observation_space, key, ones.size)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        # After a partial reset the other rows' masks are not in the infos.
        self._masks = self._ones.copy()

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Infos]:
        """Begin new episodes."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return self._masked(observation, infos), infos

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """Step, then add the masks."""
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            final = infos.get("final_info", {}).get("action_mask", self._ones)
            for row in np.flatnonzero(infos["_final_obs"]):
                mask = final[row].copy()
                infos["final_obs"][row] = {**infos["final_obs"][row], self._key: mask}
        return self._masked(observation, infos), rewards, terminated, truncated, infos

    def _masked(self, observation: Observation, infos: Infos) -> Observation:
        if "action_mask" in infos:
            self._masks[infos["_action_mask"]] = infos["action_mask"][infos["_action_mask"]]
        return {**observation, self._key: self._masks.copy()}

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return {"masks": self._masks.copy()}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        np.copyto(self._masks, state["masks"])


def _all_allowed(space: gym.Space[Any]) -> NDArray[np.int8]:
    if not isinstance(space, gym.spaces.Discrete):
        raise TypeError(f"`env` must be a token environment, got one with actions {space}.")
    return np.ones(int(space.n), np.int8)


def _with_mask(space: gym.Space[Any], key: str, size: int) -> gym.Space[Any]:
    if not isinstance(space, Dict):
        raise TypeError(f"`env` must be a token environment, got one that observes {space}.")
    if key in space.spaces:
        raise ValueError(f"the observation has a key {key!r} already. Give another `key`.")
    return Dict({**space.spaces, key: Box(0, 1, (size,), np.int8)})
