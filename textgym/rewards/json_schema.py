"""`JSONSchema`: is the completion JSON that fits a schema?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.json_text import find_json
from textgym.rewards.json_validator import TooLongError, errors, make_validator

# What any JSON is worth, and what more it is worth, over 1 + n, with n of its parts wrong.
JSON, NEARLY = 0.2, 0.6

# Where one of these fails at the top, the value as a whole is another one than was asked for.
_OF_THE_WHOLE = ("type", "enum", "const", "anyOf", "oneOf", "not")


class JSONSchema(Reward):
    """1 where the completion is JSON that is valid under a schema, with partial credit.

    0 is paid for what is not JSON, 0.2 for JSON that is another kind of value than was asked for
    (of the wrong type, or none of its alternatives), 0.2 + 0.6 / (1 + n) where n of its properties
    or items, or rules about them all, are missing or wrong, and 1 where it is valid. The shortest
    valid value maximises it: a schema should require what it wants, with lengths and patterns.

    With `extract`, the JSON may stand in a text: in its first fenced code block (marked ``json``
    or not at all), else it is the first object or array whose brackets are in balance. The parts
    of one that is broken off earn nothing.

    JSON is that of RFC 8259. NaN, Infinity, the same key twice in an object, numbers that a float
    cannot hold, and nesting deeper than 32 are not JSON here. Beyond `max_characters` nothing is
    read. A judgement that takes too long, for a schema that refers to itself or a pattern that
    backtracks, pays 0.2. Nothing is ever fetched: a schema holds all that it refers to. ``format``
    is not judged, as the standard has it.

    As a specification, ``json_schema:path/to/schema.json,extract=false``, or the schema itself,
    commas included: ``json_schema:{"type": "object", "required": ["name"]}``.

    Args:
        schema: a schema, as a dict or its JSON, or the path of a ``.json`` file of it. Drafts 3 to
            2020-12, as its ``$schema`` says, the latest by default.
        extract: whether other text may stand around the JSON.
        max_characters: how far a completion is read.
        name: its name in `info["rewards"]`.

    Raises:
        ImportError: where `jsonschema` is not installed.
        ValueError: no such file, or no valid schema.

    Source:
        https://json-schema.org

    Example:
        >>> fox = JSONSchema({
        ...     "type": "object",
        ...     "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        ...     "required": ["name", "age"],
        ... })
        >>> fox.value('Here it is: {"name": "Ro", "age": 3}.'), fox.value('{"name": "Ro"}')
        (1.0, 0.5)
        >>> fox.value('["Ro", 3]'), fox.value('{"name": "Ro", "ag')
        (0.2, 0.0)
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        schema: str | Mapping[str, Any],
        *,
        extract: bool = True,
        max_characters: int = 10_000,
        name: str = "json_schema",
    ) -> None:
        self.schema = _read_schema(schema)
        self.extract = extract
        self.max_characters = check_positive_int("max_characters", max_characters)
        self.name = name
        self._text = json.dumps(self.schema)
        make_validator(self._text)

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """``json_schema:FILE.json,key=value`` or ``json_schema:{...}``."""
        return cls(text) if text.startswith("{") else super().from_arguments(text)

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        try:
            found = find_json(text, extract=self.extract, max_characters=self.max_characters)
        except ValueError:
            return 0.0
        wrong: set[Any] = set()
        try:
            for error in errors(make_validator(self._text), found):
                if error.path:
                    wrong.add(error.path[0])
                elif error.validator in _OF_THE_WHOLE:
                    return JSON
                elif error.validator == "required":
                    wrong.update(key for key in error.validator_value if key not in found)
                else:
                    wrong.add((error.validator,))
        except TooLongError:
            return JSON
        return JSON + NEARLY / (1 + len(wrong)) if wrong else 1.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)


def _read_schema(schema: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(schema, str | Path):
        text = str(schema).strip()
        if not text.startswith("{"):
            if not text.endswith(".json"):
                raise ValueError(
                    f"`schema` must be a JSON object or the path of a .json file, got {text!r}."
                )
            try:
                text = Path(text).read_text(encoding="utf-8")
            except OSError as error:
                raise ValueError(f"the schema {str(schema)!r} cannot be read: {error}.") from error
    elif isinstance(schema, Mapping):
        text = json.dumps(dict(schema))
    else:
        raise TypeError(f"`schema` must be a dict, JSON or a path, got {schema!r}.")
    try:
        read = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the schema is not JSON: {error}.") from error
    if not isinstance(read, dict):
        raise ValueError(f"`schema` must be a JSON object, got {str(read)[:80]}.")
    return read
