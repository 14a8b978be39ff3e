"""The first part of the page: what was run, where, how, and what did not end well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textgym_agents.bench.records import Record
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.marks import tags
from textgym_agents.bench.report.markup import (
    counted,
    figure_cell,
    heading,
    listed,
    shown,
    table,
)

# Others are counted, and are in the CSV file.
_MOST_MISSING = 30
STATUS_WORDS = {
    "crashed": "crashed",
    "timeout": "ran out of time",
    "memory": "ran out of memory",
    "invalid_action": "chose what is no action",
    "over_budget": "took more tokens than its budget",
    "killed": "was killed",
}


def overview(report: Report) -> str:
    """The section, as HTML."""
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _facts(report))
    return (
        '<section id="run" aria-labelledby="run-h"><h2 id="run-h">What was run</h2>\n'
        f'<dl class="facts">{facts}</dl>\n{_warnings(report)}{_tasks(report)}'
        f"{_failed(report)}{_missing(report)}</section>\n"
    )


def provenances(records: Iterable[Record]) -> dict[str, list[str]]:
    """Every value that `command`, `hardware`, `software` and `started` have, in their order."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        known = record["provenance"]
        values = {
            "command": known.get("command"),
            "hardware": _hardware(known),
            "software": _software(known),
            "started": known.get("started"),
        }
        for name, value in values.items():
            if value:
                found.setdefault(name, {})[str(value)] = None
    return {name: list(values) for name, values in found.items()}


def not_repeatable(report: Report) -> dict[str, list[str]]:
    """Why cells are not expected to come out the same again, and the agents it is true of."""
    found: dict[str, dict[str, None]] = {}
    for record in report.results.records:
        known = record["deterministic"]
        if known is not None and not known.get("expected"):
            why = str(known.get("why_not") or "no reason was recorded")
            found.setdefault(why, {})[record["agent"]] = None
    return {why: list(agents) for why, agents in found.items()}


# ---------------------------------------------------------------- the parts
def _facts(report: Report) -> list[tuple[str, str]]:
    results = report.results
    cells = [record for record in results.records if record["agent"] in results.agents]
    ok = sum(record["status"] == "ok" for record in cells)
    known = provenances(results.records)
    started = sorted(known.get("started", []))
    description = f" {shown(report.suite.description)}" if report.suite else ""
    seeds = listed([str(seed) for seed in report.seeds])
    return [
        ("Suite", f"<strong>{shown(results.suite)}</strong>.{description}"),
        ("Suite hash", f"<code>{shown(results.suite_hash)}</code>"),
        ("Agents", listed([_agent(report, agent) for agent in report.agents])),
        ("Seeds", seeds),
        ("Cells", f"{ok:,} of {len(cells) + len(report.missing):,} ended well"),
        ("Tokens", _tokens(report)),
        ("Hardware", _lines(known.get("hardware", []))),
        ("Software", _lines(known.get("software", []))),
        ("Started", shown(" to ".join(dict.fromkeys([*started[:1], *started[-1:]])))),
        ("Deterministic", _deterministic(report)),
        ("Command", _lines(known.get("command", []), "code")),
    ]


def _agent(report: Report, agent: str) -> str:
    """Its name, and what makes it where that is not of this package."""
    for record in report.results.records:
        if record["agent"] == agent and record["agent_import"] not in (None, agent):
            return f"{shown(agent)} (<code>{shown(record['agent_import'])}</code>)"
    return shown(agent)


def _tokens(report: Report) -> str:
    budgets = sorted({report.budgets[task] for task in report.tasks})
    each = f"{budgets[0]:,}" + (f" to {budgets[-1]:,}" if len(budgets) > 1 else "")
    learnt = sum(record["tokens"] or 0 for record in report.results.records)
    return f"{each} a run; {learnt:,} in all"


def _lines(values: Sequence[str], tag: str = "span") -> str:
    return "<br>".join(f"<{tag}>{shown(value)}</{tag}>" for value in values) or "not recorded"


def _hardware(known: Mapping[str, Any]) -> str:
    cores, threads = known.get("cores"), known.get("threads")
    parts = [
        known.get("cpu"),
        known.get("machine"),
        counted(cores, "core") if isinstance(cores, int) else None,
        f"{counted(threads, 'thread')} a run" if isinstance(threads, int) else None,
    ]
    return ", ".join(str(part) for part in parts if part)


