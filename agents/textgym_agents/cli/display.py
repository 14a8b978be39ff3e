"""What a person sees: progress while training, and texts before and after side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# In a log file: this many lines, evenly over the run.
_LINES = 20


@dataclass(frozen=True)
class Sample:
    """One held-out prompt, and what the model wrote before and after training."""

    prompt: str
    before: str
    after: str
    reward_before: float
    reward_after: float


def printable(text: str) -> str:
    """`text` without characters that would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() or c in "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def number(value: float | None, digits: int = 3) -> str:
    """`value` for a table; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


class TrainingDisplay:
    """Live progress in a terminal; a line every now and then where the output is a file.

    Args:
        console: where to write.
        total: tokens (or what else `unit` says) the run is to train for.
        done: those it was trained for already, when resumed.
        unit: what is counted.
    """

    def __init__(self, console: Console, total: int, done: int = 0, unit: str = "tokens") -> None:
        self.console = console
        self.unit = unit
        self.total = total
        self.done = self._first = done
        self.figures: dict[str, str] = {f"{unit}/s": "-"}
        self._lines = 0
        self._paused = 0.0
        self._mark: tuple[int, float] | None = None
        self._started = time.perf_counter()
        self._progress = Progress(
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit}"),
            TextColumn("·"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self._task = self._progress.add_task("", total=total, completed=done)
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    # ------------------------------------------------------------------ time
    def not_training(self, seconds: float) -> None:
        """Leave `seconds`, spent on evaluation, out of the training time."""
        self._paused += seconds

    @property
    def train_seconds(self) -> float:
        """Seconds of training in this session."""
        return time.perf_counter() - self._started - self._paused

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of training in this session, rollouts and updates together."""
        return (self.done - self._first) / max(self.train_seconds, 1e-9)

    # ------------------------------------------------------------------ events
    def advance(self, done: int) -> None:
        """`done` tokens have been written so far."""
        self.done = done
        self._progress.update(self._task, completed=min(done, self.total))

    def show(self, figures: Mapping[str, str]) -> None:
        """Replace the figures named in `figures`, and the speed, at the end of a rollout."""
        self.figures |= figures
        now = (self.done, self.train_seconds)
        # From the end of a rollout to the end of another: so that there is an update to each.
        if self._mark is None:
            self._mark = now
        elif now[1] > self._mark[1]:
            speed = (now[0] - self._mark[0]) / (now[1] - self._mark[1])
            self.figures[f"{self.unit}/s"] = f"{speed:,.0f}"
        lines = 1 + _LINES * self.done // self.total
        if not self.console.is_terminal and lines > self._lines:
            self._lines = lines
            share = min(1.0, self.done / self.total)
            self.console.print(
                f"{share:4.0%}  {self.done:,} {self.unit}  {self._figures()}", soft_wrap=True
            )

    def note(self, text: str) -> None:
        """Print a line above the progress."""
        self.console.print(Text(text), soft_wrap=True)

    def _figures(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in self.figures.items())

    def _render(self) -> Group:
        return Group(self._progress, Text(self._figures(), style="cyan"))


def before_and_after(samples: Sequence[Sample]) -> Table:
    """Texts before and after, side by side, each with its reward."""
    table = Table(box=box.ROUNDED, show_lines=True, expand=True, title="Held-out prompts")
    table.add_column("prompt", style="dim", ratio=2)
    table.add_column("before", ratio=3)
    table.add_column("after", ratio=3)
    for sample in samples:
        cells = [
            Text.assemble(
                printable(text.strip()) or "(nothing)", (f"\nreward {reward:.2f}", "bold cyan")
            )
            for text, reward in (
                (sample.before, sample.reward_before),
                (sample.after, sample.reward_after),
            )
        ]
        table.add_row(Text(printable(sample.prompt)), *cells)
    return table


def figures_table(rows: Sequence[tuple[str, float | None, float | None]]) -> Table:
    """Figures before and after: a name, and two numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("held-out prompts")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for name, before, after in rows:
        table.add_row(name, number(before), number(after))
    return table
