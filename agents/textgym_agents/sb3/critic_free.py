"""`CriticFree`: what GRPO, RLOO, REINFORCE and expert iteration share: rollouts and their loop."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from textgym import Instance
from textgym.seeding import fresh_seed, instance_rng
from textgym_agents.lm.episodes import Step, play
from textgym_agents.sb3.defaults import WarmedUpRate, budget_of
from textgym_agents.sb3.episode_buffer import EpisodeBuffer, EpisodeSamples
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.vec_env import TextVecEnv


class CriticFree(OnPolicyAlgorithm):
    """Learns from whole episodes, several to an instance, and estimates no values.

    A rollout is one episode in every row of `env`, undiscounted; `num_timesteps` counts the tokens
    that were written. Rows in groups of `group_size` neighbours share an instance. Instances come
    from the environment's own task and split, by a stream of the agent's: a saved agent goes on
    where it was. The policy's `kl_coef` and `kl_target` apply as with PPO.

    Subclasses say what a token's advantage is (`advantages`) and what the loss is (`loss`).

    Args:
        policy: `LMPolicy`.
        env: what `make_vec_env` makes; its rows are the episodes of a rollout.
        learning_rate: None chooses by the model's size, with a warm-up.
        group_size: episodes on each instance; divides the number of rows.
        n_epochs: passes over a rollout.
        batch_size: tokens in a minibatch, which is whole episodes; None is the rollout.
        max_grad_norm: gradients are clipped to this norm.
        stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: as in SB3.

    Raises:
        ValueError: another policy or environment, or rows that do not divide into groups.
    """

    rollout_buffer: EpisodeBuffer
    policy: LMPolicy
    # Whether staying near the reference is paid for with each token, or is part of the loss.
    kl_is_paid = True

    def __init__(
        self,
        policy: type[LMPolicy],
        env: TextVecEnv | None,
        learning_rate: float | Schedule | None = None,
        *,
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
        if not (isinstance(policy, type) and issubclass(policy, LMPolicy)):
            raise ValueError(f"`policy` must be `LMPolicy` or a subclass, got {policy!r}.")
        if env is not None and not isinstance(env, TextVecEnv):
            raise ValueError(
                f"{type(self).__name__} needs a `TextVecEnv`, got {type(env).__name__}. Make it "
                "with `make_vec_env`, and without VecEnv wrappers."
            )
        for name, value in (("group_size", group_size), ("n_epochs", n_epochs)):
            if value < 1:
                raise ValueError(f"`{name}` must be a positive int, got {value}.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"`batch_size` must be None or a positive int, got {batch_size}.")
        super().__init__(
            policy,
            env,
            learning_rate=WarmedUpRate() if learning_rate is None else learning_rate,
            n_steps=0 if env is None else budget_of(env),
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=0.0,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=EpisodeBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.group_size = group_size
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self._instance_seed: int | None = None
        self._instances_drawn = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.n_envs % self.group_size:
            raise ValueError(
                f"`group_size` {self.group_size} must divide the {self.n_envs} rows of the "
                f"environment. Make it with `n_envs={-(-self.n_envs // self.group_size)} * "
                f"{self.group_size}`."
            )
        if self._instance_seed is None:
            given = self.seed if self.seed is not None else getattr(self.env, "seeds", None)
            self._instance_seed = given if isinstance(given, int) else fresh_seed()
        super()._setup_model()

    # ------------------------------------------------------------------ rollouts
    def _draw(self) -> list[Instance]:
        """One instance a row, the same for a whole group."""
        envs = self.env.envs.unwrapped
        drawn = []
        for _ in range(self.n_envs // self.group_size):
            rng = instance_rng(self._instance_seed, envs.split, 0, self._instances_drawn)
            drawn.append(envs.task.draw(rng, envs.split))
            self._instances_drawn += 1
        return [instance for instance in drawn for _ in range(self.group_size)]

    def collect_rollouts(
        self,
        env: TextVecEnv,
        callback: BaseCallback,
        rollout_buffer: EpisodeBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """One episode in every row; False where a callback stopped it."""
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        self.instances = self._draw()
        policy = self.policy
        totals, began = np.zeros(env.num_envs), time.time()

        def choose(hidden: Tensor, observation: Any) -> tuple[Tensor, Tensor, Tensor | None]:
            return policy._choose(hidden, observation, deterministic=False)

        for step in play(env.envs, self.instances, policy.lm, choose):
            self.num_timesteps += len(step.rows)
            totals += step.rewards
            rewards, dones = step.rewards, step.over
            infos = _sb3_infos(step, totals, rollout_buffer.pos + 1, time.time() - began)
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            rollout_buffer.add_step(step)
        rollout_buffer.finish(policy)
        coef = float(policy.kl_coef)
        policy.kl_stats = rollout_buffer.kl_stats(coef)
        if self.kl_is_paid:
            rollout_buffer.pay_for_kl(coef)
        if policy.kl_stats:
            policy.adapt_kl(policy.kl_stats["per_sequence"])
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "instances"]

    # ------------------------------------------------------------------ updates
    def advantages(self, buffer: EpisodeBuffer) -> NDArray[np.floating]:
        """`[n]`, one for each token of the rollout."""
        raise NotImplementedError

    def loss(self, log_prob: Tensor, samples: EpisodeSamples) -> Tensor:
        """The scalar to minimise.

        Args:
            log_prob: `[n] float32`, with gradients, of `samples.actions`.
            samples: a minibatch.
        """
        raise NotImplementedError

    def train(self) -> None:
        """Update the policy with the rollout in the buffer."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        buffer, figures = self.rollout_buffer, defaultdict(list)
        buffer.advantages = np.asarray(self.advantages(buffer), np.float32)
        for _ in range(self.n_epochs):
            for samples in buffer.get(self.batch_size):
                _, log_prob, _ = self.policy.evaluate_actions(samples.observations, samples.actions)
                loss = self.loss(log_prob, samples)
                self._step(loss)
                figures["loss"].append(loss.item())
                log_ratio = (log_prob.detach() - samples.old_log_prob).double()
                figures["approx_kl"].append((log_ratio.expm1() - log_ratio).mean().item())
            self._n_updates += 1
        for name, values in figures.items():
            self.logger.record(f"train/{name}", float(np.mean(values)))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _step(self, loss: Tensor) -> None:
        optimizer = self.policy.optimizer
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        optimizer.step()


def policy_gradient_loss(log_prob: Tensor, advantages: Tensor, num_episodes: int) -> Tensor:
    """``-sum(advantages * log_prob) / num_episodes``: its gradient is minus that of the return.

    Source: Williams 1992, https://doi.org/10.1007/BF00992696.

    Args:
        log_prob: `[n]`, nats, of the tokens of `num_episodes` whole episodes.
        advantages: `[n]`.
        num_episodes: how many they are.
    """
    return -(advantages * log_prob).sum() / num_episodes


def _sb3_infos(
    step: Step, totals: NDArray[np.float64], length: int, seconds: float
) -> list[dict[str, Any]]:
    """A row's info as `TextVecEnv` gives it."""
    infos: list[dict[str, Any]] = [{} for _ in totals]
    for row in np.flatnonzero(step.over):
        infos[row] = {
            **step.infos.get(row, {}),
            "TimeLimit.truncated": bool(step.truncated[row]),
            "episode": {"r": float(totals[row]), "l": length, "t": round(seconds, 6)},
        }
    return infos
