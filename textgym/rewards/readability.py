"""`Readability`: reward a completion for how easy it is to read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice
from textgym.rewards.base import Reward

# A text is read this far.
MAX_CHARACTERS = 100_000

Language = Literal["en", "de", "es", "fr", "it", "nl"]


class _Formula(NamedTuple):
    """ease = base - sentence * (words a sentence) - word * (syllables a word)."""

    dictionary: str
    base: float
    sentence: float
    word: float


_FORMULAS: dict[str, _Formula] = {
    "en": _Formula("en_US", 206.835, 1.015, 84.6),  # Flesch, 1948
    "de": _Formula("de_DE", 180.0, 1.0, 58.5),  # Amstad, 1978
    "es": _Formula("es", 206.84, 1.02, 60.0),  # Fernández Huerta, 1959
    "fr": _Formula("fr", 207.0, 1.015, 73.6),  # Kandel and Moles, 1958
    "it": _Formula("it_IT", 217.0, 1.3, 60.0),  # Franchina and Vacca, 1986
    "nl": _Formula("nl_NL", 206.84, 0.93, 77.0),  # Douma, 1960
}

# Longer runs of letters are no words: they are cut, so that a gibberish one has many syllables.
_LETTERS = re.compile(r"[^\W\d_]{1,40}")
_APOSTROPHES = re.compile("['\u2019]")
_CLOSING = "\"'\u2019\u201d\u00bb)]}*_"
_ENDS = (".", "!", "?", "\u2026")

# The hyphenation dictionary keeps every word it has seen: of what models write, too many.
_MOST_KEPT = 50_000


class Readability(Reward):
    """How easy the completion is to read: its Flesch reading ease over 100, between 0 and 1.

    reading ease = 206.835 - 1.015 words / sentences - 84.6 syllables / words: 0.9 is very easy,
    0.6 plain English, 0.3 academic. Other languages have constants of their own. With
    `target_grade` the reward is 1 for a text of that Flesch-Kincaid grade (the years of school a
    reader needs), falling linearly to 0 at `tolerance` grades more or fewer:
    grade = 0.39 words / sentences + 11.8 syllables / words - 15.59.

    Words are runs of non-blank characters with a letter among them; sentences end with a word that
    ends in a full stop or its like, or with the text. Syllables are where Pyphen would hyphenate,
    which finds about one in twenty too few in English. A completion without words earns 0.

    It knows nothing of sense or spelling: short words in short sentences ("Go. Go. Go.") maximise
    it, gibberish included. Add it to a reward that pays for content. Of a long completion the first
    100 000 characters are read.

    Args:
        target_grade: the grade to write for, English only; None asks for ease.
        tolerance: the grades off `target_grade` at which the reward is 0.
        language: the language that completions are in.
        name: its name in `info["rewards"]`.

    Raises:
        ImportError: where Pyphen is not installed.

    Source: Flesch, A new readability yardstick, 1948; Kincaid et al., Derivation of new readability
    formulas for Navy enlisted personnel, 1975.

    Example:
        >>> text = "Reading is a simple matter."  # 1 sentence, 5 words, 8 syllables
        >>> round(Readability().value(text), 6)
        0.664
        >>> round(Readability(6.24).value(text), 6)  # it is of grade 5.24
        0.75
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        target_grade: float | None = None,
        *,
        tolerance: float = 4.0,
        language: Language = "en",
        name: str = "readability",
    ) -> None:
        check_choice("language", language, _FORMULAS)
        if target_grade is not None and language != "en":
            raise ValueError(
                f"`target_grade` is for English only, got language={language!r}. Leave it out."
            )
        if target_grade is not None and not math.isfinite(target_grade):
            raise ValueError(f"`target_grade` must be a finite number, got {target_grade!r}.")
        if not (math.isfinite(tolerance) and tolerance > 0):
            raise ValueError(f"`tolerance` must be a finite number above 0, got {tolerance!r}.")
        self.target_grade = target_grade
        self.tolerance = tolerance
        self.language = language
        self.name = name
        _hyphenation(language)  # fail here rather than at the end of the first episode

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        words, sentences, syllables = count_units(text[:MAX_CHARACTERS], self.language)
        if not words:
            return 0.0
        a_sentence, a_word = words / sentences, syllables / words
        if self.target_grade is None:
            formula = _FORMULAS[self.language]
            ease = formula.base - formula.sentence * a_sentence - formula.word * a_word
            return min(max(ease / 100, 0.0), 1.0)
        grade = 0.39 * a_sentence + 11.8 * a_word - 15.59
        return max(0.0, 1.0 - abs(grade - self.target_grade) / self.tolerance)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)


def count_units(text: str, language: str) -> tuple[int, int, int]:
    """The words, sentences and syllables of `text`.

    >>> count_units("(Stop!) The well-read fox's 3 meters away", "en")
    (6, 2, 8)
    """
    hyphenation = _hyphenation(language)
    if len(hyphenation.hd.cache) > _MOST_KEPT:
        hyphenation.hd.cache.clear()
    words = sentences = syllables = 0
    within = False
    for token in text.split():
        # Without its apostrophe "fox's" is one run of letters; "well-read" is two, but one word.
        runs = _LETTERS.findall(_APOSTROPHES.sub("", token))
        if runs:
            within = True
            words += 1
            syllables += sum(len(hyphenation.positions(run)) + 1 for run in runs)
        if within and token.rstrip(_CLOSING).endswith(_ENDS):
            within = False
            sentences += 1
    return words, sentences + within, syllables


@cache
def _hyphenation(language: str) -> Any:
    try:
        import pyphen
    except ImportError as error:
        raise ImportError(
            '`Readability` needs Pyphen. Install it: pip install "textgym[rewards]"'
        ) from error
    return pyphen.Pyphen(lang=_FORMULAS[language].dictionary)
