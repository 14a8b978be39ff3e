"""What reinforcement learning adds to the bundled model, environment by environment.

    python benchmarks/suite.py --runs runs/suite --jobs 2     # all, one thread each
    python benchmarks/suite.py --runs runs/suite --only textgym/Dialogue-v0

Each cell is one `textgym train` with its defaults, but for the learning rate, on at most half a
million tokens that the model writes itself. Scores are sampled at temperature 1 on held-out prompts
before and after, and normalised by the reference returns of `textgym.scoring`. A cell that is done
is not run again; one that was killed is continued. Writes benchmarks/results/suite.json and prints
the table; what is in the file and not asked for stays.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from textgym.registration import REGISTRY
from textgym.scoring import references

RESULTS = Path(__file__).resolve().parent / "results" / "suite.json"
MOST_TIMESTEPS = 500_000
LEARNING_RATE = 5e-4
EVAL_EPISODES = 512
# Three seeds each of those that cost least.
THREE_SEEDS = tuple(
    f"textgym/{name}-v0"
    for name in ("Story", "Translation", "DataToText", "KeywordsToSentence", "Summarization")
)


def cells(only: list[str]) -> list[tuple[str, int]]:
    """(id, seed) of every run: all first seeds before the second ones."""
    ids = [
        id
        for id, row in REGISTRY.items()
        if not row.bridged and row.task_class().has_oracle and references()[id].bundled is not None
    ]
    chosen = [id for id in ids if not only or id in only]
    firsts = sorted(chosen, key=lambda id: id not in THREE_SEEDS)
    return [
        *((id, 0) for id in firsts),
        *((id, seed) for seed in (1, 2) for id in firsts if id in THREE_SEEDS),
    ]


def command(id: str, seed: int, folder: Path, timesteps: int) -> list[str]:
    """The command line of one cell, as a user types it."""
    return [
        *("textgym", "train", id, "--model", "bundled"),
        *("--timesteps", str(timesteps), "--learning-rate", str(LEARNING_RATE)),
        *("--seed", str(seed), "--threads", "1", "--eval-episodes", str(EVAL_EPISODES)),
        *("--out", str(folder), "--resume"),
    ]


def run(id: str, seed: int, runs: Path, timesteps: int) -> dict[str, Any]:
    """Train one cell; its figures."""
    folder = runs / f"{id.removeprefix('textgym/')}-{seed}"
    typed = command(id, seed, folder, timesteps)
    if not _is_finished(folder, timesteps):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".log").open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "textgym_agents.cli", *typed[1:]],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
    if not _is_finished(folder, timesteps):
        return {"id": id, "seed": seed, "failed": f"see {folder.with_suffix('.log')}"}
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    reference = references()[id]

    def normal(score: float) -> float:
        return (score - reference.random.mean) / (reference.oracle.mean - reference.random.mean)

    found: dict[str, Any] = {"id": id, "seed": seed}
    for stage in ("before", "after"):
        found[stage] = round(normal(record[f"score_{stage}"]), 4)
        found[f"greedy_{stage}"] = round(normal(record[f"score_greedy_{stage}"]), 4)
    keys = ("timesteps", "train_seconds", "tokens_per_s", "kl_per_token", "versions")
    return found | {key: record[key] for key in keys} | {"command": " ".join(typed)}


def _is_finished(folder: Path, timesteps: int) -> bool:
    file = folder / "run.json"
    if not file.is_file():
        return False
    record = json.loads(file.read_text(encoding="utf-8"))
    return record["status"] == "finished" and record["timesteps"] >= timesteps


def table(found: list[dict[str, Any]]) -> str:
    """One line an environment, in Markdown: means over its seeds."""
    lines = [
        "| environment | seeds | before | after | gain (least) | greedy before | greedy after | "
        "KL, nats a token | tokens | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = []
    for id in sorted({cell["id"] for cell in found}):
        done = [c for c in found if c["id"] == id and "after" in c]
        if not done:
            rows.append((0.0, f"| `{id}` | 0 | failed |  |  |  |  |  |  |  |"))
            continue

        def mean(key: str, done: list[dict[str, Any]] = done) -> float:
            return statistics.fmean(cell[key] for cell in done)

        gains = [cell["after"] - cell["before"] for cell in done]
        figures = " | ".join(
            [
                str(len(done)),
                f"{mean('before'):.3f}",
                f"{mean('after'):.3f}",
                f"{statistics.fmean(gains):+.3f} ({min(gains):+.3f})",
                f"{mean('greedy_before'):.3f}",
                f"{mean('greedy_after'):.3f}",
                f"{mean('kl_per_token'):.3f}",
                f"{max(cell['timesteps'] for cell in done):,}",
                f"{mean('train_seconds') / 60:.1f}",
            ]
        )
        rows.append((-statistics.fmean(gains), f"| `{id}` | {figures} |"))
    return "\n".join([*lines, *(line for _, line in sorted(rows))])


def write(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge `found` into the results file; all that is in it then."""
    before = json.loads(RESULTS.read_text(encoding="utf-8"))["cells"] if RESULTS.is_file() else []
    merged = {(cell["id"], cell["seed"]): cell for cell in [*before, *found]}
    cells = [merged[key] for key in sorted(merged)]
    about = {
        "learning_rate": LEARNING_RATE,
        "eval_episodes": EVAL_EPISODES,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    text = json.dumps({"about": about, "cells": cells}, indent=2) + "\n"
    partial = RESULTS.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(RESULTS)
    return cells


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--only", action="append", default=[], metavar="ID")
    parser.add_argument("--seeds", type=int, default=3, help="at most this many")
    parser.add_argument("--timesteps", type=int, default=MOST_TIMESTEPS, help="tokens of a run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a thread each")
    arguments = parser.parse_args()
    for id in arguments.only:
        if id not in REGISTRY:
            parser.error(f"no environment {id!r}")
    wanted = [(id, seed) for id, seed in cells(arguments.only) if seed < arguments.seeds]
    found = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        waiting = [
            pool.submit(run, id, seed, arguments.runs, arguments.timesteps) for id, seed in wanted
        ]
        for future in concurrent.futures.as_completed(waiting):
            cell = future.result()
            found.append(cell)
            print(cell.get("failed") or f"{cell['before']:.3f} -> {cell['after']:.3f}", end="  ")
            print(f"{cell['id']} seed {cell['seed']}", flush=True)
            everything = write(found)
    print(table(everything))


if __name__ == "__main__":
    main()
