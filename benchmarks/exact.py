"""How close PPO comes to what is known to be optimal, evaluated exactly on `TokenLock`.

    python benchmarks/exact.py --json out.json

Stable-Baselines3's own PPO trains a small random GPT-2 on a lock, once for each reward variant (all
have the same optimum), and `textgym.exact` then computes what the policy is worth from the
log-probs of every context there is. Nothing but `sampled_return` is estimated.

Keys of the JSON, for each seed and variant:

- optimal_return, random_return: the greatest, and that of uniformly random tokens.
- exact_return, kl, objective: of the policy; J = return - beta * KL(policy, base model).
- sampled_return: mean over 4,096 episodes of the trained policy, as a learner would measure it;
  return_error: how far that is from exact_return.
- optimal_objective, base_objective, regret: J* by soft dynamic programming, J of the base model,
  and (J* - J) / (J* - J_base). Target: at most 0.02.
- value_error, value_size: root mean square error of the critic, where the policy goes, and root
  mean square of the exact values; advantage_error, advantage_size: the same of the advantages that
  the critic gives each token taken, r - beta * log(pi / p_ref) + V(s') - V(s).
- midway: the same errors and sizes after a quarter of the training, when there is most to learn.
- train_seconds, tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import exact
from textgym.tasks.token_lock import VARIANTS, TokenLockTask
from textgym_agents.sb3 import (
    LMPolicy,
    TokenRolloutBuffer,
    evaluate,
    make_vec_env,
    ppo_defaults,
)

# Four prompts, one a key, so that the exact figures are over all of them.
LOCK = {
    "vocab_size": 5,
    "keys": 4,
    "pins": 2,
    "max_new_tokens": 3,
    "prompt_length": 1,
    "delay": 1,
}
BETA, RATE, ROWS = 0.1, 2e-3, 512
TARGET = 0.02
PACKAGES = ("torch", "transformers", "stable-baselines3", "gymnasium", "numpy", "tokenizers")


def rate(remaining: float) -> float:
    """The learning rate: constant, then falling to 0 over the last 70% of training."""
    return RATE * min(1.0, remaining / 0.7)


def small_model() -> GPT2LMHeadModel:
    """A random model with the lock's vocabulary."""
    config = GPT2Config(
        n_embd=64,
        n_layer=1,
        n_head=4,
        n_positions=16,
        vocab_size=LOCK["vocab_size"],
        eos_token_id=0,
        bos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def hidden(lm: Any, seen: dict[str, Any]) -> torch.Tensor:
    """`[B, d]` at the last token of each context, from the whole of it."""
    lengths = seen["attention_mask"].sum(axis=1, dtype=np.int64)
    return lm.last_hidden(torch.from_numpy(seen["input_ids"]), lengths)


def log_probs_of(lm: Any) -> Any:
    """The policy that `lm` is, as a function from observations to log-probs."""

    @torch.no_grad()
    def log_probs(seen: dict[str, Any]) -> np.ndarray:
        return lm.head.logits(hidden(lm, seen)).double().log_softmax(dim=-1).numpy()

    return log_probs


def critic_of(policy: LMPolicy) -> Any:
    """Its critic, as a function from observations to values."""

    @torch.no_grad()
    def values(seen: dict[str, Any]) -> np.ndarray:
        return (policy.value_head(hidden(policy.lm, seen)) * policy.value_scale)[:, 0].numpy()

    return values


def critics_advantages(tree: exact.Graph, values: exact.Table) -> list[np.ndarray]:
    """`[n, V]` a layer: r + V(s') - V(s), what a critic makes of each token but for its KL."""
    after = [*values[1:], np.zeros(0)]
    return [
        layer.rewards + np.append(following, 0.0)[layer.children] - now[:, None]
        for layer, now, following in zip(tree.layers, values, after, strict=True)
    ]


class Midway(BaseCallback):
    """Calls `look` once, after a quarter of the training."""

    def __init__(self, look: Callable[[LMPolicy], dict[str, float]], tokens: int) -> None:
        super().__init__()
        self.look, self.at = look, tokens // 4
        self.seen: dict[str, float] = {}

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if not self.seen and self.num_timesteps >= self.at:
            self.seen = self.look(self.model.policy)


def agent_on(reward: str, seed: int) -> PPO:
    """SB3's PPO on a lock."""
    torch.manual_seed(seed)
    envs = make_vec_env("textgym/TokenLock-v0", n_envs=ROWS, reward=reward, **LOCK)
    return PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": small_model(), "kl_coef": BETA},
        seed=seed,
        device="cpu",
        **ppo_defaults(envs) | {"learning_rate": rate},
    )


