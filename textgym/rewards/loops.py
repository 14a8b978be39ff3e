"""`Loops`: a penalty for being caught in a loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward

# A text is read this far. The time it takes is in proportion to this and to `longest`.
MAX_CHARACTERS = 100_000


class Loops(Reward):
    """Minus the share of the completion that lies in loops: a penalty in [-1, 0].

    A loop is the same chunk several times in a row, case ignored: a chunk of words ("I am here. I
    am here. I am here."), or of characters within a run of them without a blank ("aaaaaa",
    "hahahaha"). Loops of characters only count from twice `times` characters on, or each "www" and
    "1000" would be one. The share is that of the characters that are not blank.

    Words that merely come again elsewhere cost nothing: see `Repetition`. Any text without loops
    earns 0, an empty one and gibberish too: add it to a reward that pays for content. Of a long
    completion the first 100 000 characters are read.

    Args:
        longest: the most words, or characters, that a chunk may have.
        times: how often in a row it must come to be a loop, at least 2.
        name: its name in `info["rewards"]`.

    Example:
        >>> loops = Loops()
        >>> [loops.value(text) for text in ("no no no no", "the fox, the owl, the fox")]
        [-1.0, 0.0]
        >>> loops.value("Stop! aaaaaaaaaaaaaaa")
        -0.75
    """

    range = (-1.0, 0.0)

    def __init__(self, longest: int = 20, *, times: int = 3, name: str = "loops") -> None:
        self.longest = check_positive_int("longest", longest, "Use `longest=20`.")
        self.times = check_positive_int("times", times, "Use `times=3`.")
        if self.times < 2:
            raise ValueError("`times` must be at least 2, got 1: once is no loop. Use `times=3`.")
        self.name = name

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        words = text[:MAX_CHARACTERS].casefold().split()
        if not words:
            return 0.0
        numbers: dict[str, int] = {}
        ids = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
        owners = np.repeat(np.arange(len(words)), [len(word) for word in words])
        # Lone surrogates are characters as well here.
        encoded = "".join(words).encode("utf-32-le", "surrogatepass")
        # Told apart by their words, so that no loop of characters goes beyond one.
        characters = np.frombuffer(encoded, "<u4").astype(np.int64) + (owners << 32)
        of_words = self._in_loops(ids, least=0)[owners]
        looped = of_words | self._in_loops(characters, least=2 * self.times)
        # Not minus that share, which would be -0.0 for most.
        return 0.0 - float(np.count_nonzero(looped)) / len(looped)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [-1, 0]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)

    def _in_loops(self, items: NDArray[np.int64], *, least: int) -> NDArray[np.bool_]:
        """`[N] bool`, True for those of `items` in a loop of at least `least` items."""
        count = len(items)
        # How many loops begin, less how many have ended, at each place.
        changes = np.zeros(count + 1, np.int64)
        for period in range(1, min(self.longest, count // self.times) + 1):
            # A loop is a stretch in which every item is the one a period later.
            same = np.zeros(count - period + 2, np.bool_)
            same[1:-1] = items[:-period] == items[period:]
            edges = np.flatnonzero(same[1:] != same[:-1])
            starts, ends = edges[::2], edges[1::2] + period
            loops = ends - starts >= max(self.times * period, least)
            changes[starts[loops]] += 1
            changes[ends[loops]] -= 1
        return np.cumsum(changes[:-1]) > 0
