"""What cells leave behind: reading it, checking it, and the scores that follow from it.

A cell is one agent on one task with one seed. Its record is one line of ``FOLDER/results.jsonl``, a
JSON object (docs/benchmarks.md lists its fields). Where a cell has several, the newest counts.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.errors import check_known, short
from textgym.scoring import Estimate, Reference, normalized

SCHEMA = 1
STATUSES = ("ok", "crashed", "timeout", "memory", "invalid_action", "over_budget", "killed")
ANCHORS = ("random", "oracle")
RESULTS = "results.jsonl"

Record = dict[str, Any]
Key = tuple[str, str, int]

_NUMBER = (int, float)
# Name: the types of its value. None is allowed where `_NULL` says so.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "suite": str,
    "suite_hash": str,
    "task": str,
    "env_id": str,
    "kwargs": dict,
    "agent": str,
    "agent_import": str,
    "seed": int,
    "status": str,
    "error": str,
    "attempts": int,
    "budget": int,
    "tokens": int,
    "train_seconds": _NUMBER,
    "cpu_seconds": _NUMBER,
    "eval_seconds": _NUMBER,
    "peak_mb": _NUMBER,
    "returns": list,
    "greedy_returns": list,
    "exact": dict,
    "curve": list,
    "samples": list,
    "pictures": list,
    "deterministic": dict,
    "provenance": dict,
}
_ALWAYS_NULLABLE = frozenset({"agent_import", "error", "greedy_returns", "exact", "peak_mb"})
# Of a cell that ended well these are numbers; of others they may be unknown.
_KNOWN_WHEN_OK = frozenset(
    {
        "tokens",
        "train_seconds",
        "cpu_seconds",
        "eval_seconds",
        "returns",
        "curve",
        "samples",
        "pictures",
        "deterministic",
    }
)
_PARTS: dict[str, tuple[str, ...]] = {
    "curve": ("tokens", "seconds", "episodes", "mean_return"),
    "samples": ("stage", "tokens", "prompt", "completion", "return"),
    "pictures": ("prompt", "tokens", "rewards"),
}


# ---------------------------------------------------------------- one record
def key_of(record: Mapping[str, Any]) -> Key:
    """What tells cells of a suite apart: task, agent and seed."""
    return record["task"], record["agent"], record["seed"]


def check_record(value: object) -> Record:
    """Return `value` if it is a record of this schema; fields that are not of it are let be.

    Raises:
        ValueError: it is not; says which field was expected to be what.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a record must be a JSON object, got {short(value)}.")
    if value.get("schema") != SCHEMA:
        raise ValueError(
            f"`schema` must be {SCHEMA}, got {value.get('schema')!r}: the record was written by "
            "another version of textgym. Run its suite again with this one, into a new folder."
        )
    if value.get("status") not in STATUSES:
        raise ValueError(
            f"`status` must be one of {', '.join(STATUSES)}, got {value.get('status')!r}."
        )
    ok = value["status"] == "ok"
    for name, types in _FIELDS.items():
        nullable = name in _ALWAYS_NULLABLE or (name in _KNOWN_WHEN_OK and not ok)
        _check_field(value, name, types, nullable)
    _check_numbers("returns", value["returns"], at_least=1 if ok else 0)
    _check_numbers("greedy_returns", value["greedy_returns"])
    for name, parts in _PARTS.items():
        _check_parts(name, value[name], parts)
    if value["exact"] is not None:
        _check_numbers("exact", [value["exact"].get(name) for name in ("random", "optimum")])
    return value


def _check_field(record: Record, name: str, types: type | tuple[type, ...], nullable: bool) -> None:
    if name not in record:
        raise ValueError(f"a record must have the field `{name}`.")
    found = record[name]
    if found is None and nullable:
        return
    if not isinstance(found, types) or isinstance(found, bool):
        kinds = types if isinstance(types, tuple) else (types,)
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"`{name}` must be {wanted}{' or null' if nullable else ''}, got {short(found)}."
        )
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"`{name}` must be finite, got {found}.")


def _check_numbers(name: str, values: Sequence[Any] | None, at_least: int = 0) -> None:
    if values is None:
        return
    if len(values) < at_least:
        raise ValueError(f"`{name}` must hold at least {at_least} number, got none.")
    for place, number in enumerate(values):
        if isinstance(number, bool) or not isinstance(number, _NUMBER) or not math.isfinite(number):
            raise ValueError(
                f"`{name}` must hold finite numbers, got {short(number)} at place {place}."
            )


def _check_parts(name: str, rows: Sequence[Any] | None, parts: tuple[str, ...]) -> None:
    for row in rows or ():
        missing = [part for part in parts if not isinstance(row, dict) or part not in row]
        if missing:
            raise ValueError(f"each of `{name}` must have `{missing[0]}`, got {short(row)}.")
        if name == "pictures":
            lists = {key: row[key] for key in row if key != "prompt" and row[key] is not None}
            if len({len(values) for values in lists.values()}) > 1:
                raise ValueError(f"the lists of a picture must be equally long: {list(lists)}.")


