"""The page as a whole: one file that fetches nothing, and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources

from textgym_agents.bench.report.curves import curves
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.leaderboard import costs, leaderboard
from textgym_agents.bench.report.marks import agent_name
from textgym_agents.bench.report.markup import counted, shown
from textgym_agents.bench.report.overview import overview
from textgym_agents.bench.report.tasks import task_views

_PARTS = {
    "run": "What was run",
    "scores": "Scores",
    "curves": "Curves",
    "tasks": "Task by task",
    "cost": "Cost",
}


def page(report: Report, against: str | None = None) -> str:
    """The whole page.

    Args:
        report: what to tell.
        against: the agent that others are first compared with; None is the best one.
    """
    if against is None and report.ranked:
        against = report.ranked[0]
    style, script = _file("style.css"), _file("page.js")
    title = f"Benchmark {report.results.suite}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{shown(title)}</title>
<style>{style}</style></head>
<body><a class="skip" href="#main">Skip to the results</a>
<header>{_header(report)}</header>
{_tools(report)}
<main id="main">
{overview(report)}{leaderboard(report, against)}{curves(report)}{task_views(report)}{costs(report)}
</main>
<footer><p>Written by <code>textgym bench report</code>. Figures as in Agarwal et al., 2021,
<cite>Deep reinforcement learning at the edge of the statistical precipice</cite>.</p></footer>
<script>{script}</script>
</body></html>
"""


def summary(report: Report) -> str:
    """The result in two or three sentences of plain text."""
    found = []
    if report.standings:
        best = report.standings[0]
        found.append(
            f"{best.agent} has the best interquartile mean of scores, {best.iqm}, where 0 is "
            "random tokens and 1 the oracle."
        )
        near = [other.agent for one, other in report.not_told_apart if one is best]
        seeds = counted(best.iqm.seeds, "seed")
        found += [f"{seeds} do not tell it apart from {other}." for other in near]
    bad, none = len(report.results.failed), len(report.missing)
    if bad or none:
        found.append(f"{counted(bad, 'cell')} failed and {none:,} have no record.")
    return " ".join(sentence for sentence in found if sentence)


def _header(report: Report) -> str:
    links = "".join(f'<a href="#{place}">{name}</a>' for place, name in _PARTS.items())
    sizes = [
        counted(len(report.agents), "agent"),
        counted(len(report.tasks), "task"),
        counted(len(report.seeds), "seed"),
    ]
    return (
        '<div class="top"><p class="kind">TextGym benchmark</p>'
        '<button type="button" id="theme" hidden>Dark</button></div>\n'
        f"<h1>{shown(report.results.suite)}</h1>"
        f'<p class="sizes">{" · ".join(sizes)}</p>\n'
        f'<p class="lede">{shown(summary(report), 4_000)}</p>\n'
        f'<nav aria-label="Parts of the page">{links}</nav>'
    )


def _tools(report: Report) -> str:
    """The legend of all charts, which becomes the filter where there are scripts."""
    agents = "".join(
        f'<label><input type="checkbox" value="{place}" checked hidden>'
        f"{agent_name(report, agent)}</label>"
        for place, agent in enumerate(report.agents)
    )
    tasks = "".join(
        f'<option value="{place}">{shown(task, 40)}</option>'
        for place, task in enumerate(report.tasks)
    )
    return (
        '<form class="tools" aria-label="Agents and tasks shown">'
        f'<fieldset id="agents"><legend>Agents</legend>{agents}</fieldset>'
        '<div class="choice" hidden><label>Task <select id="task">'
        f'<option value="">all</option>{tasks}</select></label>'
        '<button type="reset">Show all</button></div>'
        '<p role="status" class="visually-hidden" id="status"></p></form>'
    )


def _policy(style: str, script: str) -> str:
    """What the page may do: use this style sheet, and run this script."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    file = importlib.resources.files("textgym_agents.bench.report") / name
    return file.read_text(encoding="utf-8")
