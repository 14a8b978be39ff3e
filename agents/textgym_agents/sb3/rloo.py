"""`RLOO`: REINFORCE with the mean of the other episodes on an instance as the baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from textgym_agents.sb3.critic_free import CriticFree, policy_gradient_loss
from textgym_agents.sb3.episode_buffer import EpisodeBuffer, EpisodeSamples
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.vec_env import TextVecEnv


class RLOO(CriticFree):
    """A whole text is one action, and what the others of its group earned is the baseline.

    The gradient is that of the KL-regularised return, without bias, as long as a rollout is used
    for one step (`n_epochs` 1 and `batch_size` None, the defaults).

    Args:
        policy, env, learning_rate, group_size, n_epochs, batch_size, max_grad_norm: see
            `CriticFree`, as for all others.

    Source: Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740; Kool et al. 2019, Buy 4
    REINFORCE samples, get a baseline for free!

    Example:
        >>> from textgym_agents.sb3 import LMPolicy, make_vec_env
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=16)
        >>> agent = RLOO(LMPolicy, envs, group_size=4).learn(1)
    """

    def __init__(
        self,
        policy: type[LMPolicy],
        env: TextVecEnv | None,
        learning_rate: float | Schedule | None = None,
        *,
        group_size: int = 4,
        n_epochs: int = 1,
        batch_size: int | None = None,
        max_grad_norm: float = 1.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if group_size < 2:
            raise ValueError(
                f"`group_size` must be at least 2, got {group_size}: the baseline of an episode is "
                "what the others of its group earned. `REINFORCE` needs no group."
            )
        super().__init__(
            policy,
            env,
            learning_rate,
            group_size=group_size,
            n_epochs=n_epochs,
            batch_size=batch_size,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def advantages(self, buffer: EpisodeBuffer) -> NDArray[np.floating]:
        """`[n]`, that of its episode for each token."""
        of_episodes = leave_one_out_advantages(buffer.episode_returns(), self.group_size)
        return np.repeat(of_episodes, buffer.counts)

    def loss(self, log_prob: Tensor, samples: EpisodeSamples) -> Tensor:
        """The policy gradient."""
        return policy_gradient_loss(log_prob, samples.advantages, len(samples.counts))


def leave_one_out_advantages(returns: NDArray[np.floating], group_size: int) -> NDArray[np.float64]:
    """`[B]`, each return less the mean of the others in its group.

    Args:
        returns: `[B]`, groups of `group_size` neighbours.
        group_size: at least 2.

    Example:
        >>> leave_one_out_advantages(np.array([1.0, 3.0, 8.0]), 3).tolist()
        [-4.5, -1.5, 6.0]
    """
    groups = np.asarray(returns, np.float64).reshape(-1, group_size)
    centred = groups - groups.mean(axis=1, keepdims=True)
    return (centred * (group_size / (group_size - 1))).ravel()
