"""Results A against results B of the same suite: is anything worse?

Scores of both are normalised by the same anchors, A's where it has them, so that a difference is
one of returns. An agent is called worse where

- its mean over all tasks has fallen: Student's t at 5%, two-sided, of the seeds' differences;
- or its score on a task has: the same, corrected by Holm for the number of tasks and agents, so
  that of results that do not differ one in twenty is called worse or better somewhere;
- or a cell failed in B that did not fail in A.

No difference shown is not the same as none: with few seeds only large ones show.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from textgym.differences import Difference, holm, mean_difference
from textgym.errors import check_known
from textgym_agents.bench.records import (
    ANCHORS,
    Anchors,
    Record,
    Results,
    mean_return,
    read_results,
)

BETTER, WORSE, NOT_SHOWN = "better", "worse", "no difference shown"
ALPHA = 0.05
# Rounding aside, anchors of the same suite are the same.
_SAME = 1e-9


# ---------------------------------------------------------------- what is found
@dataclass(frozen=True)
class Costs:
    """What runs cost, over those that ended well; None where that is not known.

    Args:
        tokens_per_second: tokens learnt from over seconds of learning.
        peak_mb: the most memory of any run.
    """

    tokens_per_second: float | None
    peak_mb: float | None

    @classmethod
    def of(cls, records: Iterable[Record]) -> Costs:
        """Those of some records that are ok."""
        records = tuple(records)
        seconds = sum(record["train_seconds"] for record in records)
        tokens = sum(record["tokens"] for record in records)
        peaks = [record["peak_mb"] for record in records if record["peak_mb"] is not None]
        return cls(tokens / seconds if seconds and tokens else None, max(peaks, default=None))


@dataclass(frozen=True)
class Row:
    """An agent's scores in A and B, on a task or over all.

    Args:
        task: its name; None for all.
        difference: of normalised scores, B less A; None where one of them has no run that is ok.
        p_value: corrected by Holm; NaN where nothing can be said (a single seed).
        costs: in A and in B.
    """

    task: str | None
    difference: Difference | None
    p_value: float
    costs: tuple[Costs, Costs]

    @property
    def result(self) -> str:
        """`BETTER`, `WORSE` or `NOT_SHOWN`."""
        if self.difference is None or not self.p_value < ALPHA:
            return NOT_SHOWN
        return BETTER if self.difference.value > 0 else WORSE


@dataclass(frozen=True)
class Pair:
    """An agent in A and an agent in B.

    Args:
        names: of both; as a rule the same.
        tasks: a row each.
        overall: the mean over tasks.
        failed: records of B that are not ok, of cells that did not fail in A, too.
    """

    names: tuple[str, str]
    tasks: tuple[Row, ...]
    overall: Row
    failed: tuple[Record, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Tasks, then all."""
        return *self.tasks, self.overall

    @property
    def result(self) -> str:
        """`WORSE` if anything is, or has failed; else `BETTER` if anything is."""
        found = {row.result for row in self.rows}
        if WORSE in found or self.failed:
            return WORSE
        return BETTER if BETTER in found else NOT_SHOWN


