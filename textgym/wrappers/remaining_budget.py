"""`RemainingBudget`: what is left of the budget, behind any flat observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from textgym.envs.infos import Infos
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.wrappers.completion_actions import CompletionActions
from textgym.wrappers.observing import (
    ObservationMap,
    SingleObserving,
    Step,
    VectorObserving,
    fractions,
)


def RemainingBudget(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
) -> SingleRemainingBudget | VectorRemainingBudget:
    """Append the fraction left of the budget of tokens to a flat observation.

    For stacks whose own observations leave it out (one of yours, of Gymnasium's, of another
    library): without it two equal observations can have different futures, since the budget's end
    ends the episode. It counts steps, each of which is a token.

    Args:
        env: a token environment whose wrappers make observations a `Box` of one dimension.

    Raises:
        TypeError: `env` is no token environment, or its observations are not flat.
        ValueError: its steps are whole turns.

    Example:
        >>> import gymnasium as gym, textgym
        >>> from textgym.wrappers.flat_observation import FlatObservation
        >>> env = FlatObservation(gym.make("textgym/Story-v0"), "ids", last=2, remaining=False)
        >>> env = RemainingBudget(env)
        >>> observation, _ = env.reset(seed=0)
        >>> observation.shape, float(observation[-1]), float(env.step(5)[0][-1])
        ((3,), 1.0, 0.984375)
    """
    cls = VectorRemainingBudget if isinstance(env, VectorEnv) else SingleRemainingBudget
    return cls(env)  # type: ignore[arg-type]


class SingleRemainingBudget(SingleObserving, RecordConstructorArgs):
    """Appends the budget to a single environment's observations; see `RemainingBudget`."""

    _map: _Budget

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        SingleObserving.__init__(self, env, _Budget(env, env.observation_space, 1))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin a new episode."""
        # A reset that fails leaves the old episode as it was.
        used, self._map.used = self._map.used, np.zeros(1, np.int64)
        try:
            return super().reset(seed=seed, options=options)
        except BaseException:
            self._map.used = used
            raise

    def _seen(self, result: tuple[Any, ...]) -> Step:
        self._map.used += 1
        return super()._seen(result)

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return {"used": self._map.used.copy()}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._map.used = state["used"].copy()


class VectorRemainingBudget(VectorObserving, RecordConstructorArgs):
    """Appends the budget to a vector environment's observations; see `RemainingBudget`."""

    _map: _Budget

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        VectorObserving.__init__(
            self, env, _Budget(env, env.single_observation_space, env.num_envs)
        )
        # Rows that the next step of `NEXT_STEP` resets: their action is no token.
        self._over = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Begin new episodes."""
        mask = (options or {}).get("reset_mask")
        rows = np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask, np.bool_)
        observation, infos = self.env.reset(seed=seed, options=options)
        self._map.used[rows] = 0
        self._over[rows] = False
        return self._map(observation), infos

    def _seen(self, result: tuple[Any, ...]) -> Step:
        _, _, terminated, truncated, _ = result
        self._map.used = np.where(self._over, 0, self._map.used + 1)
        if self.env.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
            self._over = terminated | truncated
        return super()._seen(result)

    def own_state(self) -> dict[str, Any]:
        """What this wrapper itself remembers."""
        return {"used": self._map.used.copy(), "over": self._over.copy()}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._map.used, self._over = state["used"].copy(), state["over"].copy()


class _Budget(ObservationMap):
    """Appends what is left after `used` `[B] int64` tokens."""

    def __init__(self, env: Any, observed: gym.Space[Any], num_envs: int) -> None:
        base = env.unwrapped
        if not isinstance(base, TokenEnv | TokenVectorEnv):
            raise TypeError(f"`env` must be a token environment, got {base!r}.")
        if not isinstance(observed, Box) or len(observed.shape) != 1:
            raise TypeError(
                f"`RemainingBudget` is for flat observations, got {str(observed)[:80]}. Make them "
                "flat first, with `FlatObservation` for example."
            )
        layer = env
        while layer is not base:
            if isinstance(layer, CompletionActions):
                raise ValueError(
                    "`RemainingBudget` counts tokens, but a step of `env` is a whole turn. Put it "
                    "inside `CompletionActions`."
                )
            layer = layer.env
        self._budget = base.max_new_tokens
        self.used = np.zeros(num_envs, np.int64)
        low, high = observed.low.astype(np.float32), observed.high.astype(np.float32)
        self.space = Box(np.append(low, np.float32(0)), np.append(high, np.float32(1)))

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        left = fractions(self._budget - self.used, self._budget)
        return np.hstack([np.asarray(observation, np.float32), left])

    def finals(
        self, observation: Any, rows: Sequence[int], finals: Sequence[Any]
    ) -> NDArray[np.float32]:
        left = fractions(self._budget - self.used[list(rows)], self._budget)
        self.used[list(rows)] = 0
        return np.hstack([np.stack(finals).astype(np.float32), left])
