"""`REINFORCE`: the plain policy gradient, with a baseline that remembers earlier rollouts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from textgym_agents.sb3.critic_free import CriticFree, policy_gradient_loss
from textgym_agents.sb3.episode_buffer import EpisodeBuffer, EpisodeSamples
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.vec_env import TextVecEnv

Baseline = Literal["running", "instance", "none"]
# Instances remembered; the one not seen for longest is forgotten.
_MOST = 65_536


class REINFORCE(CriticFree):
    """The advantage of a token is what was earned from it on, less what usually is.

    What usually is: the mean, over earlier rollouts, of what was earned from the same number of
    tokens on, in all episodes (``"running"``) or in those on the same instance (``"instance"``, for
    environments that ask the same again; the running mean stands in for new ones). Neither knows
    the episode itself, and so neither biases the gradient, as long as a rollout is used for one
    step (`n_epochs` 1 and `batch_size` None, the defaults).

    Args:
        baseline: ``"running"``, ``"instance"`` or ``"none"``.
        decay: the share of a mean that a rollout leaves; the mean is a plain one at first.
        policy, env, learning_rate, group_size, n_epochs, batch_size, max_grad_norm: see
            `CriticFree`, as for all others.

    Source: Williams 1992, https://doi.org/10.1007/BF00992696.

    Example:
        >>> from textgym_agents.sb3 import LMPolicy, make_vec_env
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=16)
        >>> agent = REINFORCE(LMPolicy, envs).learn(1)
    """

    def __init__(
        self,
        policy: type[LMPolicy],
        env: TextVecEnv | None,
        learning_rate: float | Schedule | None = None,
        *,
        baseline: Baseline = "running",
        decay: float = 0.8,
        group_size: int = 1,
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
        if baseline not in get_args(Baseline):
            raise ValueError(f"`baseline` must be one of {get_args(Baseline)}, got {baseline!r}.")
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        self.baseline = baseline
        self.means = RunningMeans(decay)
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
        """`[n]`, what was earned from each token on, less the baseline."""
        returns = buffer.returns_to_go()
        if self.baseline == "none":
            return returns
        episodes = np.split(returns, np.cumsum(buffer.counts)[:-1])
        keys = list(self.instances) if self.baseline == "instance" else [None] * len(episodes)
        expected = [self.means.of(key, len(own)) for key, own in zip(keys, episodes, strict=True)]
        self.means.update(keys, episodes)
        return returns - np.concatenate(expected)

    def loss(self, log_prob: Tensor, samples: EpisodeSamples) -> Tensor:
        """The policy gradient."""
        return policy_gradient_loss(log_prob, samples.advantages, len(samples.counts))


class RunningMeans:
    """Means of returns by how many tokens came before, for all episodes (key None) and by key.

    Args:
        decay: the share of a mean that an update leaves, at most; the first updates weigh alike.

    Example:
        >>> means = RunningMeans(decay=0.9)
        >>> means.update(["a", "b"], [np.array([1.0, 0.5]), np.array([3.0])])
        >>> means.of("a", 2).tolist(), means.of(None, 2).tolist(), means.of("new", 3).tolist()
        ([1.0, 0.5], [2.0, 0.5], [2.0, 0.5, 0.5])
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._means: dict[Hashable, NDArray[np.float64]] = {}
        self._updates: dict[Hashable, NDArray[np.int64]] = {}

    def of(self, key: Hashable, length: int) -> NDArray[np.float64]:
        """`[length] float64`; what was never seen has the mean of the nearest that was, or 0."""
        means = self._means.get(key, self._means.get(None, np.zeros(1)))[:length]
        return np.pad(means, (0, length - len(means)), mode="edge")

    def update(self, keys: Sequence[Hashable], returns: Sequence[NDArray[np.float64]]) -> None:
        """Take in the returns of a rollout, one array an episode."""
        grouped: dict[Hashable, list[NDArray[np.float64]]] = {None: list(returns)}
        for key, own in zip(keys, returns, strict=True):
            if key is not None:
                grouped.setdefault(key, []).append(own)
        for key, episodes in grouped.items():
            self._update(key, episodes)
        for key in list(self._means)[: max(0, len(self._means) - _MOST)]:
            del self._means[key], self._updates[key]

    def _update(self, key: Hashable, episodes: list[NDArray[np.float64]]) -> None:
        # Taken out and put in again: what was seen last is last in the dicts.
        means, updates = self._means.pop(key, np.zeros(0)), self._updates.pop(key, np.zeros(0, int))
        width = max(len(means), *map(len, episodes))
        totals, seen = np.zeros(width), np.zeros(width)
        for own in episodes:
            totals[: len(own)] += own
            seen[: len(own)] += 1
        means = np.pad(means, (0, width - len(means)))
        updates = np.pad(updates, (0, width - len(updates))) + (seen > 0)
        share = np.where(seen > 0, np.maximum(1 / np.maximum(updates, 1), 1 - self.decay), 0.0)
        means = means + share * (totals / np.maximum(seen, 1) - means)
        self._means[key], self._updates[key] = means, updates
