"""`Grammar`: is the completion a text of a formal language?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice, check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.parsing import make_reader

Parser = Literal["earley", "lalr"]

# What a text that is right as far as it goes is worth.
PART = 0.5


class Grammar(Reward):
    """1 where the completion as a whole can be derived from a grammar, with partial credit.

    Where it cannot, it is paid 0.5 times the share of its characters that a text of the language
    may begin with, up to the end of the last whole token that fits. The text is judged with and
    without the white space at its ends, and the better counts. The shortest text of the language
    maximises it (half of it is had by an unfinished one, ``(`` for an expression): pair it with a
    reward of what is said.

    The grammar is written in the language of the package `lark`, see
    https://lark-parser.readthedocs.io/en/stable/grammar.html. Any grammar will do for ``"earley"``;
    ``"lalr"`` takes fewer, and is faster with long texts. Beyond `max_characters` nothing is read,
    so that a longer text only earns partial credit. The same goes for what cannot be read in
    2,000,000 steps of ``"earley"``, the grammar being very ambiguous, or where one match of a
    pattern in it takes more than 0.1 s.

    As a specification, ``grammar:path/to/file.lark,start=expression,parser=lalr``.

    Args:
        grammar: a grammar, or the path of a ``.lark`` file of it.
        start: the rule that derives the whole text.
        parser: ``"earley"`` or ``"lalr"``.
        max_characters: how far a completion is read.
        name: its name in `info["rewards"]`.

    Raises:
        ImportError: where `lark` is not installed.
        ValueError: no such file, no valid grammar, or one that is not LALR(1) where it must be.

    Source:
        Earley, An efficient context-free parsing algorithm, 1970.

    Example:
        >>> sums = Grammar('start: start "+" start | /[0-9]+/')
        >>> sums.value("1+22+3"), sums.value("1+22+"), sums.value("1+x"), sums.value("x")
        (1.0, 0.5, 0.3333333333333333, 0.0)
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        grammar: str,
        start: str = "start",
        *,
        parser: Parser = "earley",
        max_characters: int = 2_000,
        name: str = "grammar",
    ) -> None:
        check_choice("parser", parser, ("earley", "lalr"))
        if not isinstance(grammar, str):
            raise TypeError(f"`grammar` must be a grammar or the path of one, got {grammar!r}.")
        path = None
        if grammar.strip().endswith(".lark") and "\n" not in grammar.strip():
            path = grammar.strip()
            try:
                grammar = Path(path).read_text(encoding="utf-8")
            except OSError as error:
                raise ValueError(f"the grammar {path!r} cannot be read: {error}.") from error
        self.max_characters = check_positive_int("max_characters", max_characters)
        self.name = name
        self._made_of = (parser, grammar, start, path)
        make_reader(*self._made_of)

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        return max(self._of(t) for t in dict.fromkeys((text, text.strip())))

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)

    def _of(self, text: str) -> float:
        whole, reached = make_reader(*self._made_of).read(text[: self.max_characters])
        if whole and len(text) <= self.max_characters:
            return 1.0
        return PART * reached / len(text) if text else 0.0
