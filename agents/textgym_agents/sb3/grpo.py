"""`GRPO`: group relative policy optimisation, PPO's clipped loss with groups as the critic."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from textgym_agents.sb3.critic_free import CriticFree
from textgym_agents.sb3.episode_buffer import EpisodeBuffer, EpisodeSamples
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.vec_env import TextVecEnv

Average = Literal["sequence", "token", "budget"]
# Where all of a group earned the same, nothing is divided by 0.
_SMALL = 1e-4


class GRPO(CriticFree):
    """The advantage of every token is how its episode did among others on the same instance.

    `loss_average` says over what the loss of the tokens is averaged: each ``"sequence"`` first
    (DeepSeekMath: tokens of long texts count less), all the ``"token"`` s of a minibatch (DAPO), or
    the ``"budget"``, a constant (Dr. GRPO: the gradient of the return, without bias).

    `kl` says how the policy's `kl_coef` keeps it near its reference: as a ``"loss"`` (estimator k3
    of each token, as published: its gradient is that of the other direction of the KL, and gives
    tokens no credit for what follows), or as a ``"reward"`` (k1: the KL-regularised objective).

    Args:
        loss_average: ``"sequence"``, ``"token"`` or ``"budget"``.
        scale_by_std: divide advantages by the standard deviation of the group's returns.
        clip_range: ratios of new to old probability count only within ``1 - clip_range`` ...
        clip_range_high: ... and 1 plus this; None is `clip_range` (DAPO: higher).
        kl: ``"loss"`` or ``"reward"``.
        policy, env, learning_rate, group_size, n_epochs, batch_size, max_grad_norm: see
            `CriticFree`, as for all others.

    Source: Shao et al. 2024 (DeepSeekMath), https://arxiv.org/abs/2402.03300; Yu et al. 2025
    (DAPO), https://arxiv.org/abs/2503.14476; Liu et al. 2025 (Dr. GRPO),
    https://arxiv.org/abs/2503.20783.

    Example:
        >>> from textgym_agents.sb3 import LMPolicy, make_vec_env
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=16)
        >>> agent = GRPO(LMPolicy, envs, group_size=8).learn(1)
        >>> agent.num_timesteps <= 16 * agent.n_steps
        True
    """

    def __init__(
        self,
        policy: type[LMPolicy],
        env: TextVecEnv | None,
        learning_rate: float | Schedule | None = None,
        *,
        loss_average: Average = "token",
        scale_by_std: bool = True,
        clip_range: float = 0.2,
        clip_range_high: float | None = None,
        kl: Literal["loss", "reward"] = "loss",
        group_size: int = 8,
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
        if loss_average not in get_args(Average):
            raise ValueError(
                f"`loss_average` must be one of {get_args(Average)}, got {loss_average!r}."
            )
        if kl not in ("loss", "reward"):
            raise ValueError(f'`kl` must be "loss" or "reward", got {kl!r}.')
        if group_size < 2:
            raise ValueError(
                f"`group_size` must be at least 2, got {group_size}: an episode is compared with "
                "the others of its group. `REINFORCE` needs no group."
            )
        if not 0 < clip_range < 1 or (clip_range_high is not None and clip_range_high <= 0):
            raise ValueError(
                f"`clip_range` must be in (0, 1) and `clip_range_high` above 0, got {clip_range} "
                f"and {clip_range_high}."
            )
        self.loss_average = loss_average
        self.scale_by_std = scale_by_std
        self.clip_range = clip_range
        self.clip_range_high = clip_range if clip_range_high is None else clip_range_high
        self.kl = kl
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

    @property
    def kl_is_paid(self) -> bool:
        """Whether staying near the reference is paid for with each token."""
        return self.kl == "reward"

    def advantages(self, buffer: EpisodeBuffer) -> NDArray[np.floating]:
        """`[n]`, that of its episode for each token."""
        of_episodes = group_advantages(
            buffer.episode_returns(), self.group_size, scale_by_std=self.scale_by_std
        )
        return np.repeat(of_episodes, buffer.counts)

    def loss(self, log_prob: Tensor, samples: EpisodeSamples) -> Tensor:
        """The clipped surrogate, and the KL where it is not paid."""
        losses = clipped_losses(
            log_prob,
            samples.old_log_prob,
            samples.advantages,
            self.clip_range,
            self.clip_range_high,
        )
        if not self.kl_is_paid and samples.ref_log_prob is not None:
            losses = losses + float(self.policy.kl_coef) * k3(log_prob, samples.ref_log_prob)
        weights = token_weights(samples.counts, self.loss_average, budget=self.n_steps)
        return (weights * losses).sum()


def group_advantages(
    returns: NDArray[np.floating], group_size: int, *, scale_by_std: bool = True
) -> NDArray[np.float64]:
    """`[B]`, each return less the mean of its group, over the group's standard deviation if asked.

    Args:
        returns: `[B]`, groups of `group_size` neighbours.
        group_size: at least 2.
        scale_by_std: divide by the sample standard deviation (of n - 1).

    Example:
        >>> group_advantages(np.array([1.0, 3.0, 5.0, 5.0]), 2, scale_by_std=False).tolist()
        [-1.0, 1.0, 0.0, 0.0]
    """
    groups = np.asarray(returns, np.float64).reshape(-1, group_size)
    centred = groups - groups.mean(axis=1, keepdims=True)
    if scale_by_std:
        centred /= groups.std(axis=1, ddof=1, keepdims=True) + _SMALL
    return centred.ravel()


def clipped_losses(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, low: float, high: float
) -> Tensor:
    """`[n]`, PPO's loss of each token, ratios clipped to ``[1 - low, 1 + high]``."""
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1.0 - low, 1.0 + high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def k3(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """`[n]`, ``p_ref / pi - 1 - log(p_ref / pi)``: at least 0, and the KL in expectation.

    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = ref_log_prob - log_prob
    return log_ratio.expm1() - log_ratio


def token_weights(counts: Tensor, average: Average, *, budget: int) -> Tensor:
    """`[n]`, the weight of each token's loss in that of a minibatch.

    Args:
        counts: `[E] int64`, the tokens of each episode.
        average: see `GRPO`.
        budget: tokens an episode can have.

    Example:
        >>> token_weights(torch.tensor([1, 3]), "sequence", budget=4).tolist()[:2]
        [0.5, 0.1666666716337204]
        >>> token_weights(torch.tensor([1, 3]), "token", budget=4).tolist()[:2]
        [0.25, 0.25]
        >>> token_weights(torch.tensor([1, 3]), "budget", budget=4).tolist()[:2]
        [0.125, 0.125]
    """
    shared = {"sequence": counts.float(), "token": counts.float().mean(), "budget": float(budget)}
    of_episodes = 1.0 / (len(counts) * torch.ones_like(counts) * shared[average])
    return of_episodes.repeat_interleave(counts)
