"""Stable-Baselines3's PPO trains a language model in several processes on one machine.

    python agents/recipes/torchrun_ppo.py
    torchrun --nproc-per-node 2 agents/recipes/torchrun_ppo.py

Needs `pip install "textgym[agents]"`. Each process writes texts in environments of its own, and all
take the step that one process would take on all the texts. A GPU for each process where there are
enough, else the CPU: torch then wants no more threads than there are cores
(`OMP_NUM_THREADS=1 torchrun ...`). A minute or two on two CPU cores.

`--steps`, `--num-envs` and the minibatch are those of all processes together, so that a run of more
processes is the same run, sooner.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from textgym_agents.lm import load_tokenizer
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults
from textgym_agents.sb3.distributed import Processes, distribute, setup


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="textgym/Story-v0")
    parser.add_argument("--model", default="bundled", help="a folder or a hub id")
    parser.add_argument("--steps", type=int, default=60_000, help="tokens, of all processes")
    parser.add_argument("--num-envs", type=int, default=64, help="of all processes")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU each, if there are enough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/torchrun_ppo"))
    return parser.parse_args(argv)


class Returns(BaseCallback):
    """Keeps the mean return of each rollout, over the episodes of all processes."""

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes
        self.means: list[float] = []
        self._sums = np.zeros(2)

    def _on_step(self) -> bool:
        ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        self._sums += sum(ended), len(ended)
        return True

    def _on_rollout_end(self) -> None:
        total, episodes = self.processes.gather(self._sums).sum(axis=0)
        self._sums[:] = 0.0
        self.means.append(total / max(1.0, episodes))
        if self.processes.first:
            tokens = self.num_timesteps * self.processes.count
            print(f"{tokens:,} tokens  return {self.means[-1]:.3f}", flush=True)


def make_agent(options: argparse.Namespace, processes: Processes) -> PPO:
    """This process's agent, on its share of the environments."""
    rows, left = divmod(options.num_envs, processes.count)
    if left or not rows:
        raise SystemExit(
            f"`--num-envs` {options.num_envs} cannot be shared out evenly to {processes.count} "
            f"processes. Take a multiple of {processes.count}."
        )
    tokenizer = load_tokenizer(options.model)
    defaults = ppo_defaults(make_vec_env(options.env, options.num_envs, tokenizer=tokenizer))
    defaults["batch_size"] = max(1, defaults["batch_size"] // processes.count)
    envs = make_vec_env(options.env, rows, tokenizer=tokenizer)
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": options.model},
        seed=processes.seed(options.seed),
        device=processes.device,
        **defaults,
    )
    distribute(agent, processes)
    return agent


def main(argv: Sequence[str] | None = None) -> int:
    """Train, save. Returns 0 if the return has risen."""
    options = arguments(argv)
    with setup(device=options.device) as processes:
        agent, returns = make_agent(options, processes), Returns(processes)
        began = time.perf_counter()
        agent.learn(options.steps // processes.count, callback=returns)
        seconds = time.perf_counter() - began
        if not processes.first:
            return 0
        agent.policy.save_pretrained(options.out / "model")
        tokens = agent.num_timesteps * processes.count
        print(f"model: {options.out / 'model'}; {tokens / seconds:,.0f} tokens/s")
        print(f"mean return: {returns.means[0]:.3f} before, {returns.means[-1]:.3f} after")
        return 0 if returns.means[-1] > returns.means[0] else 1


if __name__ == "__main__":
    sys.exit(main())
