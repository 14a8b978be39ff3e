"""`textgym fit-reward`: a reward model from labelled texts or preferences, and what it is worth."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from textgym_agents.cli.auditing import shortened
from textgym_agents.cli.display import TrainingDisplay
from textgym_agents.cli.errors import FAILED, CommandError, bad_input, is_disk_full
from textgym_agents.cli.run_folder import replace_folder, write_text
from textgym_agents.cli.training import versions
from textgym_agents.rewards.fit import Fit, FitOptions, fit, read
from textgym_agents.rewards.fit_plot import reliability_svg

REPORT = "fit_reward.json"
DIAGRAM = "calibration.svg"


def fit_reward(
    options: FitOptions, out: Path, console: Console, command: str, threads: int | None = None
) -> dict[str, Any]:
    """Fit a reward model into the folder `out`, and show what is known of it.

    Returns:
        What `fit_reward.json` holds.

    Raises:
        CommandError: for files that cannot be used, or a disk without room.
    """
    torch.set_num_threads(threads or 1)
    started = time.perf_counter()
    with bad_input():
        parts = read(options)
        console.print(
            f"{len(parts[0]):,} {'pairs' if parts[0].pairs else 'texts'} to learn from, "
            f"{len(parts[1]):,} to choose by, {len(parts[2]):,} to report on.",
            soft_wrap=True,
        )
        result = _fitted(options, parts, console)
    record = {
        "command": command,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "options": dataclasses.asdict(options),
        "seconds": round(time.perf_counter() - started, 1),
        **result.figures(),
    }
    _save(result, record, out)
    show(result, out, console)
    return record


def _fitted(options: FitOptions, parts: Any, console: Console) -> Fit:
    count = len(parts[0]) * options.most_epochs
    # The two models for best-of-n see half of the examples each.
    display = TrainingDisplay(console, 2 * count if options.best_of_n else count, unit="examples")
    starts = {"reward": 0, "proxy": count, "gold": count + count // 2}

    def progress(stage: str, done: int, figures: dict[str, float]) -> None:
        display.advance(starts[stage] + done)
        if figures:
            display.show({"fitting": stage} | {k: f"{v:.3f}" for k, v in figures.items()})

    with display:
        return fit(options, parts, progress)


def _save(result: Fit, record: dict[str, Any], out: Path) -> None:
    def fill(folder: Path) -> None:
        result.save(folder)
        write_text(folder / REPORT, json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
        title = f"Calibration on {record['examples']['reported']['count']:,} held-out examples"
        held_out = result.held_out
        write_text(folder / DIAGRAM, reliability_svg(held_out.before, held_out.after, title))

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(out, fill)
    except OSError as error:
        if not is_disk_full(error):
            raise CommandError(f"--out: {out} cannot be written: {error.strerror}") from error
        raise CommandError(f"no room left on the disk for {out}. Make some.", FAILED) from error


def plain(value: Any) -> Any:
    """`value` with floats rounded to 6 digits, and None for those that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if abs(value) < float("inf") else None
    return value


def show(result: Fit, out: Path, console: Console) -> None:
    """The result in the terminal."""
    for table in (_held_out(result), _calibration(result), _worthless(result)):
        console.print(table)
    style = "bold red" if result.overpaid.paid else ""
    console.print(Text(result.overpaid.means, style=style), soft_wrap=True)
    if result.curve:
        console.print(_best_of_n(result))
        console.print(result.curve_means, soft_wrap=True)
    else:
        console.print(f"No curve of best-of-n: {result.no_curve}.", soft_wrap=True)
    label = "" if result.label is None else f",label={result.label}"
    console.print(
        f"Model: {out}\nReport: {out / REPORT}\nDiagram: {out / DIAGRAM}\n"
        f'Pay it: --reward "classifier:{out}{label}"',
        soft_wrap=True,
        markup=False,
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _held_out(result: Fit) -> Table:
    found = result.held_out
    table = _table("Held-out examples", "", "before scaling", "calibrated")
    rows: list[tuple[str, Sequence[float | None]]] = [
        ("accuracy", [found.accuracy]),
        ("accuracy of guessing", [found.majority]),
        ("area under the ROC curve", [found.auc]),
        ("loss, nats", found.loss),
        ("expected calibration error", found.calibration_error),
    ]
    for name, values in rows:
        if None not in values:
            shown = [f"{value:.3f}" for value in values]
            table.add_row(name, *shown, *shown[: 2 - len(shown)])
    table.add_row("temperature", "", f"{result.temperature:.3f}")
    return table


def _calibration(result: Fit) -> Table:
    table = _table("Calibration", "predicted", "observed", "texts", "")
    for one in result.held_out.after:
        bar = "\N{FULL BLOCK}" * round(20 * one.observed)
        table.add_row(
            f"{one.predicted:.2f}", f"{one.observed:.2f}", str(one.count), Text(bar, style="cyan")
        )
    table.columns[-1].justify = "left"
    return table


def _worthless(result: Fit) -> Table:
    headings = ("text", "above 95% of positives", "mean", "most", "the best paid")
    table = _table("What it pays for worthless texts", *headings)
    table.columns[-1].justify = "left"
    for one in result.overpaid.findings:
        table.add_row(
            one.kind,
            f"{one.share_above:.0%}",
            f"{one.mean_score:.2f}",
            f"{one.best_score:.2f}",
            Text(shortened(one.best_text)[:60], style="dim"),
        )
    return table


def _best_of_n(result: Fit) -> Table:
    table = _table("Best of n, by a model of each half", "n", "KL", "proxy", "gold", "positive")
    for row in result.curve:
        positive = "-" if row.positive is None else f"{row.positive:.0%}"
        table.add_row(str(row.n), f"{row.kl:.2f}", f"{row.proxy:.2f}", f"{row.gold:.2f}", positive)
    return table
