"""How agents and tasks are named on the page, and found by its filter."""

from __future__ import annotations

from textgym_agents.bench.report.charts import swatch
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.markup import shown


def agent_name(report: Report, agent: str) -> str:
    """Its name behind its line and marker, as in the charts."""
    place = report.agents.index(agent)
    return f'<span class="agent">{swatch(place)}<span class="name">{shown(agent)}</span></span>'


def tags(report: Report, agent: str | None = None, task: str | None = None) -> str:
    """The attributes by which the page's filter finds what belongs to an agent or a task."""
    found = ""
    if agent in report.agents:
        found += f' data-agent="{report.agents.index(agent)}"'
    if task in report.tasks:
        found += f' data-task="{report.tasks.index(task)}"'
    return found
