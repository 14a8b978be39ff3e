"""`Repetition`: a penalty for saying the same again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward


class Repetition(Reward):
    """Minus the share of the completion's n-grams that it has used before: a penalty in [-1, 0].

    With k n-grams, d of them distinct, it is d / k - 1; 0 where there are none. An n-gram is n
    words in a row, case ignored.

    Args:
        n: words in an n-gram.
        name: its name in `info["rewards"]`.

    Example:
        >>> Repetition(n=1).value("the fox and the owl and the fox")
        -0.5
    """

    range = (-1.0, 0.0)

    def __init__(self, n: int = 3, *, name: str = "repetition") -> None:
        self.n = check_positive_int("n", n, "Use `n=3` for repeated phrases of three words.")
        self.name = name

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        grams = word_ngrams(text, self.n)
        return len(set(grams)) / len(grams) - 1.0 if grams else 0.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [-1, 0]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)


def word_ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every n words in a row of `text`, case ignored.

    >>> word_ngrams("The red fox", 2)
    [('the', 'red'), ('red', 'fox')]
    """
    words = text.casefold().split()
    if len(words) < n:
        return []
    return list(zip(*(words[i:] for i in range(n)), strict=False))