def critic_figures(policy: LMPolicy, reached: exact.Solution) -> dict[str, float]:
    """How far the critic is from the exact values of the policy it is the critic of."""
    values = exact.tabulate(reached.graph, critic_of(policy))
    nothing = [np.zeros(len(layer)) for layer in reached.graph.layers]
    # Q - V leaves out what a token's own KL costs, and so do both sides of advantage_error.
    own_cost = [
        BETA * (p - r) for p, r in zip(reached.log_probs, reached.ref_log_probs, strict=True)
    ]
    return {
        "value_error": reached.value_error(values),
        "value_size": reached.value_error(nothing),
        "advantage_error": reached.advantage_error(critics_advantages(reached.graph, values)),
        "advantage_size": reached.advantage_error(own_cost),
    }


def figures(reward: str, tokens: int, seed: int) -> dict[str, Any]:
    """Train on one variant and evaluate."""
    task = TokenLockTask(reward=reward, **LOCK)
    tree = exact.lock_tree(task, task.prompts("train"))
    agent = agent_on(reward, seed)
    policy = agent.policy
    reference = exact.tabulate_policy(tree, log_probs_of(policy.reference))

    def worth(lm: Any) -> exact.Solution:
        return exact.evaluate(tree, log_probs_of(lm), beta=BETA, reference=reference)

    midway = Midway(lambda policy: critic_figures(policy, worth(policy.lm)), tokens)
    start = time.perf_counter()
    agent.learn(tokens, callback=midway)
    spent = time.perf_counter() - start
    best = exact.optimum(tree, beta=BETA, reference=reference)
    base, reached = worth(policy.reference), worth(policy.lm)
    sampled = evaluate(policy, agent.get_env(), 4096, seed=seed + 1).mean_reward
    return {
        "optimal_return": exact.optimum(tree).expected_return,
        "random_return": exact.evaluate(tree).expected_return,
        "exact_return": reached.expected_return,
        "sampled_return": sampled,
        "return_error": sampled - reached.expected_return,
        "kl": reached.kl,
        "objective": reached.objective,
        "optimal_objective": best.objective,
        "base_objective": base.objective,
        "regret": exact.relative_regret(best, reached, base),
        **critic_figures(policy, reached),
        **{f"midway_{name}": value for name, value in midway.seen.items()},
        "train_seconds": spent,
        "tokens": agent.num_timesteps,
    }


def main() -> None:
    """Train, evaluate and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--tokens", type=int, default=240_000, help="generated in each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    found: dict[str, dict[str, Any]] = {}
    for seed in arguments.seeds:
        runs = {reward: figures(reward, arguments.tokens, seed) for reward in VARIANTS}
        print(f"{f'seed {seed}':24}" + "".join(f"{reward:>12}" for reward in runs))
        for name in runs[VARIANTS[0]]:
            print(f"{name:24}" + "".join(f"{run[name]:12.4f}" for run in runs.values()))
        missed = [reward for reward, run in runs.items() if run["regret"] > TARGET]
        print(f"regret above {TARGET:.0%}: {', '.join(missed) or 'none'}\n", flush=True)
        found[f"seed_{seed}"] = runs
    if arguments.json:
        about = {
            "command": " ".join(["python", *sys.argv]),
            "seeds": arguments.seeds,
            "threads": arguments.threads,
            "lock": LOCK,
            "beta": BETA,
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in PACKAGES},
        }
        text = json.dumps(found | {"about": about}, indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