@dataclass(frozen=True)
class Comparison:
    """Results A against results B.

    Args:
        suite: the name of their suite.
        pairs: at least one.
        notes: what a reader should know of the two: sentences.
    """

    suite: str
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 if anything is worse, else 0."""
        return int(any(pair.result == WORSE for pair in self.pairs))


# ---------------------------------------------------------------- comparing
def compare(
    a: str | os.PathLike[str] | Results,
    b: str | os.PathLike[str] | Results,
    *,
    agent_a: str | None = None,
    agent_b: str | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """Compare the agents of two results, each with the one of its name.

    Args:
        a: what was: a folder of `textgym bench run`, or its file, or what `read_results` read.
        b: what is now.
        agent_a: compare this agent of A alone, ...
        agent_b: ... with this one of B. One that is not given is of the other's name.
        only: these tasks alone.
        seed: of the bootstrap.

    Raises:
        FileNotFoundError: no results there.
        TypeError: an unknown agent or task; lists near matches.
        ValueError: the results are of different suites (says what differs) or share no agent, no
            task can be scored, or an agent has cells of other tasks in A than in B.
    """
    old, new = (side if isinstance(side, Results) else read_results(side) for side in (a, b))
    check_same_suite(old, new)
    check_known("task", only, dict.fromkeys((*old.tasks, *new.tasks)))
    names, notes = _paired_names(old, new, agent_a, agent_b)
    anchors, more = _anchors_of_both(old, new, only)
    rng = np.random.default_rng(seed)
    pairs = _corrected([_pair(old, new, both, anchors, rng) for both in names])
    notes += [*more, *_failed_before(old, pairs), *_origins(old, new)]
    return Comparison(new.suite, pairs, tuple(notes))


def check_same_suite(a: Results, b: Results) -> None:
    """Raise `ValueError` where results are not of the same suite, saying what differs."""
    if a.suite_hash == b.suite_hash:
        return
    tasks_a, tasks_b = _facts_of_tasks(a), _facts_of_tasks(b)
    found = [f"the suite ({a.suite} and {b.suite})"] if a.suite != b.suite else []
    for task in dict.fromkeys((*tasks_a, *tasks_b)):
        if task not in tasks_a or task not in tasks_b:
            found.append(f"the task {task} (only in {'A' if task in tasks_a else 'B'})")
            continue
        one, other = tasks_a[task], tasks_b[task]
        found += [
            f"{name} of {task} ({one[name]} and {other[name]})"
            for name in one
            if one[name] != other[name]
        ]
    raise ValueError(
        f"A and B are of different suites ({a.suite_hash} and {b.suite_hash}), so their scores do "
        f"not compare. What differs: {'; '.join(found) or 'something that records do not hold'}. "
        "Run the same suite for both, with the same version of textgym."
    )


def _facts_of_tasks(results: Results) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for record in results.records:
        facts = found.setdefault(record["task"], {})
        # Anchors learn nothing, so they may have another budget; they are scored alike.
        if record["agent"] not in ANCHORS:
            facts["tokens to learn from"] = record["budget"]
        facts |= {"the id": record["env_id"], "arguments": record["kwargs"]}
        if record["returns"]:
            facts["held-out episodes"] = len(record["returns"])
    return found


def _paired_names(
    old: Results, new: Results, agent_a: str | None, agent_b: str | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Which agents to compare, and a note on those that only one side has."""
    if agent_a is not None or agent_b is not None:
        both = (agent_a or agent_b or "", agent_b or agent_a or "")
        for side, name, results in zip("AB", both, (old, new), strict=True):
            check_known(f"agent of {side}", [name], (*results.agents, *ANCHORS))
        return [both], []
    shared = [name for name in new.agents if name in old.agents]
    if not shared:
        raise ValueError(
            f"A and B share no agent: A has {', '.join(old.agents) or 'none'}, B has "
            f"{', '.join(new.agents) or 'none'}. Say which to compare: --agent-a and --agent-b."
        )
    notes = []
    for side, one, other in (("A", old, new), ("B", new, old)):
        alone = [name for name in one.agents if name not in other.agents]
        if alone:
            notes.append(f"Only {side} has {', '.join(alone)}: not compared.")
    return [(name, name) for name in shared], notes


def _anchors_of_both(
    old: Results, new: Results, only: Sequence[str]
) -> tuple[dict[str, Anchors], list[str]]:
    """One scale for both sides, by task; and notes where there is none or where it has moved."""
    found: dict[str, Anchors] = {}
    notes, missing = [], []
    for task in dict.fromkeys((*old.tasks, *new.tasks)):
        if only and task not in only:
            continue
        one, other = old.anchors(task), new.anchors(task)
        anchors = one or other
        if anchors is None:
            missing.append(task)
            continue
        found[task] = anchors
        if one and other and not _same(one, other):
            notes.append(
                f"The anchors of {task} differ: 0 and 1 were {one.random:.4g} and {one.oracle:.4g} "
                f"in A, and are {other.random:.4g} and {other.oracle:.4g} in B. The environment "
                "has changed, though its version has not; both sides are scored by A's."
            )
    if missing:
        notes.append(f"Without anchors in A or B, not compared: {', '.join(missing)}.")
    if not found:
        raise ValueError(
            "no task can be scored: neither A nor B has both anchors, `random` and `oracle`, of "
            "any. `textgym bench run` into the same folder makes what is missing."
        )
    return found, notes


def _same(one: Anchors, other: Anchors) -> bool:
    gaps = abs(one.random - other.random), abs(one.oracle - other.oracle)
    return max(gaps) <= _SAME * (one.oracle - one.random)


