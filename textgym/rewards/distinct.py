"""`Distinct`: reward a completion for saying something new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.repetition import word_ngrams

# A text is read this far: it bounds what is remembered of one completion.
MAX_CHARACTERS = 20_000


class Distinct(Reward):
    """The share of the completion's n-grams that are new: distinct-n, across episodes if asked.

    With k n-grams, d of them distinct, it is d / k, known as distinct-n. Where `window` is above
    0, n-grams that any of the last `window` completions used do not count among the d: an agent
    that always writes the same earns nothing from the second time on. An n-gram is n words in a
    row, case ignored; a completion without any (fewer than n words, an empty one) earns 0.

    Random words maximise it, and so does a text of n words, for want of anything to repeat: add it
    to rewards that pay for content and for length. Of a long completion the first 20 000 characters
    are read.

    Completions are judged in the order in which they come, each against the finished ones before
    it, those of its own batch included: a batch earns what its episodes would one at a time. While
    `learning` is False none are remembered, and all are judged against the same ones.

    Args:
        n: words in an n-gram.
        window: how many completions to remember; 0 judges each alone.
        name: its name in `info["rewards"]`.

    Source: Li et al., A diversity-promoting objective function for neural conversation models,
    2016, section 5.

    Example:
        >>> Distinct(n=1).value("the fox and the owl and the fox")
        0.5
        >>> Distinct().value("the fox and the owl"), Distinct().value("")
        (1.0, 0.0)
    """

    range = (0.0, 1.0)

    def __init__(self, n: int = 2, window: int = 0, *, name: str = "distinct") -> None:
        self.n = check_positive_int("n", n, "Use `n=2` for pairs of words.")
        if window != 0:
            check_positive_int("window", window, "Use `window=256`, or 0 for none.")
        self.window = window
        self.name = name
        # How many completions there were, and the number of the last that used each n-gram.
        self._count = 0
        self._last: dict[tuple[str, ...], int] = {}

    def value(self, text: str) -> float:
        """The reward of the completion `text`, which is not remembered."""
        return self._judge(word_ngrams(text[:MAX_CHARACTERS], self.n))

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]; the completions are remembered while `learning`."""
        values = np.zeros(len(episodes), np.float32)
        for i, episode in enumerate(episodes):
            grams = word_ngrams(episode.completion_text[:MAX_CHARACTERS], self.n)
            values[i] = self._judge(grams)
            if self.window and self.learning and episode.finish_reason is not None:
                self._remember(grams)
        return values

    def _judge(self, grams: list[tuple[str, ...]]) -> float:
        oldest = self._count - self.window
        new = sum(self._last.get(gram, -1) < max(oldest, 0) for gram in set(grams))
        return new / len(grams) if grams else 0.0

    def _remember(self, grams: list[tuple[str, ...]]) -> None:
        self._last.update(dict.fromkeys(grams, self._count))
        self._count += 1
        # Forgotten by and by, so that there are never more than two windows of them.
        if self._count % self.window == 0:
            oldest = self._count - self.window
            self._last = {gram: last for gram, last in self._last.items() if last >= oldest}

    # ------------------------------------------------------------------ snapshots
    def own_state(self) -> dict[str, Any]:
        """The n-grams of the last completions."""
        return {"count": self._count, "last": dict(self._last)}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._count, self._last = int(state["count"]), dict(state["last"])
