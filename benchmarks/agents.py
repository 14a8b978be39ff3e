"""Every algorithm on three environments, with the same budget of tokens, three seeds each.

    python benchmarks/agents.py                              # all; resumes where it stopped
    python benchmarks/agents.py --only 'grpo/*' --jobs 2     # some cells, two at a time
    python benchmarks/agents.py --tokens 2000 --out /tmp/small.json --only '*/TokenLock/0'

A cell is ``algorithm/environment/seed``, in a process of its own with one torch thread; cells that
are in the file are not run again. Each learns from `--tokens` tokens (a rollout more at most), and
is then scored on the same held-out instances. What a cell holds:

- normalized_return: by `textgym.scoring`, 0 of random tokens and 1 of the oracle; without the
  price of the KL. The policies sample at temperature 1, but dqn-topk takes its best action.
- normalized_return_greedy: the most probable token always. None where there is none (random).
- train_seconds: wall time of `learn`; cpu_seconds: its CPU time, which is what to compare where
  cells run two at a time, or beside something else.
- peak_mb: the largest resident memory of the process, libraries and scoring included.
- tokens: how many it learnt from.

TokenLock is played with its dense reward (which pays the same in total) by a tiny model of random
weights; Story and Arithmetic by the bundled model, with the same `kl_coef` for all. Learning rates
are the defaults for a model of that size, and on the lock the same for all language models. Where
they differ from the others: maskable-ppo is on TokenLock alone, where it may not stop before the
lock can be open, neither learning nor scored; dqn-topk chooses among a frozen model's two best
tokens (on the lock among all), and departures are priced as in agents/recipes/dqn_topk.py.

Needs `pip install "textgym[recipes]"`, and Linux for `peak_mb`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from textgym.scoring import normalized, references

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "agents.json"
ENVS = ("TokenLock", "Story", "Arithmetic")
SEEDS = (0, 1, 2)
PACKAGES = ("textgym", "torch", "transformers", "stable-baselines3", "sb3-contrib", "numpy")
ROWS = 32
KL_COEF = 0.02
LOCK_RATE = 3e-3
SCORING_SEED = 12_345


# ---------------------------------------------------------------- the environments
def lock_model() -> Any:
    """A model of 14 thousand random weights; torch must be seeded before."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 8}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def make_envs(env: str, split: str, **options: Any) -> Any:
    """`ROWS` rows of an environment."""
    from textgym_agents.sb3 import make_vec_env

    if env == "TokenLock":
        options["reward"] = "dense"
    return make_vec_env(f"textgym/{env}-v0", ROWS, split=split, **options)


# ---------------------------------------------------------------- the agents
def on_policy(algorithm: str, envs: Any, rate: float | None) -> tuple[type, type, dict[str, Any]]:
    """Agent, policy and arguments of those with a rollout buffer of tokens."""
    from stable_baselines3 import A2C, PPO

    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, a2c_defaults, ppo_defaults
    from textgym_agents.sb3.nlpo import NLPO, NLPOPolicy

    tokens = {"rollout_buffer_class": TokenRolloutBuffer}
    if algorithm == "ppo":
        return PPO, LMPolicy, tokens | ppo_defaults(envs, learning_rate=rate)
    if algorithm == "a2c":
        return A2C, LMPolicy, tokens | a2c_defaults(envs, learning_rate=rate)
    if algorithm == "nlpo":
        return NLPO, NLPOPolicy, tokens | ppo_defaults(envs, learning_rate=rate)
    if algorithm == "trpo":
        from sb3_contrib import TRPO

        from textgym_agents.sb3.trpo import TRPOPolicy, trpo_defaults

        return TRPO, TRPOPolicy, tokens | trpo_defaults(envs)
    from sb3_contrib import MaskablePPO

    from textgym_agents.sb3.maskable import (
        MaskableLMPolicy,
        MaskableTokenRolloutBuffer,
        maskable_ppo_defaults,
    )

    tokens = {"rollout_buffer_class": MaskableTokenRolloutBuffer}
    return MaskablePPO, MaskableLMPolicy, tokens | maskable_ppo_defaults(envs, learning_rate=rate)


def critic_free(algorithm: str, envs: Any, rate: float | None) -> tuple[type, type, dict[str, Any]]:
    """Agent, policy and arguments of those that learn from whole episodes."""
    from textgym_agents.sb3 import GRPO, REINFORCE, RLOO, ExpertIteration, LMPolicy

    found = {"grpo": GRPO, "rloo": RLOO, "reinforce": REINFORCE}
    found["expert-iteration"] = ExpertIteration
    return found[algorithm], LMPolicy, {"learning_rate": rate}