def _pair(
    old: Results,
    new: Results,
    names: tuple[str, str],
    anchors: dict[str, Anchors],
    rng: np.random.Generator,
) -> Pair:
    tasks = _tasks_of(old, new, names, anchors)
    cells = [(old.cells(task, names[0]), new.cells(task, names[1])) for task in tasks]
    seeds = sorted({r["seed"] for both in cells for side in both for r in side})
    scores = np.full((2, len(seeds), len(tasks)), np.nan)
    for column, both in enumerate(cells):
        for side, records in enumerate(both):
            for record in records:
                score = anchors[tasks[column]].normalized(mean_return(record))
                scores[side, seeds.index(record["seed"]), column] = score
    scored = [column for column, both in enumerate(cells) if all(both)]
    rows = []
    for column, (task, both) in enumerate(zip(tasks, cells, strict=True)):
        found = mean_difference(*scores[:, :, [column]], rng) if column in scored else None
        rows.append(_row(task, found, both))
    found = mean_difference(*scores[:, :, scored], rng) if scored else None
    every = tuple([record for both in cells for record in both[side]] for side in (0, 1))
    return Pair(names, tuple(rows), _row(None, found, every), _failed(old, new, names, tasks))


def _row(task: str | None, found: Difference | None, cells: Sequence[Sequence[Record]]) -> Row:
    """A row whose p-value is not corrected yet."""
    costs = Costs.of(cells[0]), Costs.of(cells[1])
    return Row(task, found, found.p_value if found else math.nan, costs)


def _tasks_of(
    old: Results, new: Results, names: tuple[str, str], anchors: dict[str, Anchors]
) -> list[str]:
    """Tasks of which both sides have cells, which must be all of which one has."""
    sides = [
        {r["task"] for r in results.records if r["agent"] == name and r["task"] in anchors}
        for results, name in zip((old, new), names, strict=True)
    ]
    for side, lacking in (("A", sides[1] - sides[0]), ("B", sides[0] - sides[1])):
        if lacking:
            shared = " ".join(f"--only {task}" for task in anchors if task in sides[0] & sides[1])
            raise ValueError(
                f"{side} has no cell of {names[side == 'B']} on {', '.join(sorted(lacking))}, "
                "which the other has. Finish its run with the same command"
                f"{f', or compare the rest with {shared}' if shared else ''}."
            )
    return [task for task in anchors if task in sides[0]]


def _failed(
    old: Results, new: Results, names: tuple[str, str], tasks: Sequence[str]
) -> tuple[Record, ...]:
    """Records of B that are not ok, but of cells that were not ok in A either."""
    already = {(r["task"], r["seed"]) for r in old.failed if r["agent"] == names[0]}
    return tuple(
        record
        for record in new.failed
        if record["agent"] == names[1]
        and record["task"] in tasks
        and (record["task"], record["seed"]) not in already
    )


def _corrected(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The same with p-values corrected: one family of all tasks of all agents, one of agents."""
    overall = holm([pair.overall.p_value for pair in pairs])
    tasks = iter(holm([row.p_value for pair in pairs for row in pair.tasks]).tolist())
    return tuple(
        replace(
            pair,
            tasks=tuple(replace(row, p_value=next(tasks)) for row in pair.tasks),
            overall=replace(pair.overall, p_value=float(overall[place])),
        )
        for place, pair in enumerate(pairs)
    )


# ---------------------------------------------------------------- notes
def _failed_before(old: Results, pairs: Iterable[Pair]) -> list[str]:
    """What failed in A."""
    names = {pair.names[0] for pair in pairs}
    cells = [cell_name(r) for r in old.failed if r["agent"] in names]
    if not cells:
        return []
    return [f"Failed in A: {', '.join(cells)}. Where it failed in B, too, B is not worse for it."]


def _origins(old: Results, new: Results) -> list[str]:
    """Versions and machines, where they differ."""
    sides = [_facts_of_run(results) for results in (old, new)]
    names = dict.fromkeys((*sides[0], *sides[1]))
    found = {
        name: f"{name} {sides[0].get(name, 'unknown')} and {sides[1].get(name, 'unknown')}"
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    }
    notes = [f"A and B differ in {'; '.join(found.values())}."] if found else []
    if {"machine", "cpu", "cores", "threads"} & found.keys():
        notes.append("Speed and memory compare only on like machines.")
    return notes


def _facts_of_run(results: Results) -> dict[str, str]:
    values: dict[str, set[str]] = {}
    for record in results.records:
        known = record["provenance"]
        facts = {k: known.get(k) for k in ("python", "machine", "cpu", "cores", "threads")}
        for name, value in {**(known.get("versions") or {}), **facts}.items():
            if value is not None:
                values.setdefault(name, set()).add(str(value))
    return {name: ", ".join(sorted(found)) for name, found in values.items()}


def cell_name(record: Record) -> str:
    """A cell in words, with its status: ``"story seed 3 (timeout)"``."""
    return f"{record['task']} seed {record['seed']} ({record['status']})"
