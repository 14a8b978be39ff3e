"""Measure the reference returns of every registered environment: random, bundled, oracle, optimal.

    python benchmarks/references.py                          # all of them
    python benchmarks/references.py --only textgym/Story-v0
    python benchmarks/references.py --bridged --episodes 64  # those of other packages too

Writes textgym/embedded/references.json, which `textgym.scoring.references` reads; an environment
that is not measured keeps what it has. All at level 1, on test-split instances:

- random: uniformly random tokens. On a TokenLock computed exactly.
- oracle: `textgym.demonstrations.demonstrate`.
- bundled: the bundled model, sampled at temperature 1. None where the vocabulary is not its own.
- optimal: the best without what is hidden from the agent, where it is computed exactly: by
  `textgym.exact`, or by the task's own `optimal_value`. (No score is above 1.0 anywhere: where the
  oracle scores that and sees no more than the agent does, it is the best there is.)
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import textgym
from textgym.demonstrations import demonstrate
from textgym.episode import Instance
from textgym.exact import evaluate as evaluate_exactly
from textgym.exact import lock_graph, optimum
from textgym.registration import REGISTRY, EnvRow
from textgym.scoring import ANCHORS, Estimate, Reference
from textgym.seeding import instance_rng
from textgym.tasks.base import Task
from textgym.tasks.token_lock import TokenLockTask
from textgym.wrappers import ended

OUT = Path(__file__).resolve().parent.parent / "textgym" / "embedded" / "references.json"
EPISODES, ROWS, SEED = 512, 64, 0
SPLIT = "test"
PACKAGES = ("textgym", "numpy", "tokenizers")
BUNDLED_PACKAGES = ("torch", "transformers")


def measure(row: EnvRow, episodes: int, seed: int) -> Reference:
    """The reference returns of `row`."""
    envs = gym.make_vec(
        row.id,
        num_envs=min(ROWS, episodes),
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.SAME_STEP,
        split=SPLIT,
    )
    task, tokenizer = envs.task, envs.tokenizer
    versions = {name: version(name) for name in PACKAGES} | {"tokenizer": tokenizer.hash}
    reference = Reference(level=1, seed=seed, versions=versions)
    if not task.scored:
        reason = "no score of its own: all reward comes from what is added"
        return dataclasses.replace(reference, notes=dict.fromkeys(ANCHORS, reason))
    found: dict[str, Estimate] = {}
    notes: dict[str, str] = {}
    found["random"] = Estimate.of(random_scores(envs, episodes, seed), np.random.default_rng(seed))
    if task.has_oracle:
        scores = oracle_scores(envs, episodes, seed)
        found["oracle"] = Estimate.of(scores, np.random.default_rng(seed))
    else:
        notes["oracle"] = "the task has none"
    if row.bridged:
        notes["bundled"] = "not measured in environments of other packages"
    elif tokenizer.hash != textgym.Tokenizer.load().hash:
        notes["bundled"] = "the environment has a vocabulary of its own"
    else:
        scores = bundled_scores(row.id, episodes, seed)
        found["bundled"] = Estimate.of(scores, np.random.default_rng(seed))
        versions |= {name: version(name) for name in BUNDLED_PACKAGES}
        versions["bundled"] = bundled_hash()
    found |= exact_returns(task, episodes, seed)
    if "optimal" not in found:
        notes["optimal"] = "not computed; no score is above 1"
    return dataclasses.replace(reference, **found, notes=notes)


def random_scores(envs: Any, episodes: int, seed: int) -> list[float]:
    """Scores of uniformly random tokens.

    Every row plays its share, so that short episodes are not over-represented.
    """
    quota = [len(range(row, episodes, envs.num_envs)) for row in range(envs.num_envs)]
    scores: list[list[float]] = [[] for _ in quota]
    rng = np.random.default_rng(seed)
    envs.reset(seed=seed)
    while any(len(s) < q for s, q in zip(scores, quota, strict=True)):
        actions = rng.integers(envs.single_action_space.n, size=envs.num_envs)
        infos = envs.step(actions)[4]
        where, rows = ended(infos, AutoresetMode.SAME_STEP)
        for row in rows:
            if len(scores[row]) < quota[row]:
                scores[row].append(float(where["score"][row]))
    return [score for row in scores for score in row]


def oracle_scores(envs: Any, episodes: int, seed: int) -> list[float]:
    """Scores of the oracle."""
    task = envs.task
    return [
        task.score(demonstrate(task, instance, envs.tokenizer))
        for instance in instances(task, episodes, seed)
    ]


def instances(task: Task, episodes: int, seed: int) -> Iterator[Instance]:
    """Those of the test split that the first row of a vector env is asked."""
    return (task.draw(instance_rng(seed, SPLIT, 0, i), SPLIT) for i in range(episodes))


def bundled_scores(env_id: str, episodes: int, seed: int) -> list[float]:
    """Scores of the bundled model."""
    # Imported here: environments alone need no torch.
    import torch

    from textgym_agents.lm import BUNDLED
    from textgym_agents.sb3 import LMPolicy, evaluate, make_vec_env

    torch.set_num_threads(1)
    envs = make_vec_env(env_id, n_envs=min(ROWS, episodes), split=SPLIT, seed=seed)
    policy = LMPolicy(
        envs.observation_space,
        envs.action_space,
        lambda remaining: 0.0,
        model=BUNDLED,
        temperature=1.0,
        kl_coef=0.0,
    )
    result = evaluate(policy, envs, episodes, seed=seed)
    task = envs.envs.unwrapped.task
    envs.close()
    return [task.score(episode) for episode in result.episodes]


def bundled_hash() -> str:
    """Tells one bundled model from another."""
    from textgym_agents.lm import BUNDLED

    return hashlib.sha256((BUNDLED / "model.safetensors").read_bytes()).hexdigest()[:16]


def exact_returns(task: Task, episodes: int, seed: int) -> dict[str, Estimate]:
    """What can be computed: of a `TokenLock`, and of tasks that know the value of best play."""
    if isinstance(task, TokenLockTask):
        graph = lock_graph(task)
        return {
            "random": Estimate.exact(evaluate_exactly(graph).expected_return),
            "optimal": Estimate.exact(optimum(graph).expected_return),
        }
    if hasattr(task, "optimal_value"):
        values = [task.optimal_value(instance) for instance in instances(task, episodes, seed)]
        return {"optimal": Estimate.of(values, np.random.default_rng(seed))}
    return {}


def is_installed(row: EnvRow) -> bool:
    """Whether the package that `row` bridges to is there."""
    try:
        version(row.extra or "textgym")
    except PackageNotFoundError:
        return False
    return True


def write(records: dict[str, Any]) -> None:
    """Replace the file as a whole."""
    part = OUT.with_name(OUT.name + ".part")
    text = json.dumps(dict(sorted(records.items())), indent=1) + "\n"
    part.write_text(text, encoding="utf-8")
    os.replace(part, OUT)


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """Means and intervals to six digits: what lies behind them is noise."""
    return {
        key: {k: round(v, 6) for k, v in value.items()} if key in ANCHORS and value else value
        for key, value in record.items()
    }


def line(env_id: str, reference: Reference, seconds: float) -> str:
    """What was found, for a person."""
    cells = []
    for name in ANCHORS:
        value: Estimate | None = getattr(reference, name)
        cells.append(
            f"{name} none"
            if value is None
            else f"{name} {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"
        )
    return f"{env_id}: {', '.join(cells)} ({seconds:.1f} s)"


def chosen_rows(only: list[str] | None, bridged: bool) -> list[EnvRow]:
    """The rows that are asked for."""
    unknown = sorted(set(only or ()) - set(REGISTRY))
    if unknown:
        raise SystemExit(f"no environment {unknown[0]!r}; `textgym list` names them")
    if only:
        return [REGISTRY[env_id] for env_id in only]
    rows = [REGISTRY[env_id] for env_id in textgym.list_ids()]
    return [row for row in rows if not row.bridged or (bridged and is_installed(row))]


def main() -> None:
    """Read the arguments, measure, write after each environment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="ID", help="this id (repeatable)")
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--bridged", action="store_true", help="also those of other packages that are installed"
    )
    arguments = parser.parse_args()
    if arguments.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {arguments.episodes}")
    known = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    records = {env_id: record for env_id, record in known.items() if env_id in REGISTRY}
    failed = []
    for row in chosen_rows(arguments.only, arguments.bridged):
        start = time.perf_counter()
        try:
            reference = measure(row, arguments.episodes, arguments.seed)
        except Exception:  # of whatever kind, it must not cost the others their figures
            traceback.print_exc()
            failed.append(row.id)
            continue
        print(line(row.id, reference, time.perf_counter() - start), flush=True)
        records[row.id] = rounded(reference.to_json())
        write(records)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
