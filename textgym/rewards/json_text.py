"""JSON as a model writes it: alone, or somewhere in a text. Whatever the text, this is quick."""

from __future__ import annotations

import json
import re
from typing import Any

# Deeper JSON is not read, nor is a number of more digits.
MAX_DEPTH = 32
MAX_DIGITS = 300

_FENCE = re.compile(r"```([^`\n]*)\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")


def find_json(text: str, *, extract: bool = True, max_characters: int = 10_000) -> Any:
    """The JSON value that `text` is, or, with `extract`, has in it.

    It is looked for in the first fenced code block that is marked ``json`` or not at all, else it
    is the first object or array whose brackets are in balance. The parts of one that is broken off
    do not count. NaN, Infinity, the same key twice in an object, numbers that a float cannot hold,
    and nesting deeper than 32 are not JSON here.

    Args:
        text: what was written.
        extract: whether other text may stand around the JSON.
        max_characters: how far it is read.

    Raises:
        ValueError: where there is none.

    Example:
        >>> find_json('See [here]: {"age": 3} or {"age": 4}')
        {'age': 3}
    """
    try:
        if len(text) <= max_characters:
            try:
                return _shallow(_DECODER.decode(text))
            except json.JSONDecodeError:
                pass
        if not extract:
            raise ValueError("not JSON")
        text = text[:max_characters]
        for fence in _FENCE.finditer(text):
            if fence[1].strip().casefold() in ("", "json"):
                return _shallow(_DECODER.decode(fence[2]))
        return _shallow(_first_balanced(text))
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None


def _first_balanced(text: str) -> Any:
    start = 0
    while (opening := _OPENING.search(text, start)) is not None:
        try:
            return _DECODER.raw_decode(text, opening.start())[0]
        except json.JSONDecodeError as error:
            # On from where it broke off: what was whole in it does not count, and the text is
            # read only once.
            start = max(error.pos, opening.end())
    raise ValueError("not JSON")


def _shallow(value: Any) -> Any:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            child
            for parent in layer
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    if any(isinstance(child, dict | list) for child in layer):
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the same key twice")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("too large a number")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError("too large a number")
    return number


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=_constant,
)
