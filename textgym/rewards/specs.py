"""Rewards written as text, for command lines and configuration files."""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from textgym.errors import near_matches
from textgym.metrics import METRICS
from textgym.rewards.arguments import convert
from textgym.rewards.base import Reward

# Other packages add theirs under this group of entry points: name = "package.module:Class".
ENTRY_POINTS = "textgym.rewards"

# Names and classes, which are imported when they are asked for. The name of a metric is one too.
OWN: dict[str, str] = {
    "answer": "textgym.rewards.answer:Answer",
    "avoid": "textgym.rewards.avoidance:Avoid",
    "budget": "textgym.rewards.budget:Budget",
    "clip": "textgym.rewards.combine:Clip",
    "code": "textgym.rewards.code:Code",
    "constraint": "textgym.rewards.lagrangian:Constraint",
    "distinct": "textgym.rewards.distinct:Distinct",
    "format": "textgym.rewards.format:Format",
    "gate": "textgym.rewards.combine:Gate",
    "grammar": "textgym.rewards.grammar:Grammar",
    "http": "textgym.rewards.http_reward:HTTP",
    "json_schema": "textgym.rewards.json_schema:JSONSchema",
    "judge": "textgym.rewards.judge:Judge",
    "keywords": "textgym.rewards.keywords:Keywords",
    "language": "textgym.rewards.language:Language",
    "length": "textgym.rewards.length:Length",
    "loops": "textgym.rewards.loops:Loops",
    "maths": "textgym.rewards.maths:Maths",
    "minimum": "textgym.rewards.combine:Minimum",
    "normalize": "textgym.rewards.normalize:Normalize",
    "novelty": "textgym.rewards.novelty:Novelty",
    "product": "textgym.rewards.combine:Product",
    "python": "textgym.rewards.function:PythonReward",
    "readability": "textgym.rewards.readability:Readability",
    "redistribute": "textgym.rewards.redistribute:Redistribute",
    "regex": "textgym.rewards.regex:Regex",
    "repetition": "textgym.rewards.repetition:Repetition",
    "schedule": "textgym.rewards.schedule:Schedule",
    "shaped": "textgym.rewards.shaping:Shaped",
    "sum": "textgym.rewards.combine:WeightedSum",
    "target": "textgym.rewards.target:Target",
    "task-score": "textgym.rewards.task_score:TaskScore",
    "unit_test": "textgym.rewards.unit_test:UnitTest",
}


def from_spec(spec: str) -> tuple[Reward, float]:
    """A reward and its weight from text such as ``"length:max=40*0.5"``.

    Args:
        spec: a name, then a colon and arguments where it takes any, then ``*`` and a weight if it
            is not 1. Arguments are those of the reward's class, by position or as ``key=value``,
            separated by commas; a few rewards read theirs otherwise (``keywords:happy,love``,
            ``regex:PATTERN``), as their docstrings say. Rewards made of others take these in
            parentheses, separated by semicolons, options last, as in
            ``minimum(length:40; keywords:fox)``. `known_rewards` lists the names.

    Raises:
        ValueError: an unknown name (near matches are listed), or arguments that do not fit it.

    Example:
        >>> reward, weight = from_spec("keywords:happy,love*0.5")
        >>> reward.words, weight
        (('happy', 'love'), 0.5)
    """
    body, weight = _split_weight(spec)
    opening = body.find("(")
    name = (body if opening < 0 else body[:opening]).partition(":")[0].strip()
    known = known_rewards()
    if name not in known:
        raise ValueError(f"unknown reward {name!r} in {spec!r}; {near_matches(name, known)}")
    try:
        kind = reward_class(name)
        if hasattr(kind, "from_parts"):
            return _made_of_parts(name, kind, body.strip()), weight
        arguments = body.partition(":")[2].strip()
        if name in METRICS:  # `chrf` is `target:chrf`
            arguments = f"{name},{arguments}"
        return kind.from_arguments(arguments), weight
    except (ImportError, TypeError, ValueError) as error:
        raise ValueError(f"reward {spec!r}: {error}") from error


@cache
def _added() -> dict[str, Any]:
    """The entry points of other packages, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def known_rewards() -> list[str]:
    """The names that a specification may begin with.

    >>> "keywords" in known_rewards()
    True
    """
    return sorted({*OWN, *METRICS, *_added()})


def reward_class(name: str) -> Any:
    """The class behind a name of `known_rewards`.

    Raises:
        ValueError: where it needs a package that is not installed.
    """
    if name in METRICS:
        name = "target"
    if name not in OWN:
        try:
            return _added()[name].load()
        except ImportError as error:
            raise ValueError(f"it needs a package that is not there: {error}") from error
    module, _, attribute = OWN[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _split_weight(spec: str) -> tuple[str, float]:
    body, star, tail = spec.rpartition("*")
    try:
        return (body, float(tail)) if star else (spec, 1.0)
    except ValueError as error:
        # A star may belong to the arguments, of a regular expression, say.
        if body.partition(":")[0].strip() in _STARRED or ")" in tail:
            return spec, 1.0
        raise ValueError(
            f"reward {spec!r}: after `*` a number is expected as weight, got {tail!r}."
        ) from error


_STARRED = ("json_schema", "regex")


def _made_of_parts(name: str, kind: Any, body: str) -> Reward:
    """`name(spec; spec; key=value)`."""
    inside = body.partition("(")[2]
    if not inside.endswith(")"):
        raise ValueError(f"expected `{name}(REWARD; ...; key=value)`.")
    parameters = inspect.signature(kind.from_parts).parameters
    hints = inspect.get_annotations(kind.from_parts, eval_str=True)
    parts: list[tuple[Reward, float]] = []
    options: dict[str, Any] = {}
    for item in filter(None, map(str.strip, _split_parts(inside[:-1]))):
        key, equals, value = (text.strip() for text in item.partition("="))
        if equals and key.isidentifier():
            if key not in parameters or key == "parts":
                named = [p for p in parameters if p != "parts"]
                raise ValueError(f"unknown argument {key!r}; {near_matches(key, named)}")
            options[key] = convert(key, value, hints.get(key, str))
        else:
            parts.append(from_spec(item))
    made: Reward = kind.from_parts(parts, **options)
    return made


def _split_parts(text: str) -> list[str]:
    """`text` at the semicolons that stand in no parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ";" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
