"""The bridge from a Gymnasium vector environment of text to SB3's `VecEnv`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

import textgym  # noqa: F401  # registers the environments
from textgym.rewards.terms import RewardTerm
from textgym.wrappers import get_state, reward_terms_of, set_state


class TextVecEnv(VecEnv):
    """A `VectorEnv` in `SAME_STEP` mode as SB3 wants it.

    Args:
        envs: the vector environment, wrappers included.

    Attributes:
        late: what judges episodes after they have ended, where there is such a thing, see
            `AsyncScoring`; a reset ends that.

    Raises:
        ValueError: another autoreset mode, where SB3 would learn from steps that never were.
    """

    def __init__(self, envs: VectorEnv) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"SB3 needs `autoreset_mode=AutoresetMode.SAME_STEP`, got {mode}. "
                "`make_vec_env` sets it."
            )
        self.envs = envs
        self.seeds: int | list[int] | None = None
        self.late: Any = None
        self._actions: NDArray[np.int64] | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        # A policy is shown the spaces alone, so these say whether it must ask for masks.
        self.action_space = copy.copy(self.action_space)
        self.action_space.masked = self.has_attr("action_masks")
        self._returns = np.zeros(self.num_envs)
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._began = time.time()

    @property
    def tokenizer(self) -> Any:
        """The environments' tokenizer."""
        return self.envs.unwrapped.tokenizer

    @property
    def reward_terms(self) -> list[RewardTerm]:
        """The rewards paid on top of the score, with their names and weights."""
        return reward_terms_of(self.envs)

    def reset(self) -> Any:
        """Start anew, with the seed set by `seed()` if there was one."""
        if self.late is not None:
            self.late.leave()
        observations, infos = self.envs.reset(seed=self.seeds)
        self.seeds = None
        self._reset_seeds()
        self._returns[:], self._steps[:] = 0.0, 0
        self.reset_infos = _split(infos, self.num_envs)
        return _copied(observations)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Set the seed of the next reset."""
        self.seeds = seed
        return [seed] * self.num_envs

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Keep `actions [B]` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step; rows that ended are reset, their last observation in `terminal_observation`."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        before = None if self.late is None else self._returns.copy()
        self._returns += rewards
        self._steps += 1
        rows: list[dict[str, Any]]
        if infos:
            rows = _split(
                {k: v for k, v in infos.items() if k.lstrip("_") not in _FINAL}, self.num_envs
            )
        else:
            rows = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            row = rows[i]
            row.update(_row(infos.get("final_info", {}), i))
            row["terminal_observation"] = _final_observation(infos["final_obs"], i)
            row["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
            row["episode"] = {
                "r": float(self._returns[i]),
                "l": int(self._steps[i]),
                "t": round(time.time() - self._began, 6),
            }
            self._returns[i], self._steps[i] = 0.0, 0
        if before is not None and dones.any():
            self.late.take(rows, rewards, before)
        # SB3 adds this observation to its buffer after the next step: it must not change.
        return _copied(observations), rewards.astype(np.float32), dones, rows

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on from here, bit for bit."""
        return {
            "envs": get_state(self.envs),
            "returns": self._returns.copy(),
            "steps": self._steps.copy(),
            "seeds": self.seeds,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to what `get_state` returned."""
        set_state(self.envs, state["envs"])
        self._returns[:] = state["returns"]
        self._steps[:] = state["steps"]
        self.seeds = state["seeds"]

    # ------------------------------------------------------------------ SB3's remaining interface
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the environments, once for each row asked for."""
        # The outermost that has it: a wrapper's `action_masks` hides those of the environment.
        layer = self.envs
        while layer is not layer.unwrapped and not hasattr(layer, attr_name):
            layer = layer.env
        value = getattr(layer, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environments; they are one object, so all rows share it."""
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment; its result once for each row asked for.

        A method that answers for all rows at once, such as `action_masks`, is split by row.
        """
        result = self.get_attr(method_name)[0](*method_args, **method_kwargs)
        rows = list(self._get_indices(indices))
        if isinstance(result, np.ndarray) and len(result) == self.num_envs:
            return [result[i] for i in rows]
        return [result for _ in rows]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """True for `Monitor`, whose `episode` this bridge writes; otherwise what is so."""
        env, found = self.envs, wrapper_class is Monitor
        while not found:
            found = isinstance(env, wrapper_class)
            if not hasattr(env, "env"):
                break
            env = env.env
        return [found for _ in self._get_indices(indices)]


_FINAL = ("final_obs", "final_info")


def make_vec_env(
    env: str | VectorEnv,
    n_envs: int = 64,
    *,
    seed: int | None = None,
    wrappers: Sequence[Callable[[VectorEnv], VectorEnv]] = (),
    **env_kwargs: Any,
) -> TextVecEnv:
    """Make `n_envs` rows of a registered text environment for SB3.

    Args:
        env: a registered id, or a vector environment in `SAME_STEP` mode.
        n_envs: rows B.
        seed: of the first reset; None leaves it to the agent's own `seed`.
        wrappers: functions from vector environment to vector environment, innermost first.
        **env_kwargs: passed to the environment: `tokenizer`, `split`, `rewards`, `max_new_tokens`
            and the task's own; unknown ones raise.

    Example:
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=2)
        >>> sorted(envs.reset())
        ['attention_mask', 'input_ids', 'remaining']
    """
    if isinstance(env, str):
        vector: VectorEnv = gym.make_vec(
            env,
            num_envs=n_envs,
            vectorization_mode="vector_entry_point",
            autoreset_mode=AutoresetMode.SAME_STEP,
            **env_kwargs,
        )
    elif env_kwargs:
        names = ", ".join(f"`{k}`" for k in env_kwargs)
        raise TypeError(f"{names}: keyword arguments go with an id, not with an environment made.")
    else:
        vector = env
    for wrap in wrappers:
        vector = wrap(vector)
    envs = TextVecEnv(vector)
    if seed is not None:
        envs.seed(seed)
    return envs


def _copied(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {key: value.copy() for key, value in observations.items()}
    return observations.copy()


def _row(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """Row `i` of Gymnasium's vector infos: arrays, each with a mask under `_name`."""
    row: dict[str, Any] = {}
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        present = infos.get("_" + key)
        if present is not None and not present[i]:
            continue
        row[key] = _row(value, i) if isinstance(value, dict) else _plain(value[i])
    return row


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _split(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    if not infos:
        return [{} for _ in range(num_envs)]
    return [_row(infos, i) for i in range(num_envs)]


def _final_observation(final_obs: Any, i: int) -> Any:
    if isinstance(final_obs, dict):
        return {k: np.array(v[i]) for k, v in final_obs.items() if not k.startswith("_")}
    if isinstance(final_obs[i], dict):
        return {k: np.array(v) for k, v in final_obs[i].items()}
    return np.array(final_obs[i])
