"""The second and the last part of the page: who is how good on all tasks, and what that costs."""

from __future__ import annotations

import math

import numpy as np

from textgym.statistics import Interval
from textgym_agents.bench.report.charts import whisker
from textgym_agents.bench.report.data import GOAL, Cost, Report, Standing
from textgym_agents.bench.report.marks import agent_name, tags
from textgym_agents.bench.report.markup import (
    DASH,
    counted,
    ends,
    figure_cell,
    heading,
    interval_cell,
    listed,
    number,
    shown,
    sort_key,
    table,
)

# Of the optimum: curves that rise by less in their last fifth are said to be level.
_RISING = 0.01


# ---------------------------------------------------------------- scores
def leaderboard(report: Report, against: str | None) -> str:
    """The section, as HTML; `against` is the agent that others are first compared with."""
    body = _ranking(report, against) if report.standings else _nothing(report)
    return (
        '<section id="scores" aria-labelledby="scores-h"><h2 id="scores-h">Scores</h2>\n'
        f"{body}{_by_task(report)}</section>\n"
    )


def _nothing(report: Report) -> str:
    tasks = counted(len(report.scored), "task")
    return f'<p class="note">No agent has a run of each of {tasks} that ended well.</p>\n'


def _ranking(report: Report, against: str | None) -> str:
    exact = heading("Of the exact optimum", "number") if report.shares else ""
    options = "".join(
        f'<option value="{place}"{" selected" * (agent == against)}>{shown(agent, 40)}</option>'
        for place, agent in enumerate(report.ranked)
    )
    heads = [
        heading("Agent"),
        heading("Interquartile mean", "number", sort="descending"),
        '<th scope="col" class="chart-head" aria-hidden="true"></th>',
        heading("Mean", "number"),
        heading("Median", "number"),
        heading("Optimality gap", "number", attributes=' data-first="ascending"'),
        '<th scope="col" class="number" aria-sort="none"><span>Better than</span> '
        f'<label><b class="against">{shown(against)}</b><select id="against" '
        f'aria-label="Agent to be better than" hidden>{options}</select></label></th>',
        exact,
        heading("Runs", "number"),
    ]
    everyone = [standing.iqm for standing in report.standings]
    bounds = [v for i in everyone for v in (i.value, i.low, i.high) if math.isfinite(v)]
    low, high = min(bounds), max(bounds)
    room = 0.05 * (high - low) or 0.5
    rows = [
        _row(report, standing, against, (low - room, high + room)) for standing in report.standings
    ]
    caption = (
        "Scores over all tasks: 0 is random tokens, 1 the oracle or the exact optimum. Under each "
        "figure, its 95% interval: how far other seeds may lie. The line shows it on a scale "
        f"from {number(low)} to {number(high)}. <b>Better than</b>: how probably a run of this "
        "agent beats one of the other; 0.5 is even. The gap is what is missing to 1, so less is "
        "better."
    )
    unranked = "".join(
        f'<p class="note"{tags(report, agent)}>{agent_name(report, agent)} is not ranked: no run '
        f"of {listed([shown(task) for task in tasks])} ended well.</p>\n"
        for agent, tasks in report.unranked.items()
    )
    return f"{table(caption, heads, rows)}{_apart(report)}{unranked}{_exact(report)}"


def _row(report: Report, standing: Standing, against: str | None, span: tuple[float, float]) -> str:
    agent, iqm = standing.agent, standing.iqm
    place = report.agents.index(agent)
    share = interval_cell_percent(report.shares.get(agent)) if report.shares else ""
    runs = report.costs[agent].runs
    wanted = len(report.tasks) * len(report.seeds)
    return (
        f'<tr{tags(report, agent)}><th scope="row">{agent_name(report, agent)}</th>'
        f"{interval_cell(iqm)}"
        f'<td class="whiskers">{whisker(place, iqm.value, iqm.low, iqm.high, span)}</td>'
        f"{interval_cell(standing.mean)}{interval_cell(standing.median)}"
        f"{interval_cell(standing.gap)}{_better(report, standing, against)}{share}"
        f'<td class="number"{sort_key(runs)}>{runs} of {wanted}</td></tr>'
    )


def _better(report: Report, standing: Standing, against: str | None) -> str:
    """A cell that holds the comparison with every other agent, of which one is shown."""
    chosen = standing.better_than.get(against or "")
    spans = []
    for place, other in enumerate(report.ranked):
        hidden = "" if other == against else " hidden"
        found = standing.better_than.get(other)
        inside = (
            DASH
            if found is None
            else f'{number(found.value)}<small class="ends">{ends(found)}</small>'
        )
        key = sort_key(found.value if found else None)
        spans.append(f'<span data-against="{place}"{key}{hidden}>{inside}</span>')
    key = sort_key(chosen.value if chosen else None)
    return f'<td class="number better"{key}>{"".join(spans)}</td>'


def interval_cell_percent(interval: Interval | None) -> str:
    """A share over its interval in a table, in percent."""
    if interval is None:
        return figure_cell(None)
    return (
        f'<td class="number"{sort_key(interval.value)}>{interval.value:.1%}'
        f'<small class="ends">{_percent_ends(interval)}</small></td>'
    )


def _percent_ends(interval: Interval) -> str:
    return f"{interval.low:.1%} to {interval.high:.1%}" if interval.known else ""


