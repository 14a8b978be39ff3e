"""Suites of one's own: in a file, or in a module."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from textgym.errors import check_known
from textgym.suites import Suite, SuiteTask, find_suite
from textgym_agents.bench.imports import imported

_NEEDED = ("name", "description", "tasks")


def load_suite(name: str) -> Suite:
    """The suite that `name` stands for.

    Args:
        name: as for `find_suite`; or a file, ``"path/to/suite.json"``; or
            ``"package.module:SUITE"`` or ``"file.py:SUITE"``.

    Raises:
        TypeError: there is none of that name (lists near matches), or what was found is none.
        ValueError: the file does not describe one.
        FileNotFoundError, ImportError: no such file, module or attribute.
    """
    if name.endswith(".json"):
        return _from_file(Path(name))
    return _from_module(name) if ":" in name else find_suite(name)


def _from_file(file: Path) -> Suite:
    try:
        record: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}.") from error
    if not isinstance(record, dict) or not set(_NEEDED) <= set(record):
        raise ValueError(
            f"{file} must be a JSON object with {', '.join(_NEEDED)}, got "
            f"{', '.join(record) if isinstance(record, dict) else type(record).__name__}. See "
            "docs/benchmarks.md."
        )
    check_known("field", record, [field.name for field in dataclasses.fields(Suite)])
    tasks = tuple(SuiteTask.from_json(task) for task in record["tasks"])
    seeds = {"seeds": tuple(record["seeds"])} if "seeds" in record else {}
    return Suite(**(record | {"tasks": tasks} | seeds))


def _from_module(name: str) -> Suite:
    found = imported(name)
    if not isinstance(found, Suite):
        raise TypeError(f"{name} must be a `textgym.suites.Suite`, got {type(found).__name__}.")
    return found