def language_model_cell(make: Callable[..., Any], cell: Cell, options: Any) -> dict[str, Any]:
    """Train and score an agent whose policy is a language model."""
    from textgym.wrappers import MaskObservation
    from textgym_agents.sb3 import evaluate

    on_lock, masked = cell.env == "TokenLock", cell.algorithm == "maskable-ppo"
    masks = {"min_new_tokens": 4} if masked else {}  # no stop before all pins can be set
    envs = make_envs(cell.env, "train", **masks)
    cls, policy, keywords = make(cell.algorithm, envs, LOCK_RATE if on_lock else None)
    model = {"model": lock_model(), "kl_coef": 0.0} if on_lock else {"kl_coef": KL_COEF}
    agent = cls(policy, envs, policy_kwargs=model, seed=cell.seed, device="cpu", **keywords)
    cost = timed(lambda: agent.learn(options.tokens))
    # `evaluate` calls the policy without masks, which then reads them from the observation.
    held_out = make_envs(cell.env, "test", wrappers=[MaskObservation] if masks else [], **masks)

    def score(deterministic: bool) -> float:
        result = evaluate(
            agent.policy,
            held_out,
            options.episodes,
            deterministic=deterministic,
            seed=SCORING_SEED,
        )
        return float(result.mean_reward)

    return figures(cell, score(False), score(True), agent.num_timesteps, cost)


def dqn_cell(cell: Cell, options: Any) -> dict[str, Any]:
    """Train and score DQN on what a frozen model thinks of the context and of the next token."""
    from stable_baselines3 import DQN

    from textgym_agents.wrappers import HiddenStateObservation, TopKActions

    recipe = load_recipe("dqn_topk")
    on_lock = cell.env == "TokenLock"
    # Nothing is to be learnt from the odds of a model that knows nothing, nor paid for.
    model, k, beta = (lock_model(), 8, 0.0) if on_lock else ("bundled", 2, 0.02)
    wrappers = [
        lambda env: TopKActions(env, model, k, observe_log_probs=not on_lock),
        lambda env: recipe.PricedDepartures(env, beta),
        lambda env: HiddenStateObservation(env, model),
    ]
    envs, held_out = (make_envs(cell.env, s, wrappers=wrappers) for s in ("train", "test"))
    agent = DQN(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        policy_kwargs={"net_arch": [256, 256]},
        gamma=1.0,
        n_steps=1 if on_lock else 64,
        buffer_size=options.tokens + ROWS,
        batch_size=256,
        train_freq=1,
        gradient_steps=ROWS // 16,
        target_update_interval=1_000,
        learning_starts=1_000,
        exploration_initial_eps=1.0 if on_lock else 0.03,
        exploration_final_eps=0.02 if on_lock else 0.005,
        exploration_fraction=0.5,
        seed=cell.seed,
        device="cpu",
    )
    cost = timed(lambda: agent.learn(options.tokens))
    score = recipe.mean_score(
        lambda seen: agent.predict(seen, deterministic=True)[0],
        held_out,
        options.episodes,
        SCORING_SEED,
    )
    return figures(cell, score, score, agent.num_timesteps, cost)


def random_cell(cell: Cell, options: Any) -> dict[str, Any]:
    """Score random tokens, of which nothing is learnt."""
    import numpy as np

    recipe = load_recipe("dqn_topk")
    held_out = make_envs(cell.env, "test")
    rng = np.random.default_rng(cell.seed)
    size = int(held_out.action_space.n)
    score = recipe.mean_score(
        lambda seen: rng.integers(size, size=ROWS), held_out, options.episodes, SCORING_SEED
    )
    return figures(cell, score, None, 0, (0.0, 0.0))


ALGORITHMS: dict[str, Callable[[Cell, Any], dict[str, Any]]] = {
    "random": random_cell,
    **{
        name: lambda cell, options: language_model_cell(on_policy, cell, options)
        for name in ("ppo", "a2c", "trpo", "maskable-ppo", "nlpo")
    },
    **{
        name: lambda cell, options: language_model_cell(critic_free, cell, options)
        for name in ("grpo", "rloo", "reinforce", "expert-iteration")
    },
    "dqn-topk": dqn_cell,
}


