"""`PricedDepartures`: what keeps an agent that chooses among a model's tokens near the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from textgym.wrappers.vector import AnyVectorWrapper
from textgym_agents.wrappers.top_k_actions import VectorTopKActions


class PricedDepartures(AnyVectorWrapper):
    """Takes `beta` times ``log p(first choice) - log p(chosen)`` from the rewards.

    Args:
        env: a `TopKActions`, in `SAME_STEP` mode.
        beta: price of a nat.

    Raises:
        ValueError: `env` is another, or in another mode.
    """

    def __init__(self, env: VectorEnv, beta: float) -> None:
        if not isinstance(env, VectorTopKActions) or (
            env.autoreset_mode is not AutoresetMode.SAME_STEP
        ):
            raise ValueError(
                "`env` must be a vector `TopKActions` in `SAME_STEP` mode, got "
                f"{type(env).__name__}. Wrap in `TopKActions` first."
            )
        super().__init__(env)
        self.beta = beta

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.log_probs = infos["candidate_log_probs"]
        return observations, infos

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step, and pay the price."""
        chosen = self.log_probs[np.arange(self.num_envs), actions]
        price = self.beta * (self.log_probs[:, 0] - chosen)
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        self.log_probs = infos["candidate_log_probs"]
        return observations, rewards - price, terminated, truncated, infos
