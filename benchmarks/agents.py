"""Every algorithm on a lock, on stories and on sums: the same tokens, three seeds each.

    python benchmarks/agents.py                          # all; goes on where it stopped
    python benchmarks/agents.py --agent ppo --jobs 2     # one of them, two cells at a time
    python benchmarks/agents.py --full                   # the suites' own budgets: a night
    python benchmarks/agents.py --table                  # the table of what there is, and its file

Three tasks of the suites `exact` and `core` of `textgym bench`, in their quick forms: a lock that
pays step by step, for a tiny model of random weights; Story and Arithmetic for the bundled model,
KL coefficient 0.02. Results lie in the folders of `textgym bench run --suite core --quick` and
`--suite exact --quick`, which may go on in them with other tasks. In the table, over seeds:

- score: normalised, 0 of random tokens and 1 of the oracle, or of the optimum (lock). Policies
  sample at temperature 1; dqn-topk takes its best action. greedy: the most probable token always.
- seconds: wall time of learning; CPU s: of the process, which is what to compare where cells run
  two at a time or beside something else.
- MB: the largest resident memory of a process, libraries and scoring included.

Needs `pip install "textgym[recipes]"`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from textgym.suites import find_suite
from textgym_agents.bench.agents import AGENTS
from textgym_agents.bench.processes import Limits
from textgym_agents.bench.records import Record, Results, read_results
from textgym_agents.cli.benching import BenchRun

RESULTS = Path(__file__).resolve().parent / "results" / "agents.json"
TASKS = {"exact": ("small-dense",), "core": ("story", "arithmetic")}
SEEDS = 3
# Searches that learn nothing are not algorithms to be compared here.
LEARNERS = tuple(n for n in AGENTS if n not in ("random", "oracle", "greedy", "beam", "best-of-n"))


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each agent on each task."""
    found = []
    for task in results.tasks:
        for agent in (a for a in AGENTS if a in results.agents):
            cells = [cell for cell in results.cells(task, agent) if cell["status"] == "ok"]
            if cells:
                found.append({"task": task, "agent": agent, **figures(results, cells)})
    return found


def figures(results: Results, cells: Sequence[Record]) -> dict[str, Any]:
    """Means over the seeds of one agent on one task, and the score of each."""
    scores = [results.score(cell) for cell in cells]
    greedy = [results.score(cell, greedy=True) for cell in cells]
    return {
        "score": round(statistics.mean(scores), 3),
        "seeds": [round(score, 3) for score in scores],
        "greedy": None if None in greedy else round(statistics.mean(greedy), 3),
        "tokens": round(statistics.mean(cell["tokens"] for cell in cells)),
        "seconds": round(statistics.mean(cell["train_seconds"] for cell in cells), 1),
        "cpu_seconds": round(statistics.mean(cell["cpu_seconds"] for cell in cells), 1),
        "peak_mb": round(max(cell["peak_mb"] for cell in cells)),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| task | agent | score | seeds | greedy | seconds | CPU s | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        each = ", ".join(f"{score:.2f}" for score in row["seeds"])
        greedy = "" if row["greedy"] is None else f"{row['greedy']:.2f}"
        lines.append(
            f"| {row['task']} | `{row['agent']}` | {row['score']:.2f} | {each} | {greedy} | "
            f"{row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {row['peak_mb']} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", action="append", choices=LEARNERS, help="repeatable")
    parser.add_argument("--suite", action="append", choices=TASKS, help="repeatable")
    parser.add_argument("--full", action="store_true", help="the suites' full budgets")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument(
        "--folder", type=Path, default=RESULTS.parent / "bench", help="a folder a suite lies in it"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table as JSON")
    return parser.parse_args()


def main() -> int:
    """Run what is missing; write and print the table."""
    options = arguments()
    failed, found, told = 0, [], {}
    for name in options.suite or TASKS:
        suite = find_suite(name) if options.full else find_suite(name).quick()
        folder = options.folder / suite.name
        if not options.table:
            plan = BenchRun(
                suite,
                str(folder),
                agents=options.agent or LEARNERS,
                seeds=SEEDS,
                only=TASKS[name],
                jobs=options.jobs,
                limits=Limits(3600.0, 8192.0),
                typed=" ".join(["python", *sys.argv]),
            )
            failed += plan.run(Console(highlight=False))
        if (folder / "results.jsonl").is_file():
            results = read_results(folder)
            found += [row for row in rows(results) if row["task"] in TASKS[name]]
            told[suite.name] = suite.hash
    record = {"suites": told, "rows": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
