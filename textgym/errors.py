"""Error messages that say what was expected, what was got and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class RewardError(RuntimeError):
    """A reward raised, or returned something that is not a reward; names the reward and episode.

    The step in which it happened has taken place, and no other row has lost anything: `result` is
    what the step would have returned, the faulty row being paid nothing by this reward.

    Attributes:
        reward_name: the reward at fault.
        episode: the episode it failed on.
        row: that episode's row of the vector env (0 in a single env).
        result: what `step` would have returned; None outside an environment.
    """

    reward_name: str | None = None
    episode: Any = None
    row: int | None = None
    result: tuple[Any, ...] | None = None


class RewardWarning(UserWarning):
    """A reward that may fail has failed on an episode, which was paid its fallback instead."""


def short(value: object, limit: int = 120) -> str:
    """`value` as Python writes it, cut to `limit` characters: for messages.

    >>> short("The fox ran home.", 10)
    "'The fox...'"
    >>> short([1, 2, 3, 4, 5], 10)
    '[1, 2, ...'
    """
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return repr(cut) if isinstance(value, str) else cut


# Longer lists would bury the message.
_MOST_LISTED = 40


def near_matches(name: str, known: Iterable[str]) -> str:
    """A clause naming what `name` may have been meant to be.

    >>> near_matches("keyword", ["keywords", "length"])
    'did you mean `keywords`? Known: keywords, length'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(f'`{c}`' for c in close)}?" if close else ""
    if len(names) > _MOST_LISTED:
        return (
            hint or f"Known: {', '.join(names[:_MOST_LISTED])} and {len(names) - _MOST_LISTED} more"
        )
    return f"{hint} Known: {', '.join(names)}".strip()


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `ValueError` where the argument `name` has a `value` that is not one of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"`{name}` cannot be {value!r}; {near_matches(str(value), choices)}")


def check_known(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise `TypeError` for the first of `names` that is not `known`, listing near matches."""
    known = list(known)
    for name in names:
        if name not in known:
            raise TypeError(f"unknown {kind} `{name}`; {near_matches(name, known)}")


def check_positive_int(name: str, value: object, example: str = "") -> int:
    """Return `value` if it is an int above 0 (bool excluded), else raise naming `name`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        kind = type(value).__name__
        message = f"`{name}` must be a positive int, got {value!r} ({kind}). {example}"
        raise TypeError(message.strip())
    number = int(value.__index__())
    if number < 1:
        raise ValueError(f"`{name}` must be a positive int, got {number}. {example}".strip())
    return number