# ---------------------------------------------------------------- the file
def parse_line(line: bytes) -> Record:
    """The record of one line.

    Raises:
        ValueError: the line is no JSON, or no record.
    """
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    return check_record(value)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def read_lines(file: Path) -> list[Record]:
    """Every record of `file`, oldest first; a last line without its end (a killed writer) is left.

    Raises:
        FileNotFoundError: there is no such file; says what writes it.
        ValueError: another line is no record, or it is of another suite than the first.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist: expected the --out folder of `textgym bench run`. Run a suite "
            f"first, such as `textgym bench run --suite core --quick --out {file.parent}`."
        )
    records: list[Record] = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            record = parse_line(line)
        except ValueError as error:
            raise ValueError(
                f"{file}, line {number}: {error} Delete the line; the next run makes its cell anew."
            ) from error
        if records and record["suite_hash"] != records[0]["suite_hash"]:
            raise ValueError(
                f"{file}, line {number}: a record of {_suite(record)} in a file of "
                f"{_suite(records[0])}. Results of two suites cannot be compared: keep one a file."
            )
        records.append(record)
    return records


def _suite(record: Mapping[str, Any]) -> str:
    return f"suite {record['suite']} ({record['suite_hash']})"


def newest(records: Iterable[Record]) -> dict[Key, Record]:
    """The last record of each cell, in the order in which the cells came first."""
    return {key_of(record): record for record in records}


def read_results(folder: str | os.PathLike[str]) -> Results:
    """The results in `folder`, or in a file of that form.

    Raises:
        FileNotFoundError, ValueError: see `read_lines`; or there is no record yet.
    """
    path = Path(folder)
    file = path if path.is_file() else path / RESULTS
    records = newest(read_lines(file))
    if not records:
        raise ValueError(f"{file} holds no record yet. Run `textgym bench run` to its end first.")
    return Results(tuple(records.values()))


# ---------------------------------------------------------------- scores
@dataclass(frozen=True)
class Anchors:
    """What is 0 and what is 1 on a task.

    Args:
        random: mean return of uniformly random tokens.
        oracle: of the task's own oracle, or the optimum.
        exact: computed, so that `oracle` is the optimum; otherwise both were measured.
    """

    random: float
    oracle: float
    exact: bool

    def normalized(self, mean_return: float) -> float:
        """As `textgym.scoring.normalized`."""
        ends = Reference(random=Estimate.exact(self.random), oracle=Estimate.exact(self.oracle))
        return normalized(mean_return, ends)


@dataclass(frozen=True)
class Results:
    """The newest record of every cell of one suite.

    Args:
        records: one a cell, anchors included.
    """

    records: tuple[Record, ...]

    @property
    def suite(self) -> str:
        """The name of the suite."""
        return str(self.records[0]["suite"])

    @property
    def suite_hash(self) -> str:
        """Of everything in the suite that determines numbers."""
        return str(self.records[0]["suite_hash"])

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in the order of the records."""
        return tuple(dict.fromkeys(record["task"] for record in self.records))

    @property
    def agents(self) -> tuple[str, ...]:
        """Names, without the anchors."""
        names = dict.fromkeys(record["agent"] for record in self.records)
        return tuple(name for name in names if name not in ANCHORS)

    @property
    def failed(self) -> tuple[Record, ...]:
        """The records whose status is not ok."""
        return tuple(record for record in self.records if record["status"] != "ok")

    def seeds(self, agent: str) -> tuple[int, ...]:
        """The seeds that `agent` has a record of, on any task."""
        found = {record["seed"] for record in self.records if record["agent"] == agent}
        return tuple(sorted(found))

    def cells(self, task: str, agent: str) -> tuple[Record, ...]:
        """The records of `agent` on `task` that are ok, by seed."""
        found = [
            record
            for record in self.records
            if (record["task"], record["agent"], record["status"]) == (task, agent, "ok")
        ]
        return tuple(sorted(found, key=lambda record: record["seed"]))

    def anchors(self, task: str) -> Anchors | None:
        """What is 0 and 1 on `task`; None while an anchor is missing, or where they are equal."""
        return self._anchors_of_tasks.get(task)

    @functools.cached_property
    def _anchors_of_tasks(self) -> dict[str, Anchors | None]:
        return {task: self._found_anchors(task) for task in self.tasks}

    def _found_anchors(self, task: str) -> Anchors | None:
        for record in self.records:
            if record["task"] == task and record["exact"] is not None:
                exact = record["exact"]
                return _anchors(exact["random"], exact["optimum"], exact=True)
        means = [mean_return(cells[0]) for name in ANCHORS if (cells := self.cells(task, name))]
        return _anchors(*means, exact=False) if len(means) == len(ANCHORS) else None

    def score(self, record: Mapping[str, Any], *, greedy: bool = False) -> float | None:
        """The normalised score of a cell; None where it, or an anchor of its task, is missing.

        Args:
            record: of a cell of these results.
            greedy: that of taking the likeliest token always, where it was measured.
        """
        returns = record["greedy_returns" if greedy else "returns"]
        anchors = self.anchors(record["task"])
        if record["status"] != "ok" or not returns or anchors is None:
            return None
        return anchors.normalized(float(np.mean(returns)))

    def scores(self, agent: str) -> NDArray[np.float64]:
        """Normalised scores of `agent`, `[n_seeds, n_tasks]` as `seeds` and `tasks` order them.

        What is missing is nan.

        Raises:
            TypeError: there is no such agent; lists near matches.
        """
        check_known("agent", [agent], (*self.agents, *ANCHORS))
        seeds, tasks = self.seeds(agent), self.tasks
        table = np.full((len(seeds), len(tasks)), np.nan)
        for task in tasks:
            for record in self.cells(task, agent):
                score = self.score(record)
                if score is not None:
                    table[seeds.index(record["seed"]), tasks.index(task)] = score
        return table


def mean_return(record: Mapping[str, Any]) -> float:
    """The mean of the held-out returns of a cell that is ok."""
    return float(np.mean(record["returns"]))


def _anchors(random: float, oracle: float, *, exact: bool) -> Anchors | None:
    return Anchors(float(random), float(oracle), exact) if oracle > random else None
