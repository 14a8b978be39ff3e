"""`Keywords`: reward a completion for the words it contains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward


class Keywords(Reward):
    """The fraction of the keywords that are present in the completion.

    A keyword counts once, as a whole word, whatever its case; it may be a phrase of several words.
    (Paying each occurrence instead would be maximised by repeating one word.)

    Args:
        words: the keywords.
        name: its name in `info["rewards"]`.

    Example:
        >>> Keywords(["happy", "a red kite"]).value("So happy, happy with unhappy friends!")
        0.5
    """

    range = (0.0, 1.0)

    def __init__(self, words: Sequence[str], *, name: str = "keywords") -> None:
        if isinstance(words, str) or not all(isinstance(w, str) and w.strip() for w in words):
            raise TypeError(f"`words` must be a list of non-empty str, got {words!r}.")
        self.words = tuple(dict.fromkeys(" ".join(w.casefold().split()) for w in words))
        if not self.words:
            raise ValueError('`words` must name a keyword, got none. Use `Keywords(["happy"])`.')
        self.name = name
        # Look-arounds, not \b: a keyword may begin or end with a sign, as "C++" does.
        self._patterns = [
            re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, w.split())) + r"(?!\w)")
            for w in self.words
        ]

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """``keywords:happy,red kite``: what stands between the commas are the keywords."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        if not words:
            raise ValueError("it names no keyword. Use `keywords:happy,love`.")
        return cls(words)

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        text = text.casefold()
        return sum(p.search(text) is not None for p in self._patterns) / len(self._patterns)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)
