"""Arguments for SB3's PPO and A2C that suit text."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from textgym_agents.lm import suggested_learning_rate


class WarmedUpRate:
    """A learning rate that rises over the first steps, to one that suits the model's size.

    Args:
        rate: the rate to reach; None is filled in by `LMPolicy` from its model's size.
        warmup: the share of training in which it rises.
        scale: multiplies a rate that was filled in.
    """

    def __init__(self, rate: float | None = None, warmup: float = 0.03, scale: float = 1.0) -> None:
        self.given = rate is not None
        self.rate = suggested_learning_rate(1_000_000) * scale if rate is None else rate
        self.warmup = warmup
        self.scale = scale

    def resolve(self, parameters: int) -> None:
        """Fill in the rate for a model of that many parameters, unless it was given."""
        if not self.given:
            self.rate = suggested_learning_rate(parameters) * self.scale

    def __call__(self, progress_remaining: float) -> float:
        """The rate when that share of training remains."""
        done = 1.0 - progress_remaining
        if self.warmup <= 0:
            return self.rate
        return self.rate * min(1.0, 0.1 + 0.9 * done / self.warmup)


def budget_of(envs: VecEnv) -> int:
    """The tokens an agent may write in an episode of `envs`."""
    remaining = getattr(envs.observation_space, "spaces", {}).get("remaining")
    if remaining is None:
        raise ValueError(
            "these environments do not observe `remaining`, the tokens left. Make them with "
            "`make_vec_env`."
        )
    return int(remaining.high.max())


def ppo_defaults(envs: VecEnv, *, learning_rate: float | None = None) -> dict[str, Any]:
    """Keyword arguments for SB3's `PPO` with `LMPolicy` and `TokenRolloutBuffer`.

    SB3's own are made for control: gamma 0.99 discounts the score after 48 tokens to 0.62, and
    batches of 64 transitions are one or two episodes.

    Args:
        envs: the environments.
        learning_rate: None chooses by the model's size, with a warm-up.

    Returns:
        A dict to change at will and pass on as ``PPO(LMPolicy, envs, **kwargs)``.
    """
    budget = budget_of(envs)
    n_steps = max(budget, -(-2048 // envs.num_envs))
    return {
        "learning_rate": WarmedUpRate(learning_rate),
        "n_steps": n_steps,
        "batch_size": min(n_steps * envs.num_envs, max(1024, 16 * budget)),
        "n_epochs": 2,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "clip_range_vf": None,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 1.0,
        "normalize_advantage": False,
        "rollout_buffer_kwargs": {"whiten_advantages": True, "critic_threshold": 0.3},
    }


def a2c_defaults(envs: VecEnv, *, learning_rate: float | None = None) -> dict[str, Any]:
    """Keyword arguments for SB3's `A2C`; see `ppo_defaults`."""
    return {
        "learning_rate": WarmedUpRate(learning_rate, scale=2.0),
        "n_steps": budget_of(envs),
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 1.0,
        "use_rms_prop": False,  # then LMPolicy's AdamW is used
        "normalize_advantage": False,
        "rollout_buffer_kwargs": {"whiten_advantages": True, "critic_threshold": 0.3},
    }