def _software(known: Mapping[str, Any]) -> str:
    versions = known.get("versions") or {}
    python = [f"Python {known['python']}"] if known.get("python") else []
    return ", ".join([*python, *(f"{name} {version}" for name, version in versions.items())])


def _deterministic(report: Report) -> str:
    reasons = not_repeatable(report)
    if not reasons:
        return "Every cell is expected to come out the same when it is run again."
    return "Not expected to come out the same again: " + "; ".join(
        f"{listed([shown(agent) for agent in agents])} ({shown(why)})"
        for why, agents in reasons.items()
    )


def _warnings(report: Report) -> str:
    """What makes the figures less than they seem."""
    found = []
    if report.suite is not None and not report.same_suite:
        found.append(
            f"The suite {shown(report.results.suite)} of the installed textgym has another hash, "
            f"<code>{shown(report.suite.hash)}</code>: do not compare these figures with its."
        )
    if report.not_run:
        found.append(
            f"Of the suite's tasks, {listed([shown(task) for task in report.not_run])} were not "
            "run: figures over all tasks leave them out."
        )
    unscored = [shown(task) for task in report.tasks if task not in report.scored]
    if unscored:
        found.append(
            f"Figures over all tasks leave out {listed(unscored)}: what random tokens and the "
            "oracle get there is not known, or no agent's run ended well."
        )
    return "".join(f'<p class="note">{text}</p>\n' for text in found)


def _tasks(report: Report) -> str:
    first = {record["task"]: record for record in reversed(report.results.records)}
    heads = [
        heading("Task"),
        heading("Environment"),
        heading("Arguments"),
        heading("Tokens", "number"),
        heading("Held-out episodes", "number"),
        heading("Random", "number"),
        heading("Oracle or optimum", "number"),
        heading("Anchors"),
    ]
    rows = []
    for place, task in enumerate(report.tasks):
        record, anchors = first[task], report.anchors.get(task)
        episodes = {
            len(r["returns"]) for r in report.results.records if r["task"] == task and r["returns"]
        }
        kind = "not known" if anchors is None else "computed" if anchors.exact else "measured"
        arguments = json.dumps(record["kwargs"], ensure_ascii=False)
        link = f'<a class="name" href="#task-{place}">{shown(task)}</a>'
        low, high = (anchors.random, anchors.oracle) if anchors else (None, None)
        rows.append(
            f'<tr data-task="{place}"><th scope="row">{link}</th>'
            f"<td>{shown(record['env_id'])}</td><td><code>{shown(arguments)}</code></td>"
            f"{figure_cell(record['budget'], 0)}{figure_cell(max(episodes, default=None), 0)}"
            f"{figure_cell(low, 3)}{figure_cell(high, 3)}<td>{kind}</td></tr>"
        )
    return table("The tasks, and the returns that are 0 and 1 on the scale of scores.", heads, rows)


def _failed(report: Report) -> str:
    failed = report.results.failed
    if not failed:
        return ""
    heads = [heading(h) for h in ("Agent", "Task")]
    heads += [heading("Seed", "number"), heading("What happened"), heading("Reason")]
    heads += [heading("Attempts", "number")]
    rows = [
        f"<tr{tags(report, record['agent'], record['task'])}>"
        f'<th scope="row"><span class="name">{shown(record["agent"])}</span></th>'
        f"<td>{shown(record['task'])}</td>"
        f"{figure_cell(record['seed'], 0)}<td>{STATUS_WORDS[record['status']]}</td>"
        f'<td class="reason">{shown(record["error"] or "no reason was recorded", 300)}</td>'
        f"{figure_cell(record['attempts'], 0)}</tr>"
        for record in failed
    ]
    caption = f"{counted(len(failed), 'cell')} did not end well, and no figure holds them."
    return table(caption, heads, rows)


def _missing(report: Report) -> str:
    missing = report.missing
    if not missing:
        return ""
    names = [shown(f"{agent} on {task}, seed {seed}") for task, agent, seed in missing]
    rest = len(names) - _MOST_MISSING
    items = "".join(f"<li>{name}</li>" for name in names[:_MOST_MISSING])
    items += f"<li>and {rest:,} more</li>" if rest > 0 else ""
    return (
        f"<details><summary>{counted(len(names), 'cell')} without a record</summary>"
        f'<ul class="plain">{items}</ul></details>\n'
    )
