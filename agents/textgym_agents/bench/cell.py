"""One cell of a benchmark: one agent on one task with one seed, and the record of it.

    python -m textgym_agents.bench.cell --record cell.json < description.json

The description is a JSON object: `task` (as `SuiteTask.to_json` gives it), `agent` and `seed`, and
if wanted `suite`, `suite_hash`, `command` and `attempts`, which the record repeats. The record is
written to the file, whatever the agent prints; without ``--record`` it is the last line printed.
Exits with 0 where there is a record, whatever its status.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import random
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from textgym.errors import check_known
from textgym.suites import SuiteTask
from textgym_agents.bench.agents import AGENTS, find_agent, is_import, make_agent, needs_torch
from textgym_agents.bench.counting import (
    SAMPLES,
    Counting,
    InvalidActionError,
    OverBudgetError,
    sample_of,
)
from textgym_agents.bench.evaluation import Played, Reciter, play, takes_deterministic
from textgym_agents.bench.records import SCHEMA

PACKAGES = (
    "textgym",
    "gymnasium",
    "numpy",
    "tokenizers",
    "torch",
    "transformers",
    "stable-baselines3",
    "sb3-contrib",
)
# What a description may repeat to the record, and what it is where it is not given.
_REPEATED: Mapping[str, Any] = {"suite": "", "suite_hash": "", "command": "", "attempts": 1}
# Figures of a record that are not known until the cell has come to an end.
_UNKNOWN = ("tokens", "train_seconds", "cpu_seconds", "eval_seconds", "returns", "greedy_returns")
# Streams of random numbers apart from that of learning.
_SAMPLED, _GREEDY = 1, 2


def run_cell(
    task: SuiteTask,
    agent: str,
    seed: int,
    *,
    suite: str = "",
    suite_hash: str = "",
    command: str = "",
    attempts: int = 1,
) -> dict[str, Any]:
    """Let an agent learn a task, score it on held-out instances, and tell of it.

    Seeds the global generators of Python, numpy and torch, and sets torch to one thread: a cell
    should have a process of its own.

    Args:
        task: of a suite.
        agent: a name of `AGENTS`, or ``"package.module:function"``.
        seed: of all that the agent draws; the held-out instances are the same for every seed.
        suite, suite_hash, command, attempts: repeated in the record.

    Returns:
        The record, plain JSON values. What the agent raises is told in `status` and `error`.

    Raises:
        TypeError: no such agent by name; lists near matches.

    Example:
        >>> from textgym.suites import find_suite
        >>> task = find_suite("exact-quick").task("small-dense")
        >>> record = run_cell(task, "oracle", 0)
        >>> record["status"], min(record["returns"])
        ('ok', 1.0)
    """
    if not is_import(agent):
        check_known("agent", [agent], AGENTS)
    told = {"suite": suite, "suite_hash": suite_hash, "attempts": attempts}
    record = _blank(task, agent, seed) | told
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        record["exact"] = task.exact_returns()
        _fill(record, task, agent, seed)
    except (Exception, SystemExit) as error:
        record |= {"status": _status(error), "error": _one_line(error)}
        traceback.print_exc(file=sys.stderr)
    record["peak_mb"] = _peak_mb()
    record["deterministic"] = _deterministic()
    record["provenance"] = provenance(command, started)
    return record


def _blank(task: SuiteTask, agent: str, seed: int) -> dict[str, Any]:
    """A record in its order, before anything is known."""
    return {
        "schema": SCHEMA,
        "suite": "",
        "suite_hash": "",
        "task": task.name,
        "env_id": task.env_id,
        "kwargs": dict(task.kwargs),
        "agent": agent,
        "agent_import": agent if is_import(agent) else None,
        "seed": seed,
        "status": "ok",
        "error": None,
        "attempts": 1,
        "budget": task.tokens,
        **dict.fromkeys(_UNKNOWN),
        "peak_mb": None,
        "exact": None,
        "curve": [],
        "samples": [],
        "pictures": [],
        "deterministic": None,
        "provenance": None,
    }


# ---------------------------------------------------------------- learning and scoring
def _fill(record: dict[str, Any], task: SuiteTask, agent: str, seed: int) -> None:
    """Learn, score, and put the figures into `record` as soon as they are known."""
    if needs_torch(agent) and importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
    make = find_agent(agent)
    _seed_all(seed, 0)
    envs = Counting(task.make_envs("train"), task.tokens)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        learnt = make_agent(make, envs, task.tokens, seed)
    finally:
        record["tokens"] = envs.tokens
        record["train_seconds"] = round(time.perf_counter() - wall, 3)
        record["cpu_seconds"] = round(time.process_time() - cpu, 3)
        envs.close_curve()
        record["curve"], record["samples"] = envs.curve, envs.samples
    began = time.perf_counter()
    held_out = task.make_envs("test")
    instances = task.instances(held_out.task)
    _seed_all(seed, _SAMPLED)
    if callable(getattr(learnt, "decode", None)):
        speaker: Any = Reciter(learnt.decode(task, instances), held_out)
    else:
        speaker = learnt
    played = play(speaker, held_out, instances)
    record["returns"] = [one.total for one in played]
    if takes_deterministic(learnt):
        _seed_all(seed, _GREEDY)
        greedy = play(learnt, held_out, instances, deterministic=True)
        record["greedy_returns"] = [one.total for one in greedy]
    record["samples"] = record["samples"] + _held_out_samples(played, record["tokens"])
    if seed == 0:
        record["pictures"] = _pictures(learnt, played[:SAMPLES], held_out.tokenizer)
    record["eval_seconds"] = round(time.perf_counter() - began, 3)


def _held_out_samples(played: Sequence[Played], tokens: int) -> list[dict[str, Any]]:
    whole = [one for one in played[:SAMPLES] if one.episode is not None]
    return [{"stage": "held-out", **sample_of(one.episode, one.total, tokens)} for one in whole]


def _pictures(learnt: Any, played: Sequence[Played], tokenizer: Any) -> list[dict[str, Any]]:
    """Token by token, what an episode was paid and what the agent made of it."""
    found = []
    for one in played:
        if one.episode is None:
            continue
        figures: Mapping[str, Any] = {}
        if "torch" in sys.modules:
            from textgym_agents.bench.pictures import policy_figures

            figures = policy_figures(learnt, one)
        ids = one.episode.completion_ids.tolist()
        found.append(
            {
                "prompt": one.episode.prompt,
                "tokens": [tokenizer.backend.decode([i], skip_special_tokens=False) for i in ids],
                "rewards": one.rewards,
                **dict.fromkeys(("values", "advantages", "log_probs", "ref_log_probs")),
                **figures,
            }
        )
    return found


def _seed_all(seed: int, stream: int) -> None:
    """Seed the generators that agents draw on, as one of the streams of `seed`."""
    (number,) = np.random.SeedSequence((seed, stream)).generate_state(1).tolist()
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  # what others' agents draw on
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


# ---------------------------------------------------------------- what is told beside the figures
def _status(error: BaseException) -> str:
    kinds = {
        "invalid_action": InvalidActionError,
        "over_budget": OverBudgetError,
        "memory": MemoryError,
    }
    return next((name for name, kind in kinds.items() if isinstance(error, kind)), "crashed")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _peak_mb() -> float | None:
    """The largest resident memory of this process so far, where that is known."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _deterministic() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_initialized()
    return {"expected": not on_gpu, "why_not": "GPU kernels add in any order" if on_gpu else None}


