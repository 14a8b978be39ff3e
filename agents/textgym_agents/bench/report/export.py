"""The same figures as text: Markdown for a README, and CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from textgym.statistics import Interval
from textgym_agents.bench.records import Record
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.leaderboard import COSTS, apart_sentence, exact_sentences
from textgym_agents.bench.report.markup import DASH, number, visible
from textgym_agents.bench.report.overview import STATUS_WORDS, not_repeatable, provenances

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>#|~&"})
CELL_FIELDS = (
    "suite",
    "suite_hash",
    "task",
    "env_id",
    "agent",
    "agent_import",
    "seed",
    "status",
    "error",
    "attempts",
    "budget",
    "tokens",
    "train_seconds",
    "cpu_seconds",
    "eval_seconds",
    "peak_mb",
)
_AGGREGATES = ("iqm", "mean", "median", "gap")


# ---------------------------------------------------------------- Markdown
def markdown(report: Report, against: str | None) -> str:
    """The page without its pictures and texts."""
    results = report.results
    known = provenances(results.records)
    lines = [f"# Benchmark {plain(results.suite)}", ""]
    lines += [f"- suite hash: {plain(results.suite_hash)}"]
    lines += [f"- seeds: {', '.join(str(seed) for seed in report.seeds)}"]
    for name in ("hardware", "software", "command"):
        lines += [f"- {name}: {plain(value)}" for value in known.get(name, [])]
    for why, agents in not_repeatable(report).items():
        names = ", ".join(plain(agent) for agent in agents)
        lines.append(f"- not expected to come out the same again: {names} ({plain(why)})")
    return "\n".join(
        [
            *lines,
            *_ranking(report, against),
            *_by_task(report),
            *_cost(report),
            *_failed(report),
            "",
        ]
    )


def plain(text: object) -> str:
    """`text` on one line of Markdown, as itself.

    >>> plain("<b>|_")
    '\\\\<b\\\\>\\\\|\\\\_'
    """
    return " ".join(visible(text).split()).translate(_SPECIAL)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    aligned = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(row)} |" for row in (heads, aligned, *rows)]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return DASH
    ends = f" ({number(interval.low)} to {number(interval.high)})" if interval.known else ""
    return f"{number(interval.value)}{ends}"


def _ranking(report: Report, against: str | None) -> list[str]:
    heads = ["agent", "interquartile mean", "mean", "median", "optimality gap"]
    heads += [f"better than {plain(against)}"] if against else []
    rows = [
        [
            plain(standing.agent),
            *(_interval(getattr(standing, name)) for name in _AGGREGATES),
            *([_interval(standing.better_than.get(against))] if against else []),
        ]
        for standing in report.standings
    ]
    lines = ["", "## Scores", "", "0 is random tokens, 1 the oracle or the exact optimum.", ""]
    lines += _table(heads, rows)
    if sentence := apart_sentence(report):
        lines += ["", plain(sentence)]
    for agent, tasks in report.unranked.items():
        names = ", ".join(plain(task) for task in tasks)
        lines += ["", f"{plain(agent)} is not ranked: no run of {names} ended well."]
    found = [f"- {plain(agent)} {plain(sentence)}" for agent, sentence in exact_sentences(report)]
    return [*lines, *([""] if found else []), *found]


def _by_task(report: Report) -> list[str]:
    rows = [
        [plain(agent), *(_interval(report.task_score(agent, task)) for task in report.tasks)]
        for agent in report.agents
    ]
    heads = ["agent", *(plain(task) for task in report.tasks)]
    return ["", "## By task", "", *_table(heads, rows)]


def _cost(report: Report) -> list[str]:
    rows = [
        [plain(agent), *(number(getattr(cost, field), digits) for _, field, digits in COSTS)]
        for agent, cost in report.costs.items()
    ]
    heads = ["agent", *(name.lower() for name, _, _ in COSTS)]
    return ["", "## Cost", "", "Means of the runs that ended well.", "", *_table(heads, rows)]


def _failed(report: Report) -> list[str]:
    lines = [
        f"- {plain(record['agent'])} on {plain(record['task'])}, seed {record['seed']}: "
        f"{STATUS_WORDS[record['status']]}. {plain(record['error'] or '')}".rstrip()
        for record in report.results.failed
    ]
    lines += [
        f"- {plain(agent)} on {plain(task)}, seed {seed}: no record."
        for task, agent, seed in report.missing
    ]
    return ["", "## Cells without figures", "", *lines] if lines else []


# ---------------------------------------------------------------- CSV
def cells_csv(report: Report) -> str:
    """One row a cell that has a record: anchors and failed cells too."""
    rows = [
        [*(record[name] for name in CELL_FIELDS), *_scores(report, record)]
        for record in report.results.records
    ]
    heads = [*CELL_FIELDS, "mean_return", "mean_greedy_return", "score", "greedy_score"]
    return _csv(heads, rows)


def agents_csv(report: Report) -> str:
    """One row an agent: scores over all tasks with the ends of their intervals, and costs."""
    ends = [f"{name}{end}" for name in _AGGREGATES for end in ("", "_low", "_high")]
    heads = ["agent", "seeds", *ends, "exact_share", "exact_share_low", "exact_share_high", "runs"]
    standings = {standing.agent: standing for standing in report.standings}
    rows = []
    for agent in report.agents:
        standing = standings.get(agent)
        found = [getattr(standing, name) if standing else None for name in _AGGREGATES]
        cost = report.costs[agent]
        rows.append(
            [
                agent,
                len(report.results.seeds(agent)),
                *(end for interval in found for end in _ends(interval)),
                *_ends(report.shares.get(agent)),
                cost.runs,
                *(getattr(cost, field) for _, field, _ in COSTS),
            ]
        )
    return _csv([*heads, *(field for _, field, _ in COSTS)], rows)


def _scores(report: Report, record: Record) -> list[float | None]:
    """Mean return and normalised score of a cell, sampling and greedy."""
    agent, task, seed = record["agent"], record["task"], record["seed"]
    means = [report.returns(agent, task, greedy=greedy).get(seed) for greedy in (False, True)]
    anchors = report.anchors.get(task)
    return means + [
        None if mean is None or anchors is None else anchors.normalized(mean) for mean in means
    ]


def _ends(interval: Interval | None) -> list[float | None]:
    if interval is None:
        return [None] * 3
    return [interval.value, *([interval.low, interval.high] if interval.known else [None, None])]


def _csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_field(value) for value in row] for row in rows)
    return text.getvalue()


def _field(value: Any) -> Any:
    """Text that a spreadsheet takes for text, though it may begin like a formula."""
    if not isinstance(value, str):
        return value
    found = visible(value)
    return f"'{found}" if found[:1] in ("=", "+", "-", "@", "\t") else found
