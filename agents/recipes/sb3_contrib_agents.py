"""Agents of Stable-Baselines3 and sb3-contrib, as they are, open a lock.

    python agents/recipes/sb3_contrib_agents.py --algo trpo

Needs `pip install "textgym[recipes]"`. Less than 10 s on one CPU core. Three kinds of agent:

- PPO, A2C, TRPO and MaskablePPO train a language model: it is their policy (`LMPolicy`, for TRPO
  `TRPOPolicy`, for MaskablePPO `MaskableLMPolicy`), and their buffer stores each token once.
- DQN, QR-DQN and RecurrentPPO have networks of their own on top of what a frozen language model
  makes of the context (`LMFeatures`), here one of random weights.
- MaskablePPO asks the environments for masks before every step. Here they keep it, and the random
  policy that it is compared with, from stopping before the lock can be open.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from transformers import GPT2Config, GPT2LMHeadModel

from textgym_agents.sb3 import (
    LMPolicy,
    TextVecEnv,
    TokenRolloutBuffer,
    a2c_defaults,
    make_vec_env,
    ppo_defaults,
)
from textgym_agents.sb3.features import dqn_defaults, features_kwargs
from textgym_agents.sb3.trpo import TRPOPolicy, trpo_defaults

try:
    from sb3_contrib import QRDQN, TRPO, MaskablePPO, RecurrentPPO

    from textgym_agents.sb3.maskable import (
        MaskableLMPolicy,
        MaskableTokenRolloutBuffer,
        maskable_ppo_defaults,
    )
except ImportError:
    print('this recipe needs sb3-contrib: pip install "textgym[recipes]"', file=sys.stderr)
    sys.exit(2)

# A small lock, so that some thousand tokens are enough; without these it is that of the benchmark.
# The best that one text earns for all prompts is 0.29: more takes an agent that reads them.
LOCK = {"keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1, "reward": "dense"}
MASKED = {"min_new_tokens": LOCK["pins"]}

Act = Callable[..., tuple[NDArray[np.int64], Any]]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algo", choices=AGENTS, default="trpo")
    parser.add_argument("--timesteps", type=int, default=16_000, help="tokens to learn from")
    parser.add_argument("--num-envs", type=int, default=32)
    parser.add_argument("--episodes", type=int, default=256, help="held-out episodes to score")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def language_model(vocab_size: int) -> GPT2LMHeadModel:
    """A tiny one that knows nothing."""
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": vocab_size}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


# ---------------------------------------------------------------- a language model as the policy
def writer(
    cls: type[BaseAlgorithm],
    policy: type[LMPolicy],
    envs: TextVecEnv,
    defaults: dict[str, Any],
    buffer: type[TokenRolloutBuffer] = TokenRolloutBuffer,
) -> Callable[..., BaseAlgorithm]:
    """An agent whose policy is the model; there is nothing in it to stay close to."""
    model = {"model": language_model(int(envs.action_space.n)), "kl_coef": 0.0}
    return lambda **common: cls(
        policy, envs, rollout_buffer_class=buffer, policy_kwargs=model, **defaults | common
    )


# Entropy pays at first, when few texts earn anything; updates are many and small.
SMALL = {"n_steps": 16, "batch_size": 128, "ent_coef": 0.02}


def ppo(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """Stable-Baselines3's PPO."""
    return writer(PPO, LMPolicy, envs, ppo_defaults(envs, learning_rate=3e-3) | SMALL)