# ---------------------------------------------------------------- one cell
class Cell:
    """An algorithm, an environment and a seed, by their names in a row.

    Args:
        key: ``"algorithm/environment/seed"``.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.algorithm, self.env, seed = key.split("/")
        self.seed = int(seed)


def timed(learn: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU time of a call, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    learn()
    return time.perf_counter() - wall, time.process_time() - cpu


def figures(
    cell: Cell, score: float, greedy: float | None, tokens: int, cost: tuple[float, float]
) -> dict[str, Any]:
    """What a cell holds."""
    import resource

    env = f"textgym/{cell.env}-v0"
    return {
        "normalized_return": round(float(normalized(score, env)), 4),
        "normalized_return_greedy": None
        if greedy is None
        else round(float(normalized(greedy, env)), 4),
        "tokens": tokens,
        "train_seconds": round(cost[0], 1),
        "cpu_seconds": round(cost[1], 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def load_recipe(name: str) -> ModuleType:
    """A script of agents/recipes as a module."""
    path = ROOT / "agents" / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_here(key: str, options: argparse.Namespace) -> None:
    """Run a cell and print its figures as the last line."""
    import torch

    cell = Cell(key)
    torch.set_num_threads(1)
    torch.manual_seed(cell.seed)
    print(json.dumps(ALGORITHMS[cell.algorithm](cell, options)))


def run_apart(key: str, options: argparse.Namespace) -> dict[str, Any]:
    """`run_here` in a process of its own; ``{"error": ...}`` where it fails."""
    command = [sys.executable, __file__, "--cell", key]
    command += ["--tokens", str(options.tokens), "--episodes", str(options.episodes)]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- all cells
def keys(only: list[str] | None) -> list[str]:
    """The cells asked for, in their order."""
    every = [
        f"{algorithm}/{env}/{seed}"
        for seed in SEEDS
        for env in ENVS
        for algorithm in ALGORITHMS
        if algorithm != "maskable-ppo" or env == "TokenLock"
    ]
    found = [key for key in every if not only or any(fnmatch(key, pattern) for pattern in only)]
    if not found:
        raise SystemExit(f"no cell matches {only}; they are such as {every[0]!r}")
    return found


def load(options: argparse.Namespace) -> dict[str, Any]:
    """The record in the file, or a new one."""
    settings = {"tokens": options.tokens, "episodes": options.episodes, "rows": ROWS}
    if not options.out.is_file():
        return {"settings": settings, "cells": {}}
    record = json.loads(options.out.read_text(encoding="utf-8"))
    if record["settings"] != settings:
        raise SystemExit(
            f"{options.out} holds cells of {record['settings']}, not of {settings}: give another "
            "file with --out"
        )
    return record


def save(record: dict[str, Any], out: Path) -> None:
    """Write the record, cells in their order, all or nothing."""
    order = {key: i for i, key in enumerate(keys(None))}
    record["cells"] = dict(sorted(record["cells"].items(), key=lambda item: order[item[0]]))
    record["versions"] = {name: version(name) for name in PACKAGES}
    record["machine"] = f"{platform.machine()}, Python {platform.python_version()}, 1 thread, CPU"
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(out)


def table(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Means over seeds, one line for each algorithm in each environment."""
    lines = [f"{'':17} {'':11} return (seeds)              greedy     CPU s    MB"]
    for env in ENVS:
        for algorithm in ALGORITHMS:
            found = [cells.get(f"{algorithm}/{env}/{seed}") for seed in SEEDS]
            found = [cell for cell in found if cell is not None]
            if found:
                lines.append(f"{algorithm:17} {env:11} {row(found)}")
        base = references()[f"textgym/{env}-v0"].bundled
        if base is not None:
            score = normalized(base.mean, f"textgym/{env}-v0")
            lines.append(f"{'untrained model':17} {env:11} {score:6.3f}")
    return "\n".join(lines)


def row(cells: list[Mapping[str, Any]]) -> str:
    """The figures of one line: mean and each seed, then means."""
    returns = [cell["normalized_return"] for cell in cells]
    greedy = [cell["normalized_return_greedy"] for cell in cells]
    each = "(" + " ".join(f"{value:.3f}" for value in returns) + ")"
    best = f"{'':6}" if None in greedy else f"{statistics.mean(greedy):6.3f}"
    seconds = statistics.mean(cell["cpu_seconds"] for cell in cells)
    memory = max(cell["peak_mb"] for cell in cells)
    return f"{statistics.mean(returns):6.3f} {each:20} {best} {seconds:9.1f} {memory:5.0f}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=60_000, help="each learns from")
    parser.add_argument("--episodes", type=int, default=256, help="held out, to score it")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="cells such as 'ppo/*/0' (repeatable)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run what is missing, write after each cell, print the table; 1 if a cell failed."""
    options = arguments()
    if options.cell:
        run_here(options.cell, options)
        return 0
    record, failed = load(options), 0
    missing = [key for key in keys(options.only) if key not in record["cells"]]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_apart, key, options): key for key in missing}
        for done in as_completed(running):
            key, found = running[done], done.result()
            print(key, json.dumps(found), flush=True)
            if "error" in found:  # not kept: the next run tries again
                failed += 1
            else:
                record["cells"][key] = found
                save(record, options.out)
    print(table(record["cells"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
