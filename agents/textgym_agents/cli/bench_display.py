"""What a person sees while a suite runs: the cells that run, those that ended, what is left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from textgym_agents.bench.cells import Cell
from textgym_agents.bench.records import ANCHORS, Record, mean_return
from textgym_agents.bench.runner import Observer
from textgym_agents.cli.display import printable

_REFRESH = 0.25


class BenchDisplay(Observer):
    """Live progress in a terminal; a line a cell where the output is a file.

    Args:
        console: where to write.
        jobs: cells that run at once.
    """

    def __init__(self, console: Console, jobs: int) -> None:
        self.console = console
        self.jobs = jobs
        self.waiting: dict[Cell, None] = {}
        self.running: dict[Cell, float] = {}
        self.total = self.done = self.failed = 0
        self._took: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self._refreshed = 0.0
        # Refreshed by `ticks`: a thread beside the one that starts processes is asking for trouble.
        self._live = Live(
            console=console, get_renderable=self._render, auto_refresh=False, transient=True
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    # ------------------------------------------------------------------ events
    def begins(self, cells: Sequence[Cell], done: int) -> None:
        """Say how many cells there are."""
        self.waiting = dict.fromkeys(cells)
        self.total = len(cells)
        known = f"; {done} done already" if done else ""
        cell_s = "cell" if len(cells) == 1 else "cells"
        self.note(f"{len(cells)} {cell_s} to run, {self.jobs} at a time{known}.")

    def starts(self, cell: Cell) -> None:
        """Show it among the running."""
        self.waiting.pop(cell, None)
        self.running[cell] = time.monotonic()

    def ends(self, cell: Cell, record: Record, log: Path | None, again: bool) -> None:
        """Say what came of it."""
        seconds = time.monotonic() - self.running.pop(cell)
        if again:
            self.waiting[cell] = None
        elif record["status"] == "ok":
            self.done += 1
        else:
            self.failed += 1
        if record["status"] == "ok":
            for key in _alike(cell):
                self._took[key].append(seconds)
        place = f"{self.done + self.failed}/{self.total}"
        if record["status"] != "ok":
            reason = " ".join((record["error"] or "").split())
            retried = "; will be tried again" if again else ""
            where = f" ({log})" if log is not None else ""
            self.note(f"{place}  {cell}  {record['status']}: {reason}{retried}{where}")
        elif not self.console.is_terminal:
            figures = f"mean return {mean_return(record):.3f}"
            self.note(f"{place}  {cell}  ok  {duration(seconds)}  {figures}  {self._left_text()}")

    def note(self, text: str) -> None:
        """Print a line, above the progress."""
        self.console.print(Text(printable(text)), soft_wrap=True)

    def ticks(self) -> None:
        """Refresh what is live, a few times a second."""
        now = time.monotonic()
        if self.console.is_terminal and now - self._refreshed >= _REFRESH:
            self._refreshed = now
            self._live.refresh()

    # ------------------------------------------------------------------ what is left
    def seconds_left(self) -> float | None:
        """An estimate, by the cells most like each that have ended; None before there are any."""
        now = time.monotonic()
        left = 0.0
        for cell in (*self.waiting, *self.running):
            took = next((self._took[key] for key in _alike(cell) if key in self._took), None)
            if took is None:
                return None
            elapsed = now - self.running.get(cell, now)
            left += max(0.0, fmean(took) - elapsed)
        return left / min(self.jobs, max(1, len(self.waiting) + len(self.running)))

    def _left_text(self) -> str:
        left = self.seconds_left()
        return "" if left is None else f"about {duration(left)} left"

    def _render(self) -> Group:
        summary = Table.grid(padding=(0, 2))
        ended = self.done + self.failed
        failed = Text(f"{self.failed} failed", style="red" if self.failed else "dim")
        summary.add_row(
            ProgressBar(total=max(1, self.total), completed=ended, width=30),
            f"{self.done} of {self.total} done",
            failed,
            self._left_text(),
        )
        rows = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for cell, started in self.running.items():
            rows.add_row(Text(printable(str(cell)), style="cyan"), duration(now - started))
        return Group(summary, rows)


def _alike(cell: Cell) -> tuple[tuple[str, ...], ...]:
    """Groups of cells that take about as long as `cell`, the most alike first."""
    if cell.agent in ANCHORS:
        return (cell.task.name, cell.agent), (cell.agent,), ("anchors",)
    return (cell.task.name, cell.agent), (cell.agent,), ("agents",)


def duration(seconds: float) -> str:
    """``"42 s"``, ``"3 min 05 s"`` or ``"2 h 07 min"``.

    >>> duration(185.2)
    '3 min 05 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