def a2c(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """Stable-Baselines3's A2C: one step for each rollout, so that it takes more tokens."""
    changes = {"n_steps": 7, "ent_coef": 0.02}
    return writer(A2C, LMPolicy, envs, a2c_defaults(envs, learning_rate=1.5e-3) | changes)


def trpo(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """sb3-contrib's TRPO; the learning rate is of the value head alone."""
    return writer(TRPO, TRPOPolicy, envs, trpo_defaults(envs, learning_rate=1e-2))


def maskable_ppo(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """sb3-contrib's MaskablePPO, with a buffer that keeps masks as bits."""
    defaults = maskable_ppo_defaults(envs, learning_rate=3e-3) | SMALL
    return writer(MaskablePPO, MaskableLMPolicy, envs, defaults, MaskableTokenRolloutBuffer)


# ---------------------------------------------------------------- networks on a frozen model
def reader(
    cls: type[BaseAlgorithm],
    policy: str,
    envs: TextVecEnv,
    defaults: dict[str, Any],
    **networks: Any,
) -> Callable[..., BaseAlgorithm]:
    """An agent with `networks` of its own, which read the model's last hidden state."""
    networks |= features_kwargs(envs, language_model(int(envs.action_space.n)))
    return lambda **common: cls(policy, envs, policy_kwargs=networks, **defaults | common)


def dqn(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """Stable-Baselines3's DQN."""
    return reader(DQN, "MultiInputPolicy", envs, dqn_defaults(envs), net_arch=[128])


def qr_dqn(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """sb3-contrib's QR-DQN."""
    own = {"net_arch": [128], "n_quantiles": 10}
    return reader(QRDQN, "MultiInputPolicy", envs, dqn_defaults(envs), **own)


def recurrent_ppo(envs: TextVecEnv) -> Callable[..., BaseAlgorithm]:
    """sb3-contrib's RecurrentPPO."""
    defaults = ppo_defaults(envs, learning_rate=1e-2) | SMALL | {"normalize_advantage": True}
    del defaults["rollout_buffer_kwargs"]  # its buffer is its own
    own = {"lstm_hidden_size": 32, "net_arch": []}
    return reader(RecurrentPPO, "MultiInputLstmPolicy", envs, defaults, **own)


AGENTS = {
    "trpo": trpo,
    "maskable-ppo": maskable_ppo,
    "recurrent-ppo": recurrent_ppo,
    "qr-dqn": qr_dqn,
    "dqn": dqn,
    "a2c": a2c,
    "ppo": ppo,
}


# ---------------------------------------------------------------- scores
def mean_return(act: Act, envs: TextVecEnv, episodes: int) -> float:
    """The mean return of held-out episodes; every row plays equally many.

    Args:
        act: SB3's `predict`, or what takes the same and gives the same.
        envs: where.
        episodes: how many, in all.
    """
    quota = max(1, episodes // envs.num_envs)
    returns: list[list[float]] = [[] for _ in range(envs.num_envs)]
    masks = envs.has_attr("action_masks")
    envs.seed(1_000_000)
    observation, state, starts = envs.reset(), None, np.ones(envs.num_envs, np.bool_)
    while min(map(len, returns)) < quota:
        allowed = {"action_masks": np.stack(envs.env_method("action_masks"))} if masks else {}
        actions, state = act(
            observation, state=state, episode_start=starts, deterministic=True, **allowed
        )
        observation, _, starts, infos = envs.step(actions)
        for row in np.flatnonzero(starts):
            returns[row].append(infos[row]["episode"]["r"])
    return float(np.mean([row[:quota] for row in returns]))


def random_policy(vocab_size: int) -> Act:
    """Any token, or any that is allowed, as likely as any other."""
    rng = np.random.default_rng(0)

    def act(observation: Any, action_masks: Any = True, **_: Any) -> tuple[NDArray[np.int64], None]:
        chances = rng.random((len(observation["remaining"]), vocab_size))
        return np.where(action_masks, chances, -1.0).argmax(axis=1), None

    return act


def main(argv: Sequence[str] | None = None) -> int:
    """Score, train, score again. Returns 0 if the agent beats the random policy."""
    options = arguments(argv)
    torch.set_num_threads(1)  # small networks: more threads only wait for one another
    torch.manual_seed(options.seed)
    lock = LOCK | (MASKED if options.algo == "maskable-ppo" else {})
    envs, held_out = (
        make_vec_env("textgym/TokenLock-v0", options.num_envs, split=split, **lock)
        for split in ("train", "test")
    )
    agent = AGENTS[options.algo](envs)(seed=options.seed, device="cpu")
    random = mean_return(random_policy(int(envs.action_space.n)), held_out, options.episodes)
    before = mean_return(agent.predict, held_out, options.episodes)
    agent.learn(options.timesteps)
    after = mean_return(agent.predict, held_out, options.episodes)
    better = after > random
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")
    print("It beats the random policy." if better else "It does not beat the random policy.")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
