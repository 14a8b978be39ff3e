"""What a slow reward costs: rollouts with it over rollouts without its wait, in one process.

    python benchmarks/async_scoring.py --json out.json

64 rows write two episodes each in a rollout of SB3's PPO (its advantages and the pass of the
reference model included). The reward sleeps 20 ms a text; in "free" it is the same without the
sleep. Shares are of free's speed, in interleaved rollouts, at the median of the repeats:

- lockstep: all rows end at the same step, the last time at the end of the rollout, when nothing is
  left to do but wait. ragged: texts are 8 to 48 tokens long, and rows end one by one.
- async_share: with `AsyncScoring`; sync_share: without it.
- possible_share: what no arrangement can exceed, since the workers judge `workers` / 20 ms texts a
  second and no score may be left out. Where it is below the target, the model is too fast for it.
- free_seconds, free_cpu_seconds: of a rollout in free, by the wall and by the processor. Where the
  machine is busy the first is greater, and hides more of the wait: give a `--wait` as many times
  greater to see what a machine of its own would show.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO

from textgym.rewards import FunctionReward
from textgym_agents.lm import load_model
from textgym_agents.sb3 import (
    AsyncScoring,
    LMPolicy,
    TokenRolloutBuffer,
    make_vec_env,
    ppo_defaults,
)

PROMPT = "Once upon a time there was a"
NEW_TOKENS, ROWS, EPISODES = 48, 64, 2
TARGET = 0.8
PACKAGES = ("torch", "transformers", "stable-baselines3", "gymnasium", "numpy")


class Paced(LMPolicy):
    """Ends its texts after `NEW_TOKENS` tokens, or, where `ragged`, 8 to as many."""

    ragged = False

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        """Sample, then end what is due, and nothing else."""
        actions, values, log_probs = super().forward(obs, deterministic)
        if not hasattr(self, "lengths"):
            self.rng = np.random.default_rng(0)
            self.lengths = self._drawn(len(actions))
        eos = self.action_space.eos_token_id
        actions[actions == eos] = eos + 5
        ends = NEW_TOKENS - obs["remaining"][:, 0].numpy() + 1 >= self.lengths
        actions[torch.from_numpy(ends)] = eos
        self.lengths[ends] = self._drawn(int(ends.sum()))
        return actions, values, log_probs

    def _drawn(self, count: int) -> Any:
        return self.rng.integers(8 if self.ragged else NEW_TOKENS, NEW_TOKENS + 1, count)


class PacedRagged(Paced):
    """Rows that end one by one."""

    ragged = True


class Case:
    """An agent whose reward sleeps `wait` seconds a text; `rollout()` is timed."""

    def __init__(self, model: str, *, ragged: bool, wait: float, workers: int) -> None:
        def reward(episodes: Any) -> list[float]:
            self.texts += len(episodes)
            if wait:
                time.sleep(wait * len(episodes))
            return [float(len(e.completion_text)) for e in episodes]

        reward.thread_safe = True  # type: ignore[attr-defined]
        self.texts = 0
        self.envs = make_vec_env(
            "textgym/Continuation-v0",
            n_envs=ROWS,
            tokenizer=None if model == "bundled" else model,
            prompts=[PROMPT],
            max_new_tokens=NEW_TOKENS,
            rewards=[FunctionReward(reward)],
        )
        self.agent = PPO(
            PacedRagged if ragged else Paced,
            self.envs,
            rollout_buffer_class=TokenRolloutBuffer,
            policy_kwargs={"model": load_model(model)},
            seed=0,
            device="cpu",
            **ppo_defaults(self.envs) | {"n_steps": EPISODES * NEW_TOKENS},
        )
        callbacks = [AsyncScoring(workers)] if workers else []
        _, self.callback = self.agent._setup_learn(10**9, callbacks)
        self.callback.on_training_start({}, {})

    def rollout(self) -> float:
        """Seconds of one rollout."""
        agent = self.agent
        agent.policy.invalidate_cache()  # as after an update
        start, cpu = time.perf_counter(), time.process_time()
        agent.collect_rollouts(self.envs, self.callback, agent.rollout_buffer, agent.n_steps)
        self.cpu_seconds = time.process_time() - cpu
        return time.perf_counter() - start


def shares(model: str, ragged: bool, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one model."""
    keywords = {"ragged": ragged, "wait": options.wait}
    free = Case(model, **keywords | {"wait": 0.0}, workers=0)
    other = Case(model, **keywords, workers=options.workers)
    sync = Case(model, **keywords, workers=0)
    rows = [
        (free.rollout(), other.rollout(), sync.rollout(), free.cpu_seconds)
        for _ in range(options.repeats + 1)
    ]
    rows = rows[1:]  # the first warms up
    texts = free.texts / (options.repeats + 1)
    seconds = statistics.median(row[0] for row in rows)
    return {
        "async_share": statistics.median(row[0] / row[1] for row in rows),
        "sync_share": statistics.median(row[0] / row[2] for row in rows),
        "possible_share": min(1.0, seconds / (texts * options.wait / options.workers)),
        "free_seconds": seconds,
        "free_cpu_seconds": statistics.median(row[3] for row in rows),
        "texts": texts,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--models", nargs="+", default=["bundled"], help="folders, or bundled")
    parser.add_argument("--wait", type=float, default=0.02, help="seconds a text")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {}
    for model in options.models:
        for ragged in (False, True):
            name = f"{Path(model).name}_{'ragged' if ragged else 'lockstep'}"
            report[name] = shares(model, ragged, options)
            print(name, *(f"{key} {value:.3f}" for key, value in report[name].items()), sep="  ")
    report["about"] = {
        "target": TARGET,
        "command": " ".join(["python", *sys.argv]),
        "wait_s": options.wait,
        "workers": options.workers,
        "threads": options.threads,
        "repeats": options.repeats,
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
