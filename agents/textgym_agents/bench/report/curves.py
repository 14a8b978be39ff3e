"""The third part of the page: performance profiles, and scores by tokens and by time."""

from __future__ import annotations

from collections.abc import Mapping

from textgym.statistics import Band
from textgym_agents.bench.report.charts import Chart, Line, draw, percent
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.markup import listed, shown

_LEVELS = [(1.0, "oracle"), (0.0, "random")]


def curves(report: Report) -> str:
    """The section, as HTML."""
    profiles = Chart(
        "Performance profiles",
        "score",
        "share of runs above",
        _lines(report, report.profiles, step=True),
        y_range=(0.0, 1.0),
        y_format=percent,
    )
    tokens = Chart(
        "Score by share of tokens",
        "share of the tokens",
        "score",
        _lines(report, report.learning),
        _LEVELS,
        x_format=percent,
    )
    seconds = Chart(
        "Score by seconds of training",
        "seconds of training",
        "score",
        _lines(report, report.clock),
        _LEVELS,
    )
    figures = [
        _figure(
            "Performance profiles",
            "The share of runs that score above each score. Higher is better; where lines cross, "
            "neither agent is better throughout.",
            profiles,
        ),
        _figure(
            "By tokens",
            "The interquartile mean of episodes in training, by the share of each task's tokens "
            "that is spent.",
            tokens,
        ),
        _figure(
            "By time",
            "The same by seconds of training. A run that is over keeps its last value.",
            seconds,
        ),
    ]
    return (
        '<section id="curves" aria-labelledby="curves-h"><h2 id="curves-h">Curves</h2>\n'
        f"<p>Bands are 95% intervals at each point on its own.{_without(report)}</p>\n"
        f'<div class="charts">{"".join(figures)}</div></section>\n'
    )


def _figure(title: str, text: str, chart: Chart) -> str:
    return f"<figure><figcaption><h3>{title}</h3>{text}</figcaption>{draw(chart)}</figure>"


def _lines(report: Report, bands: Mapping[str, Band], *, step: bool = False) -> list[Line]:
    place = report.agents.index
    return [
        Line(place(agent), agent, band.at, band.value, band.low, band.high, step=step)
        for agent, band in bands.items()
    ]


def _without(report: Report) -> str:
    """Which agents the curves leave out."""
    names = [shown(agent) for agent in report.agents if agent not in report.learning]
    if not names or not report.learning:
        return ""
    return f" Without a training curve on each task, and so not in all charts: {listed(names)}."