def apart_sentence(report: Report) -> str:
    """Which neighbours in the ranking the seeds do not tell apart, in plain text."""
    if len(report.standings) < 2:
        return ""
    groups: dict[tuple[int, bool], list[str]] = {}
    for one, other in report.not_told_apart:
        key = (min(one.iqm.seeds, other.iqm.seeds), one.iqm.known and other.iqm.known)
        groups.setdefault(key, []).append(f"{one.agent} and {other.agent}")
    if not groups:
        return "The intervals of neighbours do not overlap: the seeds tell all of them apart."
    return " ".join(
        f"Not told apart by {counted(seeds, 'seed')} ("
        f"{'their intervals overlap' if known else 'which gives no interval'}): {'; '.join(names)}."
        for (seeds, known), names in groups.items()
    )


def _apart(report: Report) -> str:
    sentence = apart_sentence(report)
    return f'<p class="verdict">{shown(sentence, 4_000)}</p>\n' if sentence else ""


def exact_sentences(report: Report) -> list[tuple[str, str]]:
    """Agents with an exact optimum, and a sentence in plain text for each: is the goal met?"""
    tasks = counted(len(report.exact_tasks), "task")
    found = []
    for agent, share in report.shares.items():
        verdict = "met" if share.value >= GOAL else "not met"
        seeds = counted(share.seeds, "seed")
        spread = f"{_percent_ends(share)}, " if share.known else ""
        doubt = ""
        if share.known and share.low < GOAL <= share.high:
            doubt = f", though {seeds} leave that open"
        sentence = (
            f"at {share.value:.1%} of the exact optimum ({spread}{tasks}, {seeds}); "
            f"the goal of {GOAL:.0%} is {verdict}{doubt}."
        )
        if share.value < GOAL:
            sentence += f" {_shortfall(report, agent)}"
        found.append((agent, sentence))
    return found


def _shortfall(report: Report, agent: str) -> str:
    """Where `agent` is furthest from the optimum, and whether more tokens may help."""
    shares = report.shares_of_runs(agent)
    column = int(np.nanmean(shares, axis=0).argmin())
    worst, found = report.exact_tasks[column], shares[:, column]
    found = found[~np.isnan(found)]
    seeds = f" (seeds {found.min():.1%} to {found.max():.1%})" if len(found) > 1 else ""
    sentence = f"Furthest from it on {worst}, {found.mean():.1%}{seeds}"
    rise = report.late_rise(agent, worst)
    if rise is None:
        return f"{sentence}."
    rise /= report.anchors[worst].oracle
    if rise > _RISING:
        return (
            f"{sentence}, where returns in training still rose, by {rise:.1%} in the last fifth of "
            "its tokens: more of them may help."
        )
    return f"{sentence}, where returns in training no longer rose in the last fifth of its tokens."


def _exact(report: Report) -> str:
    items = "".join(
        f"<li{tags(report, agent)}>{agent_name(report, agent)} {shown(sentence)}</li>"
        for agent, sentence in exact_sentences(report)
    )
    if not items:
        return ""
    return (
        "<h3>Against the exact optimum</h3>\n<p>Mean held-out return over the best return there "
        f'is, averaged over tasks whose optimum is computed.</p>\n<ul class="plain">{items}</ul>\n'
    )


def _by_task(report: Report) -> str:
    heads = [heading("Agent")] + [
        heading(shown(task, 40), "number", attributes=f' data-task="{place}"')
        for place, task in enumerate(report.tasks)
    ]
    rows = []
    for agent in report.agents:
        cells = "".join(_score_cell(report, agent, task) for task in report.tasks)
        name = agent_name(report, agent)
        rows.append(f'<tr{tags(report, agent)}><th scope="row">{name}</th>{cells}</tr>')
    caption = "Scores by task, on the same scale: means over seeds. The darker, the better."
    return f"<h3>By task</h3>\n{table(caption, heads, rows)}"


def _score_cell(report: Report, agent: str, task: str) -> str:
    place = report.tasks.index(task)
    score = report.task_score(agent, task)
    if score is None:
        return f'<td class="number" data-task="{place}">{DASH}</td>'
    level = round(8 * min(1.0, max(0.0, score.value)))
    return (
        f'<td class="number heat s{level}" data-task="{place}"{sort_key(score.value)} '
        f'title="{counted(score.seeds, "seed")}: {ends(score) or "no interval"}">'
        f"{number(score.value)}</td>"
    )


# ---------------------------------------------------------------- costs
COSTS = (
    ("Tokens learnt from", "tokens", 0),
    ("Seconds of training", "train_seconds", 1),
    ("CPU seconds", "cpu_seconds", 1),
    ("Seconds of scoring", "eval_seconds", 1),
    ("Peak memory, MB", "peak_mb", 0),
    ("Tokens/s", "tokens_per_second", 0),
)


def costs(report: Report) -> str:
    """The section with what runs cost, as HTML."""
    heads = [heading("Agent")] + [
        heading(
            name,
            "number",
            attributes="" if field == "tokens_per_second" else ' data-first="ascending"',
        )
        for name, field, _ in COSTS
    ]
    rows = [
        f'<tr{tags(report, agent)}><th scope="row">{agent_name(report, agent)}</th>'
        f"{_cost_cells(cost)}</tr>"
        for agent, cost in report.costs.items()
    ]
    caption = (
        "Means of the runs that ended well; memory is the most of any run. CPU seconds compare "
        "where several runs shared the machine."
    )
    return (
        '<section id="cost" aria-labelledby="cost-h"><h2 id="cost-h">Cost</h2>\n'
        f"{table(caption, heads, rows)}</section>\n"
    )


def _cost_cells(cost: Cost) -> str:
    return "".join(figure_cell(getattr(cost, field), digits) for _, field, digits in COSTS)