def provenance(command: str, started: str) -> dict[str, Any]:
    """Where figures come from: packages, machine, time.

    Args:
        command: as a user types it.
        started: ISO time.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    return {
        "command": command,
        "started": started,
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": 1 if torch is None else torch.get_num_threads(),
    }


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---------------------------------------------------------------- a process of its own
def describe(task: SuiteTask, agent: str, seed: int, **repeated: Any) -> dict[str, Any]:
    """The description of a cell, as `main` reads it.

    Args:
        task, agent, seed: as for `run_cell`.
        repeated: `suite`, `suite_hash`, `command`, `attempts`.
    """
    check_known("argument", repeated, _REPEATED)
    return {"task": task.to_json(), "agent": agent, "seed": seed, **repeated}


def run_description(description: Mapping[str, Any]) -> dict[str, Any]:
    """The record of what `describe` describes; `TypeError` for unknown fields."""
    check_known("field", description, ("task", "agent", "seed", *_REPEATED))
    repeated = {key: description.get(key, usual) for key, usual in _REPEATED.items()}
    task = SuiteTask.from_json(description["task"])
    return run_cell(task, description["agent"], description["seed"], **repeated)


def main(argv: Sequence[str] | None = None) -> int:
    """Read a description, run it, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, help="write the record here")
    options = parser.parse_args(argv)
    # As for a script, so that an agent in the current folder is found.
    sys.path.insert(0, os.getcwd())
    line = json.dumps(run_description(json.load(sys.stdin)))
    if options.record is None:
        print(f"\n{line}", flush=True)
        return 0
    part = options.record.with_name(options.record.name + ".part")
    part.write_text(line + "\n", encoding="utf-8")
    part.replace(options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
