"""`Avoid`: reward a completion for the words it does without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward
from textgym.rewards.keywords import WordList, WordMode, check_mode, split_words


class Avoid(Reward):
    """The fraction of the words that are absent from the completion: 1 where none occurs.

    Words are found as `Keywords` finds them: whole, whatever their case, phrases included. Each
    counts once, so of N words each one used costs 1 / N: for a long list take ``mode="all"``, or a
    greater weight.

    Anything without the words earns 1, an empty completion and gibberish too: add it to a reward
    that pays for content. Spelling a word otherwise ("b a d") is not noticed.

    Args:
        words: the words and phrases to avoid.
        mode: ``"share"`` pays the fraction; ``"all"`` pays 1 where all are absent, else 0.
        name: its name in `info["rewards"]`.

    Example:
        >>> avoid = Avoid(["very", "in my opinion"])
        >>> [avoid.value(text) for text in ("Every fox ran.", "A very red fox.", "")]
        [1.0, 0.5, 1.0]
        >>> Avoid(["very", "in my opinion"], mode="all").value("A very red fox.")
        0.0
    """

    range = (0.0, 1.0)

    def __init__(
        self, words: Sequence[str], *, mode: WordMode = "share", name: str = "avoid"
    ) -> None:
        self._list = WordList(words, 'Avoid(["very"])')
        self.words = self._list.words
        self.mode = check_mode(mode)
        self.name = name

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """``avoid:very,in my opinion``: what stands between the commas are the words."""
        return cls(split_words(text, "avoid:very,really"))

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        present = self._list.present(text)
        if self.mode == "all":
            return float(present == 0)
        return 1.0 - present / len(self._list)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)
