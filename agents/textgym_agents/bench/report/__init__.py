"""The report of `textgym bench report`: one page of HTML, and the same figures as text."""

from __future__ import annotations

import os
from pathlib import Path

from textgym.errors import check_known
from textgym_agents.bench.records import read_results
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.export import agents_csv, cells_csv, markdown
from textgym_agents.bench.report.page import page

__all__ = ["write_report"]


def write_report(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    against: str | None = None,
) -> Path:
    """Write the results in `folder` as a page that needs no network, and next to it as text.

    Next to ``report.html`` lie ``report.md``, ``report-cells.csv`` (one row a cell) and
    ``report-agents.csv`` (one row an agent).

    Args:
        folder: the output of `textgym bench run`, or its ``results.jsonl``.
        out: the page; None is ``report.html`` in `folder`.
        against: the agent that others are first compared with; None is the best one.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError, ValueError: there are no results, or not of one suite.
        TypeError: `against` is not among the agents; lists near matches.
    """
    results = read_results(folder)
    if against is not None:
        check_known("agent", [against], results.agents)
    report = Report(results)
    file = Path(out) if out is not None else _beside(Path(folder))
    if against is None and report.ranked:
        against = report.ranked[0]
    texts = {
        file.with_name(f"{file.stem}.md"): markdown(report, against),
        file.with_name(f"{file.stem}-cells.csv"): cells_csv(report),
        file.with_name(f"{file.stem}-agents.csv"): agents_csv(report),
        file: page(report, against),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        _write(path, text)
    return file


def _beside(folder: Path) -> Path:
    return (folder if folder.is_dir() else folder.parent) / "report.html"


def _write(path: Path, text: str) -> None:
    """All or nothing, and the same bytes on every system."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
