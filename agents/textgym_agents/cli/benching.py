"""`textgym bench run`: all cells of a suite, with a display, and the scores at the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textgym.errors import check_known
from textgym.suites import SUITES, Suite
from textgym_agents.bench.agents import AGENTS, is_import
from textgym_agents.bench.cells import cell_command, cells_of
from textgym_agents.bench.own_suites import load_suite
from textgym_agents.bench.processes import Limits
from textgym_agents.bench.records import ANCHORS, Key, Record, Results, key_of
from textgym_agents.bench.results_file import ResultsFile
from textgym_agents.bench.runner import ENVIRONMENT, Runner, log_of
from textgym_agents.cli.bench_display import BenchDisplay
from textgym_agents.cli.display import number, printable
from textgym_agents.cli.errors import FAILED, CommandError, Stopped, bad_input, one_line

# The model as it is, the agent that most start with, and one without a critic.
DEFAULT_AGENTS = ("sample", "ppo", "grpo")
_PARTLY = "*"
# Others' code is imported in a process of its own: it may take much memory, and would keep it.
_IMPORT = """
import sys
from textgym_agents.bench.agents import find_agent
for agent in sys.argv[1:]:
    print(agent, flush=True)
    find_agent(agent)
"""


def listing() -> list[str]:
    """Suites with their tasks, then agents; a line each."""
    lines = ["Suites (--suite):"]
    width = max(map(len, [*SUITES, *AGENTS]))
    for suite in SUITES.values():
        tasks = ", ".join(task.name for task in suite.tasks)
        lines += [f"  {suite.name:{width}}  {suite.description}"]
        lines += [f"  {'':{width}}  {len(suite.seeds)} seeds; tasks {tasks}"]
    lines += ["", "Agents (--agent; * by default; random and oracle always run):"]
    for row in AGENTS.values():
        mark = "*" if row.name in DEFAULT_AGENTS else " "
        lines.append(f"{mark} {row.name:{width}}  {row.summary}")
    return lines


def chosen_suite(name: str, *, quick: bool = False) -> Suite:
    """The suite that `name` stands for, in its quick form if asked.

    Raises:
        TypeError: there is none; lists near matches.
        ImportError: a package that it needs is not installed.
    """
    suite = load_suite(name)
    suite = suite.quick() if quick else suite
    suite.check_installed()
    return suite


class BenchRun:
    """One call of `textgym bench run`.

    Args:
        suite: whose tasks.
        out: the folder of the results.
        agents: names or imports; None: `DEFAULT_AGENTS`.
        seeds: how many; None: the suite's.
        only: names of tasks, to run these alone.
        jobs: cells at a time.
        limits: of each cell.
        typed: the command as it was typed.

    Raises:
        TypeError: there is no such agent or task; lists near matches.
    """

    def __init__(
        self,
        suite: Suite,
        out: str,
        *,
        agents: Sequence[str] | None = None,
        seeds: int | None = None,
        only: Sequence[str] = (),
        jobs: int = 1,
        limits: Limits | None = None,
        typed: str = "textgym bench run",
    ) -> None:
        agents = DEFAULT_AGENTS if agents is None else tuple(agents)
        check_known("agent", [name for name in agents if not is_import(name)], AGENTS)
        own = suite.seeds if seeds is None else range(seeds)
        self.cells = cells_of(suite, agents, own, only, typed)
        self.out, self.suite, self.agents = out, suite, agents
        self.jobs, self.limits = jobs, limits
        self.typed = typed

    def run(self, console: Console) -> int:
        """Run what is missing, show progress and then the scores.

        Returns:
            How many cells failed.

        Raises:
            CommandError: bad input, or results that cannot be written.
            Stopped: Ctrl-C or SIGTERM.
        """
        results = ResultsFile(self.out, self.suite.name, self.suite.hash)
        with contextlib.ExitStack() as stack:
            with bad_input():
                stack.enter_context(results)
            display = BenchDisplay(console, self.jobs)
            runner = Runner(
                results,
                jobs=self.jobs,
                limits=self.limits,
                command=cell_command,
                observer=display,
            )
            try:
                if runner.missing(self.cells):
                    _check_imports(self.agents)
                with display:
                    records = runner.run(self.cells)
            except KeyboardInterrupt:
                raise Stopped(self._stopped(len(runner.missing(self.cells)))) from None
            except OSError as error:
                raise CommandError(
                    f"{one_line(error)}. What was written before is whole: make room, then run "
                    "the same command.",
                    FAILED,
                ) from error
            show_scores(Results(self._ordered(results.records)), console)
        failed = [record for record in records if record["status"] != "ok"]
        self._show_failed(console, failed)
        typed = shlex.join(["textgym", "bench", "report", self.out])
        console.print(f"\nNext: {typed}", soft_wrap=True, markup=False)
        return len(failed)

    def _ordered(self, records: Mapping[Key, Record]) -> tuple[Record, ...]:
        """Tasks as in the suite, agents as they were asked for, then those of other runs."""
        tasks = [task.name for task in self.suite.tasks]
        places = {cell.key: place for place, cell in enumerate(self.cells)}
        keys = sorted(records, key=lambda key: (tasks.index(key[0]), places.get(key, len(places))))
        return tuple(records[key] for key in keys)

    def _stopped(self, missing: int) -> str:
        return (
            f"stopped; {len(self.cells) - missing} of {len(self.cells)} cells are done, in "
            f"{self.out}. Continue with: {self.typed}"
        )

    def _show_failed(self, console: Console, failed: Sequence[Record]) -> None:
        if failed:
            console.print("\nFailed:")
        for record in failed:
            cell = next(cell for cell in self.cells if cell.key == key_of(record))
            console.print(
                Text(f"  {cell}: {failure(record)} ({log_of(self.out, cell)})"), soft_wrap=True
            )


def failure(record: Record) -> str:
    """The status of a failed cell and its reason, on one line."""
    reason = " ".join(printable(record["error"] or "").split())
    return f"{record['status']}: {reason}" if reason else str(record["status"])


def show_scores(results: Results, console: Console) -> None:
    """Normalised scores, agents by tasks: the mean over the seeds that are done."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("agent", overflow="fold")
    for task in results.tasks:
        table.add_column(Text(printable(task)), justify="right", overflow="fold")
    rows = {agent: _means(results, agent) for agent in (*results.agents, *ANCHORS)}
    for agent, cells in rows.items():
        table.add_row(Text(printable(agent)), *cells)
    lines = [
        f"\nNormalised scores on {results.suite}: 0 is random, 1 the oracle or the optimum.",
        table,
    ]
    if any(_PARTLY in cell for cells in rows.values() for cell in cells):
        lines.append(f"{_PARTLY} Without the seeds that failed or have not been run.")
    lines += [
        f"{task} has no scores: random or oracle failed, or they are equal."
        for task in results.tasks
        if results.anchors(task) is None
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=isinstance(line, str))


def _means(results: Results, agent: str) -> list[str]:
    """Mean scores of `agent`, a task each, as they are shown."""
    cells = []
    for column in results.scores(agent).T:
        known = column[~np.isnan(column)]
        partly = 0 < len(known) < len(column)
        mean = float(known.mean()) if len(known) else None
        cells.append(number(mean, 2) + (_PARTLY if partly else ""))
    return cells


def _check_imports(agents: Sequence[str]) -> None:
    """`CommandError` where the function of an agent that is to be imported is not found."""
    asked = [agent for agent in agents if is_import(agent)]
    if not asked:
        return
    typed = [sys.executable, "-c", _IMPORT, *asked]
    done = subprocess.run(
        typed,
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | ENVIRONMENT,
        check=False,
    )
    if done.returncode:
        # What it was at; the module may have printed something after that.
        agent = [name for name in asked if name in done.stdout.splitlines()][-1:] or asked
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise CommandError(f"--agent {agent[0]} cannot be imported: {printable(said)}")
