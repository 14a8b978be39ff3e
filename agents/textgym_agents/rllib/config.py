"""`rllib_config`: an RLlib configuration for text, with defaults that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from textgym.errors import check_positive_int
from textgym_agents.lm import (
    SamplingRule,
    load_model,
    load_tokenizer,
    parameter_count,
    suggested_learning_rate,
)
from textgym_agents.rllib.algorithm import TextPPO
from textgym_agents.rllib.envs import make_rows, register_envs
from textgym_agents.rllib.episodes import TokensOnce, WholeEpisodes
from textgym_agents.rllib.learner import LMLearner
from textgym_agents.rllib.module import LMModule, check_tokenizer

# Tokens of an iteration in which the learning rate rises.
_WARMUP_ITERATIONS = 3


class TextPPOConfig(PPOConfig):
    """RLlib's `PPOConfig`, for `TextPPO`.

    Args:
        algo_class: as in RLlib.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or TextPPO)
        # Nats a sequence towards which the weight of the KL is adapted; None: it is fixed.
        self.sequence_kl_target: float | None = None

    def validate(self) -> None:
        """RLlib's own checks, and those of what text needs.

        Raises:
            ValueError: for a configuration that would crash later, wait for ever or learn from
                wrong data.
        """
        super().validate()
        mode = getattr(self.gym_env_vectorize_mode, "value", self.gym_env_vectorize_mode)
        if mode != "vector_entry_point":
            raise ValueError(
                f"`gym_env_vectorize_mode` must be 'vector_entry_point', got {mode!r}: an env "
                "runner drives one native vector environment."
            )
        if self.batch_mode != "truncate_episodes" and not self.in_evaluation:
            raise ValueError(
                f"`batch_mode={self.batch_mode!r}` drops the episodes that end last, which favours "
                "short ones. Leave it at 'truncate_episodes': `WholeEpisodes` makes them whole."
            )
        if self.use_kl_loss:
            raise ValueError(
                "`use_kl_loss` needs the logits of every token, which are not kept. Leave it False "
                "and set `kl_coef` of `rllib_config`."
            )


def rllib_config(
    env_id: str,
    *,
    model: str = "bundled",
    runners: int = 0,
    envs_per_runner: int = 64,
    learners: int = 0,
    env_config: Mapping[str, Any] | None = None,
    steps_per_env: int | None = None,
    minibatch_tokens: int | None = None,
    epochs: int = 2,
    learning_rate: float | None = None,
    kl_coef: float = 0.02,
    kl_target: float | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    gpus_per_runner: float = 0,
    gpus_per_learner: float = 0,
    seed: int | None = 0,
) -> TextPPOConfig:
    """A `PPOConfig` that trains a language model in a token environment.

    Few runners with many rows each: a runner batches over its own rows only.

    Args:
        env_id: a registered id.
        model: ``"bundled"``, a folder that every machine sees, or a hub id.
        runners: processes that write; 0 writes in the main one.
        envs_per_runner: rows of each.
        learners: processes that learn; 0 learns in the main one.
        env_config: arguments of the environment; the tokenizer is the model's unless given.
        steps_per_env: tokens a row writes in an iteration; None is the environment's budget or
            more, at least 2,048 tokens of all rows together.
        minibatch_tokens: of each learner; None is at least 16 episodes and 1,024 tokens.
        epochs: passes over the tokens of an iteration.
        learning_rate: None chooses by the model's size. It rises over the first iterations.
        kl_coef: what a nat of KL to the model at the start costs; 0 keeps no reference.
        kl_target: nats a sequence; adapts `kl_coef` after each iteration.
        temperature, top_k, top_p: the rule tokens are sampled by.
        gpus_per_runner, gpus_per_learner: GPUs, or shares of one.
        seed: of environments and sampling; None for none.

    Returns:
        A configuration to change at will: ``rllib_config(...).build_algo()``.

    Raises:
        ValueError: numbers that do not fit together.
    """
    check_positive_int("envs_per_runner", envs_per_runner)
    for name, count in (("runners", runners), ("learners", learners)):
        if count != 0:
            check_positive_int(name, count, "0 does it in the main process.")
    if kl_coef < 0 or (kl_target is not None and (kl_target <= 0 or kl_coef == 0)):
        raise ValueError(
            f"`kl_coef` must be at least 0, and above 0 with a `kl_target` above 0; got {kl_coef} "
            f"and {kl_target}."
        )
    SamplingRule(temperature, top_k, top_p)  # refuses what cannot be
    tokenizer = load_tokenizer(model)
    keywords = dict(env_config or {})
    if model != "bundled":
        # An absolute path: processes of Ray have working directories of their own.
        model = str(Path(model).resolve()) if Path(model).is_dir() else model
        keywords.setdefault("tokenizer", model)
    env = make_rows(env_id, 1, keywords)  # also refuses what RLlib cannot do with
    check_tokenizer(tokenizer, env.single_action_space, model)
    budget = env.unwrapped.max_new_tokens
    rows = envs_per_runner * max(1, runners)
    if learners > rows:
        raise ValueError(f"{learners} learners need as many rows at least, got {rows}.")
    steps = max(budget, -(-2048 // rows)) if steps_per_env is None else steps_per_env
    if steps < budget:
        raise ValueError(
            f"`steps_per_env` is {steps}, but an episode can take {budget}: the first iterations "
            "would favour short texts. Raise it, or lower `max_new_tokens`."
        )
    total = rows * steps
    share = total // max(1, learners)
    size = parameter_count(load_model(model))
    rate = suggested_learning_rate(size) if learning_rate is None else learning_rate
    register_envs()
    settings = {
        "model": model,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "kl_coef": kl_coef,
    }
    config = (
        TextPPOConfig()
        .environment(
            env_id,
            env_config=keywords,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            disable_env_checking=True,
        )
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=envs_per_runner,
            num_gpus_per_env_runner=gpus_per_runner,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=steps,
            batch_mode="truncate_episodes",
            episodes_to_numpy=False,  # chunks are joined first
            env_to_module_connector=_env_to_module,
            create_local_env_runner=runners == 0,
            sample_timeout_s=3600.0,
        )
        .learners(
            num_learners=learners,
            num_gpus_per_learner=gpus_per_learner,
            learner_class=LMLearner,
            add_default_connectors_to_learner_pipeline=False,
        )
        .training(
            gamma=1.0,  # 0.99^48 = 0.62 would reward stopping early
            lambda_=1.0,
            lr=[[0, rate / 10], [_WARMUP_ITERATIONS * total, rate]],
            train_batch_size_per_learner=share,
            minibatch_size=min(share, minibatch_tokens or max(1024, 16 * budget)),
            num_epochs=epochs,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=1.0,
            grad_clip_by="global_norm",
        )
        .callbacks(WholeEpisodes)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=LMModule, model_config=settings))
        .fault_tolerance(restart_failed_env_runners=True, env_runner_restore_timeout_s=120.0)
        .debugging(seed=seed)
    )
    config.sequence_kl_target = kl_target
    return config


def _env_to_module(env: Any = None, spaces: Any = None, device: Any = None) -> TokensOnce:
    return TokensOnce()
