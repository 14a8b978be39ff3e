"""`ExpertIteration`: write several texts to each instance, keep the best, imitate those."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import Schedule

from textgym_agents.lm.imitation import batches, imitation_loss
from textgym_agents.sb3.critic_free import CriticFree
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.vec_env import TextVecEnv


class ExpertIteration(CriticFree):
    """Best-of-n is the expert, and the model is fitted to it, over and over.

    What is best counts what the KL to the reference costs (the policy's `kl_coef`), as RAFT's
    regularised reward does. The fit is the cross-entropy of the agent's own tokens at temperature
    1, whatever rule they were sampled by.

    Args:
        threshold: keep the best of a group only where it earned at least this; None keeps all.
        batch_episodes: kept episodes in a minibatch of the fit.
        n_epochs: passes over what was kept.
        policy, env, learning_rate, group_size, max_grad_norm: see `CriticFree`, as for all others;
            `group_size` is the n of best-of-n.

    Source: Anthony et al. 2017 (expert iteration), https://arxiv.org/abs/1705.08439; Dong et al.
    2023 (RAFT), https://arxiv.org/abs/2304.06767; Gulcehre et al. 2023 (ReST, the threshold),
    https://arxiv.org/abs/2308.08998.

    Example:
        >>> from textgym_agents.sb3 import LMPolicy, make_vec_env
        >>> envs = make_vec_env("textgym/Story-v0", n_envs=16)
        >>> agent = ExpertIteration(LMPolicy, envs, group_size=8, threshold=0.1).learn(1)
    """

    def __init__(
        self,
        policy: type[LMPolicy],
        env: TextVecEnv | None,
        learning_rate: float | Schedule | None = None,
        *,
        threshold: float | None = None,
        batch_episodes: int = 32,
        group_size: int = 8,
        n_epochs: int = 2,
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
                f"`group_size` must be at least 2, got {group_size}: the best of one is itself."
            )
        if batch_episodes < 1:
            raise ValueError(f"`batch_episodes` must be a positive int, got {batch_episodes}.")
        self.threshold = threshold
        self.batch_episodes = batch_episodes
        super().__init__(
            policy,
            env,
            learning_rate,
            group_size=group_size,
            n_epochs=n_epochs,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def train(self) -> None:
        """Fit the policy to the best of each group in the rollout."""
        policy = self.policy
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        returns = self.rollout_buffer.episode_returns()
        best = best_of_groups(returns, self.group_size, threshold=self.threshold)
        # What an outside limit cut has no record, and no end to imitate.
        kept = [row for row in best.tolist() if self.rollout_buffer.episode(row) is not None]
        losses = []
        for _ in range(self.n_epochs):
            # numpy's global generator, which the agent's `seed` governs.
            shuffled = np.random.permutation(kept)  # noqa: NPY002
            episodes = [self.rollout_buffer.episode(row) for row in shuffled]
            for tokens, labels in batches(episodes, self.batch_episodes):
                loss = imitation_loss(policy.lm, tokens.to(self.device), labels.to(self.device))
                self._step(loss)
                losses.append(loss.item())
            self._n_updates += 1
        self.logger.record("train/kept_share", len(kept) * self.group_size / len(returns))
        if losses:
            self.logger.record("train/loss", float(np.mean(losses)))
            self.logger.record("train/kept_return", float(returns[kept].mean()))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")


def best_of_groups(
    returns: NDArray[np.floating], group_size: int, *, threshold: float | None = None
) -> NDArray[np.int64]:
    """Which episodes are the best of their group, the first of equals.

    Args:
        returns: `[B]`, groups of `group_size` neighbours.
        group_size: n.
        threshold: leave out what earned less.

    Example:
        >>> best_of_groups(np.array([1.0, 3.0, 0.0, 0.5]), 2).tolist()
        [1, 3]
        >>> best_of_groups(np.array([1.0, 3.0, 0.0, 0.5]), 2, threshold=1.0).tolist()
        [1]
    """
    groups = np.asarray(returns).reshape(-1, group_size)
    best = np.arange(len(groups)) * group_size + groups.argmax(axis=1)
    return best if threshold is None else best[returns[best] >= threshold]
