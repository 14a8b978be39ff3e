"""`Novelty`: reward a completion for not copying."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice, check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.target import targets_of

Against = Literal["prompt", "target"]

# A completion is read this far: the rest would hardly change the share.
MAX_CHARACTERS = 20_000

# Letters and digits: an underscore, too, would make a new word of two.
_WORD = re.compile(r"[^\W_]+")


class Novelty(Reward):
    """The share of the completion's n-grams that do not occur in the prompt, or in the target.

    1 where no n words in a row are copied, 0 where all are. An n-gram is n words in a row, case
    and punctuation ignored, so that a comma makes nothing new; each counts once, so that repeating
    what is new does not either. A completion of fewer than n words is one n-gram of as many words
    as it has; one without words earns 0. Of a long completion the first 20 000 characters are read.

    Anything that has no phrase in common with the prompt maximises it, one strange word or
    gibberish included: add it to rewards that pay for sense, such as those against a target.

    Args:
        n: words in an n-gram.
        against: what not to copy: ``"prompt"``, or ``"target"``, all of them where an instance has
            several.
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: an unknown `against`; later, an episode without a target where it is needed.

    Source: See et al., Get to the point: summarization with pointer-generator networks, 2017,
    section 7.2.

    Example:
        >>> Novelty(n=2).value("The red fox slept.", "A red fox ran; the red owl slept.")
        0.3333333333333333
    """

    range = (0.0, 1.0)

    def __init__(self, n: int = 3, against: Against = "prompt", *, name: str = "novelty") -> None:
        self.n = check_positive_int("n", n, "Use `n=3` for phrases of three words.")
        check_choice("against", against, get_args(Against))
        self.against = against
        self.name = name

    def value(self, text: str, *sources: str) -> float:
        """The reward of the completion `text` where phrases of `sources` are not new."""
        words = _WORD.findall(text[:MAX_CHARACTERS].casefold())
        if not words:
            return 0.0
        n = min(self.n, len(words))
        grams = _grams(words, n)
        new = grams.difference(*(_grams(_WORD.findall(s.casefold()), n) for s in sources))
        return len(new) / len(grams)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        values = [self.value(e.completion_text, *self._sources(e)) for e in episodes]
        return np.array(values, np.float32)

    def _sources(self, episode: Episode) -> tuple[str, ...]:
        return (episode.prompt,) if self.against == "prompt" else targets_of(episode, self.name)


def _grams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[i:] for i in range(n)), strict=False))
