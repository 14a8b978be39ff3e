"""Rewards written as text, for command lines and configuration files."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textgym.errors import near_matches
from textgym.rewards.base import Reward
from textgym.rewards.function import FunctionReward
from textgym.rewards.keywords import Keywords
from textgym.rewards.length import Length
from textgym.rewards.repetition import Repetition


def from_spec(spec: str) -> tuple[Reward, float]:
    """A reward and its weight from text such as ``"length:max=40*0.5"``.

    Args:
        spec: a name, then a colon and arguments where it takes any, then ``*`` and a weight if it
            is not 1. Names: ``keywords:happy,love``; ``length:40``, ``length:min=5,max=40``;
            ``repetition``, ``repetition:n=2``; ``python:package.module:function`` or
            ``python:path/to/file.py:function`` (a function of episodes, or a `Reward`).

    Raises:
        ValueError: an unknown name (near matches are listed), or arguments that do not fit it.

    Example:
        >>> reward, weight = from_spec("keywords:happy,love*0.5")
        >>> reward.words, weight
        (('happy', 'love'), 0.5)
    """
    body, weight = _split_weight(spec)
    name, _, arguments = body.partition(":")
    name = name.strip()
    if name not in _BUILDERS:
        raise ValueError(f"unknown reward {name!r} in {spec!r}; {near_matches(name, _BUILDERS)}")
    try:
        return _BUILDERS[name](arguments.strip()), weight
    except (TypeError, ValueError) as error:
        raise ValueError(f"reward {spec!r}: {error}") from error


def _split_weight(spec: str) -> tuple[str, float]:
    body, star, tail = spec.rpartition("*")
    if not star:
        return spec, 1.0
    try:
        return body, float(tail)
    except ValueError as error:
        raise ValueError(
            f"reward {spec!r}: after `*` a number is expected as weight, got {tail!r}."
        ) from error


def _keywords(arguments: str) -> Reward:
    words = [word.strip() for word in arguments.split(",") if word.strip()]
    if not words:
        raise ValueError("it names no keyword. Use `keywords:happy,love`.")
    return Keywords(words)


def _with_ints(kind: Callable[..., Reward], first: str) -> Callable[[str], Reward]:
    known = [name for name in inspect.signature(kind).parameters if name != "name"]

    def build(arguments: str) -> Reward:
        values: dict[str, int] = {}
        for item in filter(None, (part.strip() for part in arguments.split(","))):
            key, equals, value = item.partition("=")
            key, value = (key.strip(), value.strip()) if equals else (first, key.strip())
            if key not in known:
                raise ValueError(f"unknown argument {key!r}; {near_matches(key, known)}")
            if not value.lstrip("+-").isdecimal():
                raise ValueError(f"`{key}` must be an int, got {value!r}.")
            values[key] = int(value)
        return kind(**values)

    return build


def _python(arguments: str) -> Reward:
    where, _, attribute = arguments.rpartition(":")
    if not where or not attribute:
        raise ValueError("expected `python:package.module:function`.")
    module = _load_module(where)
    if not hasattr(module, attribute):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ValueError(f"{where} has no {attribute!r}; {near_matches(attribute, names)}")
    found = getattr(module, attribute)
    if isinstance(found, type) and issubclass(found, Reward):
        found = found()
    return found if isinstance(found, Reward) else FunctionReward(found)


def _load_module(where: str) -> Any:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ValueError(f"no module {error.name!r}. Is it on the path?") from error
    path = Path(where)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"no such file: {where}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_BUILDERS: dict[str, Callable[[str], Reward]] = {
    "keywords": _keywords,
    "length": _with_ints(Length, "target"),
    "repetition": _with_ints(Repetition, "n"),
    "python": _python,
}
