"""`Regex`: does the completion match a regular expression?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice
from textgym.rewards.base import Reward

Mode = Literal["full", "search"]


class Regex(Reward):
    """1 where the completion matches a regular expression, else 0.

    In mode ``"full"`` the whole completion must match, with or without the white space at its
    ends; in mode ``"search"`` any part of it. Whatever else the pattern lets through is free: a
    search is maximised by the shortest match, with anything around it.

    As a specification, all that follows the colon is the pattern, commas included, and it is
    matched in full: ``regex:[A-Z].*\\.``. Flags and a search are written in the pattern itself:
    ``regex:(?si).*fox.*``. A number after a last ``*`` is read as the weight, so a pattern that
    itself ends in ``*`` and a number needs ``*1`` behind it: ``regex:a*5*1``. Within the
    parentheses of another reward, write ``\\x3b`` for a semicolon, and ``\\x28`` and ``\\x29`` for
    parentheses that stand alone.

    The syntax is that of Python's `re`, and what the package `regex` adds to it: ``\\p{Lu}``,
    ``(?:fox){e<=1}`` for a fox with a typing error. A pattern can take forever on a text. What
    has not matched after `time_limit` does not match, and pays 0; `figures` counts these.

    Args:
        pattern: the regular expression.
        mode: ``"full"`` or ``"search"``.
        ignore_case: case does not matter.
        multiline: ``^`` and ``$`` match at each line.
        dot_all: ``.`` matches a newline too.
        time_limit: seconds that one match may take.
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: where `pattern` is empty or no regular expression.

    Example:
        >>> shout = Regex("[A-Z ]+!")
        >>> shout.value(" GO HOME!"), shout.value("GO HOME! Please.")
        (1.0, 0.0)
        >>> Regex("fox|owl", "search", ignore_case=True).value("The Fox ran.")
        1.0
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        pattern: str,
        mode: Mode = "full",
        *,
        ignore_case: bool = False,
        multiline: bool = False,
        dot_all: bool = False,
        time_limit: float = 0.1,
        name: str = "regex",
    ) -> None:
        import regex

        check_choice("mode", mode, ("full", "search"))
        if not time_limit > 0:
            raise ValueError(f"`time_limit` must be above 0 seconds, got {time_limit!r}.")
        if not pattern:
            raise ValueError("`pattern` is empty. Use `regex:[A-Z].*`, for instance.")
        flags = (
            regex.IGNORECASE * ignore_case | regex.MULTILINE * multiline | regex.DOTALL * dot_all
        )
        try:
            self._pattern = regex.compile(pattern, flags)
        except (regex.error, RecursionError) as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}.") from error
        self.pattern = pattern
        self.mode: Mode = mode
        self.time_limit = time_limit
        self.name = name
        self.timeouts = 0

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """``regex:PATTERN``: all of `text` is the pattern."""
        return cls(text)

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        match = self._pattern.search if self.mode == "search" else self._pattern.fullmatch
        stripped = text.strip()
        texts = (text,) if self.mode == "search" or stripped == text else (text, stripped)
        try:
            return float(any(match(t, timeout=self.time_limit) is not None for t in texts))
        except TimeoutError:
            self.timeouts += 1
            return 0.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, each 0 or 1."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)

    def figures(self) -> dict[str, float]:
        """How many completions have taken too long."""
        return {**super().figures(), "timeouts": float(self.timeouts)}
