"""`Keywords`: reward a completion for the words it contains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice
from textgym.rewards.base import Reward

WordMode = Literal["share", "all"]


class WordList:
    """Words and phrases to look for in texts: whole words, whatever their case.

    Args:
        words: what to look for; white space in a phrase stands for any other.
        example: how to write such a list, for messages.

    Attributes:
        words: the distinct ones, case-folded.

    Example:
        >>> WordList(["Fox", "red  kite", "fox"]).words
        ('fox', 'red kite')
        >>> WordList(["fox", "red kite"]).present("Foxes, and a RED kite")
        1
    """

    def __init__(self, words: Sequence[str], example: str = '["happy"]') -> None:
        if isinstance(words, str) or not all(isinstance(w, str) and w.strip() for w in words):
            raise TypeError(f"`words` must be a list of non-empty str, got {words!r}.")
        self.words = tuple(dict.fromkeys(" ".join(w.casefold().split()) for w in words))
        if not self.words:
            raise ValueError(f"`words` must name a word, got none. Use `{example}`.")
        # Look-arounds, not \b: a keyword may begin or end with a sign, as "C++" does.
        self._patterns = [
            re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, w.split())) + r"(?!\w)")
            for w in self.words
        ]
        self._first = [w.split()[0] for w in self.words]

    def __len__(self) -> int:
        return len(self.words)

    def present(self, text: str) -> int:
        """How many of the words `text` contains, each counted once."""
        text = text.casefold()
        # A plain search first, which spares most patterns a slow walk through a long text.
        return sum(
            first in text and pattern.search(text) is not None
            for first, pattern in zip(self._first, self._patterns, strict=True)
        )


def split_words(text: str, example: str) -> list[str]:
    """The words that ``word,two words`` names, from a specification.

    Raises:
        ValueError: where it names none.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"it names no keyword or phrase. Use `{example}`.")
    return words


def check_mode(mode: WordMode) -> WordMode:
    """`mode` if it is one, else raise `ValueError`."""
    check_choice("mode", mode, get_args(WordMode))
    return mode


class Keywords(Reward):
    """The fraction of the keywords that are present in the completion.

    A keyword counts once, as a whole word, whatever its case; it may be a phrase of several words.
    (Paying each occurrence instead would be maximised by repeating one word.) The bare list of the
    keywords earns 1: pay for what surrounds them too.

    Args:
        words: the keywords.
        mode: ``"share"`` pays the fraction; ``"all"`` pays 1 where all are present, else 0.
        name: its name in `info["rewards"]`.

    Example:
        >>> Keywords(["happy", "a red kite"]).value("So happy, happy with unhappy friends!")
        0.5
    """

    range = (0.0, 1.0)

    def __init__(
        self, words: Sequence[str], *, mode: WordMode = "share", name: str = "keywords"
    ) -> None:
        self._list = WordList(words, 'Keywords(["happy"])')
        self.words = self._list.words
        self.mode = check_mode(mode)
        self.name = name

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """``keywords:happy,red kite``: what stands between the commas are the keywords."""
        return cls(split_words(text, "keywords:happy,love"))

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        present = self._list.present(text)
        if self.mode == "all":
            return float(present == len(self._list))
        return present / len(self._list)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)
