"""The cells of a run: which there are, and the command that runs one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textgym.suites import Suite, SuiteTask
from textgym_agents.bench.agents import is_import
from textgym_agents.bench.cell import describe, provenance
from textgym_agents.bench.records import ANCHORS, SCHEMA, Key, Record


@dataclass(frozen=True)
class Cell:
    """One agent on one task with one seed.

    Args:
        suite: the name of its suite.
        suite_hash: the hash.
        task: of the suite.
        agent: a name, or ``"package.module:make_agent"``.
        seed: of the agent.
        typed: the command that asked for it, as it was typed.
    """

    suite: str
    suite_hash: str
    task: SuiteTask = field(hash=False)  # which holds a dict
    agent: str
    seed: int
    typed: str = ""

    @property
    def key(self) -> Key:
        """As `records.key_of`."""
        return self.task.name, self.agent, self.seed

    def __str__(self) -> str:
        return f"{self.task.name}/{self.agent}/{self.seed}"

    @property
    def file_name(self) -> str:
        """The same without what file systems do not take; tells cells apart all the same."""
        parts = (self.task.name, self.agent, str(self.seed))
        escape = re.compile(r"[^\w.-]")
        return "+".join(escape.sub(lambda found: f"%{ord(found[0]):02x}", p) for p in parts)

    def failed(self, status: str, error: str, peak_mb: float | None, started: str) -> Record:
        """The record of a cell that left none.

        Args:
            status: as in a record, not ok.
            error: why, on one line.
            peak_mb: resident memory as far as it was seen, in 2^20 bytes.
            started: ISO time.
        """
        unknown = ("tokens", "train_seconds", "cpu_seconds", "eval_seconds", "returns")
        unknown += ("greedy_returns", "exact", "curve", "samples", "pictures", "deterministic")
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "suite_hash": self.suite_hash,
            "task": self.task.name,
            "env_id": self.task.env_id,
            "kwargs": dict(self.task.kwargs),
            "agent": self.agent,
            "agent_import": self.agent if is_import(self.agent) else None,
            "seed": self.seed,
            "status": status,
            "error": error,
            "attempts": 1,
            "budget": self.task.tokens,
            "peak_mb": peak_mb,
            **dict.fromkeys(unknown),
            "provenance": provenance(self.typed, started),
        }

    def description(self) -> dict[str, Any]:
        """What the process that runs it is given."""
        return describe(
            self.task,
            self.agent,
            self.seed,
            suite=self.suite,
            suite_hash=self.suite_hash,
            command=self.typed,
        )


Command = Callable[[Path], Sequence[str]]


def cell_command(record: Path) -> list[str]:
    """A command that reads the description of a cell and leaves the record in a file."""
    return [sys.executable, "-m", "textgym_agents.bench.cell", "--record", str(record)]


def cells_of(
    suite: Suite,
    agents: Sequence[str],
    seeds: Sequence[int],
    only: Iterable[str] = (),
    typed: str = "",
) -> list[Cell]:
    """The cells of a run, in their order: what is 0 and 1 on each task, then seed by seed.

    Args:
        suite: whose tasks.
        agents: names; the anchors need not be among them.
        seeds: of the agents. Anchors have one cell a task, of seed 0.
        only: names of tasks, to run these alone.
        typed: the command that asks for them.

    Raises:
        TypeError: the suite has no such task; lists near matches.
    """
    chosen = {suite.task(name).name for name in only}
    tasks = [task for task in suite.tasks if not chosen or task.name in chosen]
    learners = [agent for agent in dict.fromkeys(agents) if agent not in ANCHORS]
    cells = [(task, anchor, 0) for task in tasks for anchor in ANCHORS]
    cells += [
        (task, agent, seed) for seed in dict.fromkeys(seeds) for task in tasks for agent in learners
    ]
    return [Cell(suite.name, suite.hash, *cell, typed) for cell in cells]
