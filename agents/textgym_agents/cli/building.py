"""Environments and agents from options. Imports torch: only loaded where a model is needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import get_device

from textgym_agents.cli.options import EnvOptions, ModelOptions, TrainOptions
from textgym_agents.sb3 import (
    LMPolicy,
    TokenRolloutBuffer,
    a2c_defaults,
    make_vec_env,
    ppo_defaults,
)

# Loading a model of a megabyte needs no progress bar, and its remarks are for developers.
transformers.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()

_ALGORITHMS = {"ppo": (PPO, ppo_defaults), "a2c": (A2C, a2c_defaults)}


def build_envs(env: EnvOptions, model: ModelOptions, *, n_envs: int, seed: int, split: str) -> Any:
    """The vector environment that the options ask for.

    Rewards learn (a mean, a multiplier) from the train split alone.
    """
    rewards = env.reward_objects()
    for reward, _ in rewards:
        reward.set_learning(split == "train")
    return make_vec_env(
        env.id,
        n_envs=n_envs,
        tokenizer=model.env_tokenizer,
        split=split,
        seed=seed,
        rewards=rewards,
        **env.keywords(),
    )


def policy_keywords(model: ModelOptions) -> dict[str, Any]:
    """`policy_kwargs` for the model and its sampling."""
    return {
        "model": model.model,
        "temperature": model.temperature,
        "top_k": model.top_k,
        "top_p": model.top_p,
    }


def build_agent(options: TrainOptions, envs: Any) -> OnPolicyAlgorithm:
    """Stable-Baselines3's own algorithm around the language model."""
    algorithm, defaults = _ALGORITHMS[options.algo]
    # With a reference also where it costs nothing to leave it: how far the model went is reported.
    policy = policy_keywords(options.model) | {"reference": True}
    for name in ("kl_coef", "kl_target"):
        if (value := getattr(options, name)) is not None:
            policy[name] = value
    if options.lora is not None:
        policy["lora"] = {"r": options.lora, "lora_alpha": 2 * options.lora}
    keywords = defaults(envs, learning_rate=options.learning_rate)
    with _model_must_load():
        return algorithm(
            LMPolicy,
            envs,
            rollout_buffer_class=TokenRolloutBuffer,
            policy_kwargs=policy,
            seed=options.seed,
            device=device_of(options.model),
            **keywords,
        )


def build_policy(env: EnvOptions, model: ModelOptions) -> LMPolicy:
    """The language model alone, without an algorithm or a reference model."""
    envs = build_envs(env, model, n_envs=1, seed=0, split="test")
    try:
        with _model_must_load():
            policy = LMPolicy(
                envs.observation_space,
                envs.action_space,
                lambda remaining: 0.0,
                kl_coef=0.0,
                **policy_keywords(model),
            )
        return policy.to(device_of(model))
    finally:
        envs.close()


def device_of(model: ModelOptions) -> torch.device:
    """Where the model is to be; SB3 itself would quietly take the CPU where there is no GPU."""
    if model.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device: torch sees no CUDA device here. Use `--device cpu`.")
    return get_device(model.device)


@contextmanager
def _model_must_load() -> Iterator[None]:
    with warnings.catch_warnings():
        # SB3 advises the CPU for policies that are not convolutional; ours is a language model.
        warnings.filterwarnings("ignore", message="You are trying to run")
        # A saved agent may do without the model it came from; a new one may not.
        warnings.filterwarnings("error", message=".*Right only while loading a saved agent")
        try:
            yield
        except UserWarning as warning:
            raise (warning.__context__ or warning) from None
