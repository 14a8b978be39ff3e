"""Texts token by token, each coloured by what the agent made of it.

The colours are classes, a letter for what is shown and a digit for how much (``a0`` to ``a8``), so
that style sheets alone switch between them: the page needs no script for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textgym_agents.bench.report.data import Report
from textgym_agents.bench.report.marks import agent_name, tags
from textgym_agents.bench.report.markup import counted, number, shown

LEVELS = 9
# In all, so that a page of 300 cells stays below three megabytes; and of one text.
_MOST_TOKENS, _MOST_OF_A_TEXT = 5_000, 160
_PROMPT, _TOKEN = 400, 40
_RETURN = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"


@dataclass(frozen=True)
class Measure:
    """What tokens are coloured by.

    Args:
        letter: of its classes.
        name: on the page.
        signed: whether 0 is in the middle of the scale; else the scale is from least to most.
    """

    letter: str
    name: str
    signed: bool


MEASURES = {
    "advantages": Measure("a", "advantage", True),
    "values": Measure("v", "value", False),
    "log_ratios": Measure("l", "log-prob against the reference", True),
    "rewards": Measure("r", "reward", True),
}


@dataclass(frozen=True)
class Quota:
    """How much of the pictures the page has room for.

    Args:
        each: pictures of a run.
        tokens: of a picture.
    """

    each: int
    tokens: int

    @classmethod
    def over(cls, report: Report) -> Quota:
        """All there is room for: first texts are cut, then there are fewer of them."""
        found = [_recorded(report, agent, task) for agent in report.agents for task in report.tasks]
        for each, tokens in (
            (2, _MOST_OF_A_TEXT),
            (1, _MOST_OF_A_TEXT),
            (1, 80),
            (1, 40),
            (1, 20),
            (1, 10),
        ):
            total = sum(min(tokens, len(p["tokens"])) for seen in found for p in seen[:each])
            if total <= _MOST_TOKENS:
                break
        return cls(each, tokens)


def pictures(report: Report, task: str, quota: Quota) -> str:
    """Those of a task, folded, with a choice of what they show; nothing where there are none."""
    found = [
        (agent, {**picture, "log_ratios": _log_ratios(picture)})
        for agent in report.agents
        for picture in _recorded(report, agent, task)[: quota.each]
    ]
    scales = {
        name: _scale(measure, [p[name] for _, p in found]) for name, measure in MEASURES.items()
    }
    there = [name for name, scale in scales.items() if scale is not None]
    if not found or not there:
        return ""
    place = report.tasks.index(task)
    choices, keys = [], []
    for name in there:
        letter, label = MEASURES[name].letter, MEASURES[name].name
        checked = " checked" if name == there[0] else ""
        choices.append(
            f'<input type="radio" name="by-{place}" id="by-{place}-{letter}" class="by-{letter}"'
            f'{checked}><label for="by-{place}-{letter}">{label}</label>'
        )
        keys.append(_key(MEASURES[name], scales[name]))
    figures = "".join(_picture(report, agent, p, scales, quota.tokens) for agent, p in found)
    return (
        "<details><summary>Token by token</summary>\n"
        '<div class="pictures" role="group" aria-label="Colour tokens by">'
        f"{''.join(choices)}{''.join(keys)}{figures}</div></details>\n"
    )


# ---------------------------------------------------------------- the parts
def _recorded(report: Report, agent: str, task: str) -> Sequence[Mapping[str, Any]]:
    """The pictures of the first run that has any."""
    cells = report.cells(agent, task)
    return next((cells[s]["pictures"] for s in sorted(cells) if cells[s]["pictures"]), ())


def _log_ratios(picture: Mapping[str, Any]) -> list[float | None] | None:
    ours, reference = picture.get("log_probs"), picture.get("ref_log_probs")
    if ours is None or reference is None:
        return None
    pairs = zip(ours, reference, strict=True)
    return [None if p is None or q is None else p - q for p, q in pairs]


def _scale(
    measure: Measure, rows: Sequence[Sequence[float | None] | None]
) -> tuple[float, float] | None:
    """What the two ends of the colours stand for, in all pictures of a task."""
    known = [value for row in rows for value in row or () if value is not None]
    if not known:
        return None
    if measure.signed:
        most = float(np.max(np.abs(known))) or 1.0
        return -most, most
    low, high = float(min(known)), float(max(known))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _level(value: float | None, scale: tuple[float, float] | None) -> int | None:
    if value is None or scale is None:
        return None
    return round((LEVELS - 1) * (value - scale[0]) / (scale[1] - scale[0]))


def _key(measure: Measure, scale: tuple[float, float] | None) -> str:
    low, high = scale or (0.0, 0.0)
    steps = "".join(f'<i class="{measure.letter}{level}"></i>' for level in range(LEVELS))
    middle = ", none near 0" if measure.signed else ""
    return (
        f'<p class="key key-{measure.letter}">{number(low, 3)} '
        f'<span aria-hidden="true">{steps}</span> {number(high, 3)} '
        f"<small>{measure.name}{middle}</small></p>"
    )


def _picture(
    report: Report,
    agent: str,
    picture: Mapping[str, Any],
    scales: Mapping[str, tuple[float, float] | None],
    most: int,
) -> str:
    texts = picture["tokens"]
    cut = [str(text) for text in texts[:most]]
    spans = "".join(_token(text, i, picture, scales) for i, text in enumerate(cut))
    rest = len(texts) - len(cut)
    more = f' <span class="dim">and {counted(rest, "token")} more</span>' if rest > 0 else ""
    absent = [MEASURES[name].name for name in MEASURES if picture.get(name) is None]
    note = f" <small>not recorded: {', '.join(absent)}</small>" if absent else ""
    total = number(sum(value or 0.0 for value in picture["rewards"]), 3)
    return (
        f'<figure class="picture"{tags(report, agent)}><figcaption>{agent_name(report, agent)} '
        f"<small>return {total}</small>{note}</figcaption>"
        f'<p class="prompt">{shown(picture["prompt"], _PROMPT)}</p>'
        f'<p class="tokens">{spans}{more}</p>{_figures(cut, picture)}</figure>\n'
    )


def _token(
    text: str,
    place: int,
    picture: Mapping[str, Any],
    scales: Mapping[str, tuple[float, float] | None],
) -> str:
    css, told = [], []
    for name, measure in MEASURES.items():
        row = picture.get(name)
        value = row[place] if row else None
        if value is None:
            continue
        css.append(f"{measure.letter}{_level(value, scales[name])}")
        told.append(f"{measure.name} {number(value, 4)}")
    for name, label in (("log_probs", "log-prob"), ("ref_log_probs", "the reference's")):
        if picture.get(name) and picture[name][place] is not None:
            told.append(f"{label} {number(picture[name][place], 4)}")
    # A line end is shown, and ends the line.
    inside = _readable(text).replace(_RETURN, f"{_RETURN}\n")
    return f'<span class="{" ".join(css)}" title="{"; ".join(told)}">{inside}</span>'


def _readable(text: str) -> str:
    """A token as HTML, though it be a line end or nothing at all."""
    return shown(text, _TOKEN).replace("\n", _RETURN) or "\N{EMPTY SET}"


_COLUMNS = {
    "rewards": "reward",
    "values": "value",
    "advantages": "advantage",
    "log_probs": "log-prob",
    "ref_log_probs": "reference",
}


def _figures(cut: Sequence[str], picture: Mapping[str, Any]) -> str:
    """The same as a table, for those who cannot point at a token."""
    names = [name for name in _COLUMNS if picture.get(name)]
    heads = "".join(f"<th scope=col>{_COLUMNS[name]}" for name in names)
    rows = "".join(
        f"<tr><th>{_readable(text)}"
        + "".join(f"<td>{number(picture[name][place], 3)}" for name in names)
        for place, text in enumerate(cut)
    )
    # Closing tags that HTML lets one leave out would be a third of the page.
    return (
        '<details class="figures"><summary>Figures</summary><div class="scroll" tabindex="0">'
        f"<table><thead><tr><th scope=col>token{heads}<tbody>{rows}</table></div></details>"
    )
