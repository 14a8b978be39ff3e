"""A comparison of results as tables and sentences in a terminal."""

from __future__ import annotations

import math

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textgym_agents.bench.compare import (
    ALPHA,
    BETTER,
    NOT_SHOWN,
    WORSE,
    Comparison,
    Pair,
    Row,
    cell_name,
)
from textgym_agents.cli.display import printable

_STYLES = {WORSE: "bold red", BETTER: "green", NOT_SHOWN: "dim"}
_DASH = "-"


def show(comparison: Comparison, console: Console) -> None:
    """Print all of it: scores, then what they cost, then what to know of the two."""
    for pair in comparison.pairs:
        console.print(scores_table(pair))
        console.print(_line(sentence(pair)), style=_STYLES[pair.result])
        console.print(costs_table(pair))
    for note in comparison.notes:
        console.print(_line(note))
    console.print(_line(explanation(comparison)), style="dim")


def sentence(pair: Pair) -> str:
    """What came of it, with the figures that say so.

    It ends in the names of what is worse and of what failed.
    """
    found = pair.overall.difference
    words = [f"{_names(pair)}: {pair.result}."]
    if found is None:
        words.append("No task has a run that is ok in both.")
    else:
        seeds = f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"
        words.append(
            f"{found.before:z.2f} in A, {found.after:z.2f} in B: {_difference(pair.overall)} with "
            f"{seeds}{', paired' if found.paired else ''}."
        )
        if math.isnan(found.p_value):
            words.append("A single seed says nothing of chance: no difference can be shown.")
    for result in (WORSE, BETTER):
        tasks = [str(row.task) for row in pair.tasks if row.result == result]
        if tasks:
            words.append(f"{result.capitalize()} on {', '.join(tasks)}.")
    if pair.failed:
        words.append(f"Failed in B: {', '.join(map(cell_name, pair.failed))}.")
    return " ".join(words)


def explanation(comparison: Comparison) -> str:
    """How to read the tables."""
    tests = sum(not math.isnan(row.p_value) for pair in comparison.pairs for row in pair.tasks)
    agents = len(comparison.pairs)
    corrected = f", those of tasks corrected for {tests} tests" if tests > 1 else ""
    corrected += f", those of all for {agents}" if agents > 1 else ""
    corrected += " (Holm)" if corrected else ""
    return (
        "Scores: 0 is a random policy, 1 the oracle. Differences are B less A, with their 95% "
        "interval over seeds, of that row alone. Better and worse go by p (Student's t, two-sided, "
        f"below {ALPHA}{corrected}): with few seeds an interval of one task is too narrow. No "
        "difference shown does not mean that there is none."
    )


def scores_table(pair: Pair) -> Table:
    """A row for each task, and one for all."""
    table = Table(box=box.SIMPLE_HEAD, title=_line(_names(pair)), title_justify="left")
    table.add_column("task")
    for name in ("A", "B", "B - A", "p"):
        table.add_column(name, justify="right")
    table.add_column("result")
    for row in pair.tasks:
        table.add_row(*_score_cells(row))
    table.add_section()
    table.add_row(*_score_cells(pair.overall))
    return table


def costs_table(pair: Pair) -> Table:
    """Speed and memory, for information: they make nothing worse."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task")
    for name in ("tokens/s A", "B", "change", "MB A", "B", "change"):
        table.add_column(name, justify="right")
    for row in pair.rows:
        if row is pair.overall:
            table.add_section()
        cells = []
        for name in ("tokens_per_second", "peak_mb"):
            before, after = (getattr(costs, name) for costs in row.costs)
            change = _DASH
            if before and after is not None:
                change = f"{after / before - 1:+.0%}"
            cells += [_count(before), _count(after), change]
        table.add_row(_line(row.task or "all"), *cells)
    return table


def _score_cells(row: Row) -> list[Text | str]:
    found, result = row.difference, Text(row.result, _STYLES[row.result])
    name = _line(row.task or "all")
    if found is None:
        return [name, _DASH, _DASH, _DASH, _DASH, result]
    p_value = _DASH if math.isnan(row.p_value) else _p(row.p_value)
    scores = [f"{found.before:z.2f}", f"{found.after:z.2f}"]
    return [name, *scores, _difference(row), p_value, result]


def _difference(row: Row) -> str:
    found = row.difference
    if found is None:
        return _DASH
    ends = "" if math.isnan(found.low) else f" [{found.low:+z.2f}, {found.high:+z.2f}]"
    return f"{found.value:+z.2f}{ends}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.0f}"


def _names(pair: Pair) -> str:
    one, other = pair.names
    return one if one == other else f"{one} (A) against {other} (B)"


def _line(text: str) -> Text:
    """Text of others' making: never markup, and without what moves a terminal's cursor."""
    return Text(printable(text).replace("\n", "\N{REPLACEMENT CHARACTER}"))
