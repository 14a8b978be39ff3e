"""One view a task: curves with all seeds, scores by seed, texts, and texts token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from textgym_agents.bench.records import Record
from textgym_agents.bench.report.charts import Chart, Line, draw
from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.marks import agent_name, tags
from textgym_agents.bench.report.markup import (
    DASH,
    ends,
    figure_cell,
    heading,
    number,
    shown,
    table,
)
from textgym_agents.bench.report.overview import STATUS_WORDS
from textgym_agents.bench.report.pictures import Quota, pictures

STAGES = {
    "start": "At the start",
    "middle": "Half way",
    "end": "At the end",
    "held-out": "Held out",
}
_PROMPT, _COMPLETION = 240, 500
# With more runs than this, one text of each stage, and a shorter one: the page stays small.
_MANY, _SHORT = 120, 240


def task_views(report: Report) -> str:
    """The sections of all tasks, as HTML."""
    quota = Quota.over(report)
    views = "".join(_view(report, task, quota) for task in report.tasks)
    return (
        '<section id="tasks" aria-labelledby="tasks-h"><h2 id="tasks-h">Task by task</h2>\n'
        f"{views}</section>\n"
    )


def _view(report: Report, task: str, quota: Quota) -> str:
    place = report.tasks.index(task)
    return (
        f'<section class="task" id="task-{place}" data-task="{place}" '
        f'aria-labelledby="task-{place}-h"><h3 id="task-{place}-h">{shown(task)}</h3>\n'
        f'<div class="pair">{_chart(report, task)}{_seeds(report, task)}</div>'
        f"{_texts(report, task)}"
        f"{pictures(report, task, quota)}</section>\n"
    )


# ---------------------------------------------------------------- figures
def _chart(report: Report, task: str) -> str:
    lines = []
    for place, agent in enumerate(report.agents):
        band, runs = report.task_learning(agent, task)
        if band is not None:
            lines.append(Line(place, agent, band.at, band.value, runs=runs))
    levels = []
    if (anchors := report.anchors.get(task)) is not None:
        best = "exact optimum" if anchors.exact else "oracle"
        levels = [(anchors.oracle, best), (anchors.random, "random")]
    chart = Chart(f"Learning on {task}", "tokens", "return", lines, levels)
    return (
        "<figure><figcaption>Returns of episodes in training: the mean over seeds, and each seed "
        f"as a thin line.</figcaption>{draw(chart)}</figure>\n"
    )


def _seeds(report: Report, task: str) -> str:
    heads = [heading("Agent"), heading("Score", "number", sort="none"), heading("Return", "number")]
    heads += [heading(f"Seed&nbsp;{seed}", "number") for seed in report.seeds]
    heads += [heading("Greedy", "number")]
    heads += [
        heading(name, "number", attributes=' data-first="ascending"')
        for name in ("CPU seconds", "MB")
    ]
    rows = [_row(report, agent, task) for agent in report.agents]
    anchors = report.anchors.get(task)
    empty = "<td></td>" * (len(report.seeds) + 3)
    foot = []
    if anchors is not None:
        best = "exact optimum" if anchors.exact else "oracle"
        foot = [
            f'<tr><th scope="row">{name}</th><td class="number">{number(score)}</td>'
            f'<td class="number">{number(value, 3)}</td>{empty}</tr>'
            for name, score, value in ((best, 1, anchors.oracle), ("random", 0, anchors.random))
        ]
    caption = "Held-out returns by seed. Greedy: taking the likeliest token always."
    return table(caption, heads, rows, foot)


def _row(report: Report, agent: str, task: str) -> str:
    returns = report.returns(agent, task)
    greedy = report.returns(agent, task, greedy=True)
    score = report.task_score(agent, task)
    cells = report.cells(agent, task).values()
    by_seed = "".join(_seed_cell(report, agent, task, seed) for seed in report.seeds)
    costs = "".join(
        figure_cell(_mean([cell[name] for cell in cells]), digits)
        for name, digits in (("cpu_seconds", 1), ("peak_mb", 0))
    )
    spread = f'<small class="ends">{ends(score)}</small>' if score else ""
    return (
        f'<tr{tags(report, agent)}><th scope="row">{agent_name(report, agent)}</th>'
        f"{figure_cell(score.value if score else None, 2, spread)}"
        f"{figure_cell(_mean(list(returns.values())), 3)}{by_seed}"
        f"{figure_cell(_mean(list(greedy.values())), 3)}{costs}</tr>"
    )


def _seed_cell(report: Report, agent: str, task: str, seed: int) -> str:
    value = report.returns(agent, task).get(seed)
    if value is not None:
        return figure_cell(value, 3)
    for record in report.results.failed:
        if (record["agent"], record["task"], record["seed"]) == (agent, task, seed):
            words = STATUS_WORDS[record["status"]]
            reason = shown(f"{words}: {record['error']}" if record["error"] else words)
            return f'<td class="number bad" title="{reason}">failed</td>'
    return f'<td class="number">{DASH}</td>'


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


# ---------------------------------------------------------------- texts
def _texts(report: Report, task: str) -> str:
    parts = []
    for agent in report.agents:
        cells = report.cells(agent, task)
        cell = next((cells[seed] for seed in sorted(cells) if cells[seed]["samples"]), None)
        if cell is not None:
            parts.append(_samples(report, cell))
    if not parts:
        return ""
    return (
        "<details><summary>Texts: start, middle, end, held out</summary>\n"
        '<p class="dim">Of one run an agent; what is not here is in '
        f"results.jsonl.</p>{''.join(parts)}</details>\n"
    )


def _samples(report: Report, cell: Record) -> str:
    columns = []
    many = len(report.agents) * len(report.tasks) > _MANY
    each, longest = (1, _SHORT) if many else (2, _COMPLETION)
    for stage, title in STAGES.items():
        found = [sample for sample in cell["samples"] if sample["stage"] == stage][:each]
        texts = "".join(_sample(sample, longest) for sample in found) or '<p class="dim">none</p>'
        tokens = found[0]["tokens"] if found else None
        after = (
            f" <small>{number(tokens, 0)} tokens</small>" if tokens and stage != "held-out" else ""
        )
        columns.append(f"<div><h5>{title}{after}</h5>{texts}</div>")
    return (
        f"<article{tags(report, cell['agent'])}><h4>{agent_name(report, cell['agent'])} "
        f'<small>seed {cell["seed"]}</small></h4><div class="stages">{"".join(columns)}</div>'
        "</article>\n"
    )


def _sample(sample: Mapping[str, Any], longest: int) -> str:
    completion = shown(sample["completion"], longest) or '<i class="dim">nothing</i>'
    return (
        f'<div class="sample"><p class="prompt">{shown(sample["prompt"], _PROMPT)}</p>'
        f'<p class="text">{completion}</p>'
        f'<p class="paid">return {number(sample["return"], 3)}</p></div>'
    )
