"""Agents whose policy is the language model itself."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3 import A2C, PPO

from textgym.wrappers.masking import MaskRule, VectorMasking
from textgym_agents.bench.models import FallingRate, is_tiny, model_kwargs
from textgym_agents.sb3 import (
    GRPO,
    REINFORCE,
    RLOO,
    ExpertIteration,
    LMPolicy,
    TextVecEnv,
    TokenRolloutBuffer,
    a2c_defaults,
    ppo_defaults,
)

_TOKENS = {"rollout_buffer_class": TokenRolloutBuffer}


def _learn(
    cls: type, policy: type, envs: TextVecEnv, arguments: dict[str, Any], budget: int, seed: int
) -> Any:
    """Make an agent of `arguments` and let it learn."""
    with warnings.catch_warnings():
        # A random model has nothing to destroy.
        warnings.filterwarnings("ignore", message="a learning rate of")
        agent = cls(
            policy,
            envs,
            **arguments,
            policy_kwargs=model_kwargs(envs.envs, seed),
            seed=seed,
            device="cpu",
        )
    return agent.learn(budget)


def _rate(envs: VectorEnv) -> dict[str, Any]:
    """The learning rate of a random model; for the bundled one it is the default of its size."""
    return {"learning_rate": FallingRate()} if is_tiny(envs) else {}


# ---------------------------------------------------------------- with a critic
def ppo(envs: VectorEnv, budget: int, seed: int) -> PPO:
    """Stable-Baselines3's PPO."""
    text = TextVecEnv(envs)
    arguments = _TOKENS | ppo_defaults(text) | _rate(envs)
    return _learn(PPO, LMPolicy, text, arguments, budget, seed)


def a2c(envs: VectorEnv, budget: int, seed: int) -> A2C:
    """Stable-Baselines3's A2C."""
    text = TextVecEnv(envs)
    arguments = _TOKENS | a2c_defaults(text) | _rate(envs)
    return _learn(A2C, LMPolicy, text, arguments, budget, seed)


def nlpo(envs: VectorEnv, budget: int, seed: int) -> Any:
    """NLPO."""
    from textgym_agents.sb3.nlpo import NLPO, NLPOPolicy

    text = TextVecEnv(envs)
    arguments = _TOKENS | ppo_defaults(text) | _rate(envs)
    return _learn(NLPO, NLPOPolicy, text, arguments, budget, seed)


def trpo(envs: VectorEnv, budget: int, seed: int) -> Any:
    """sb3-contrib's TRPO; its learning rate is that of the value head alone."""
    from sb3_contrib import TRPO

    from textgym_agents.sb3.trpo import TRPOPolicy, trpo_defaults

    text = TextVecEnv(envs)
    arguments = _TOKENS | trpo_defaults(text)
    return _learn(TRPO, TRPOPolicy, text, arguments, budget, seed)


class _NoEmptyTurn(MaskRule):
    """A turn is not ended before it has begun."""

    def __init__(self, end: int) -> None:
        self.end = end

    def allowed(
        self, observation: Any, turns: Any, rows: Any, own: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """`[R, V] bool`."""
        masks = own.copy()
        masks[[not turns[row] for row in rows], self.end] = False
        return masks


class NoEmptyTurns(VectorMasking):
    """Masks end-of-sequence as the first token of a turn.

    Args:
        env: a vector environment of text.
    """

    def __init__(self, env: VectorEnv) -> None:
        rule = _NoEmptyTurn(int(env.unwrapped.tokenizer.eos_token_id))
        super().__init__(env, rule, "NoEmptyTurns")


def maskable_ppo(envs: VectorEnv, budget: int, seed: int) -> Any:
    """sb3-contrib's MaskablePPO, which may not write empty turns."""
    from sb3_contrib import MaskablePPO

    from textgym_agents.sb3.maskable import (
        MaskableLMPolicy,
        MaskableTokenRolloutBuffer,
        maskable_ppo_defaults,
    )

    text = TextVecEnv(NoEmptyTurns(envs))
    arguments = {"rollout_buffer_class": MaskableTokenRolloutBuffer}
    arguments |= maskable_ppo_defaults(text) | _rate(envs)
    agent = _learn(MaskablePPO, MaskableLMPolicy, text, arguments, budget, seed)
    agent.wrap = NoEmptyTurns
    return agent


# ---------------------------------------------------------------- from whole episodes
def _critic_free(cls: type, envs: VectorEnv, budget: int, seed: int) -> Any:
    return _learn(cls, LMPolicy, TextVecEnv(envs), _rate(envs), budget, seed)


def grpo(envs: VectorEnv, budget: int, seed: int) -> GRPO:
    """GRPO."""
    return _critic_free(GRPO, envs, budget, seed)


def rloo(envs: VectorEnv, budget: int, seed: int) -> RLOO:
    """RLOO."""
    return _critic_free(RLOO, envs, budget, seed)


def reinforce(envs: VectorEnv, budget: int, seed: int) -> REINFORCE:
    """REINFORCE."""
    return _critic_free(REINFORCE, envs, budget, seed)


def expert_iteration(envs: VectorEnv, budget: int, seed: int) -> ExpertIteration:
    """Expert iteration."""
    return _critic_free(ExpertIteration, envs, budget, seed)
