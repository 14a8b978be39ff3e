"""The arguments of a specification such as ``length:max=40``, read by a constructor's signature."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin

from textgym.errors import check_choice, near_matches

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_arguments(function: Callable[..., Any], text: str) -> dict[str, Any]:
    """Keyword arguments of `function` from comma-separated values, by position or ``key=value``.

    Values are converted as the parameters are annotated: int, float, bool, str, `Literal`, any of
    these or None, and lists of them, whose items are separated by ``|``.

    Raises:
        ValueError: an unknown argument (near matches are listed), too many, or a value that does
            not fit.

    Example:
        >>> def length(target: int | None = None, *, max: int | None = None, name: str = "x"): ...
        >>> parse_arguments(length, "max=40, name=short"), parse_arguments(length, "12")
        ({'max': 40, 'name': 'short'}, {'target': 12})
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    positional = [n for n, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    annotated = getattr(function, "__init__", function) if isinstance(function, type) else function
    hints = typing.get_type_hints(annotated)
    values: dict[str, Any] = {}
    for number, item in enumerate(filter(None, (part.strip() for part in text.split(",")))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            if number >= len(positional):
                raise ValueError(f"{item!r} is one argument too many. Write `key=value`.")
            key, value = positional[number], key
        elif key not in parameters:
            raise ValueError(f"unknown argument {key!r}; {near_matches(key, parameters)}")
        if key in values:
            raise ValueError(f"`{key}` is given twice.")
        values[key] = convert(key, value, hints.get(key, str))
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in values]
    if missing:
        raise ValueError(f"it needs {', '.join(f'`{n}`' for n in missing)}.")
    return values


def convert(key: str, value: str, hint: Any) -> Any:
    """`value` as the type `hint` says.

    Raises:
        ValueError: where it cannot be read as that.
    """
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(kinds) < len(get_args(hint)) and value.casefold() in ("none", ""):
            return None
        return _first_that_fits(key, value, kinds)
    if origin is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        check_choice(key, value, choices)
        return get_args(hint)[choices.index(value)]
    if origin in (list, tuple, Sequence):
        kind = next(iter(get_args(hint)), str)
        return [convert(key, item.strip(), kind) for item in value.split("|")]
    if hint is bool:
        if value.casefold() not in _TRUTHS:
            raise ValueError(f"`{key}` must be true or false, got {value!r}.")
        return _TRUTHS[value.casefold()]
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError:
            kind = "an int" if hint is int else "a number"
            raise ValueError(f"`{key}` must be {kind}, got {value!r}.") from None
    return value


def _first_that_fits(key: str, value: str, kinds: Sequence[Any]) -> Any:
    # int before float before str, so that "3" is 3 where both would do.
    order = {int: 0, float: 1, bool: 2}
    problem: ValueError | None = None
    for kind in sorted(kinds, key=lambda k: order.get(k, 3)):
        try:
            return convert(key, value, kind)
        except ValueError as error:
            problem = problem or error
    raise problem or ValueError(f"`{key}` cannot be given here.")
