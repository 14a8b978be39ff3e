"""`Language`: is the completion written in a language?"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import near_matches
from textgym.rewards.base import Reward

# A text is read this far: its language is known by then, and more would only take time.
MAX_CHARACTERS = 10_000


class Language(Reward):
    """The probability that the completion is in a language, as `py3langid` gives it.

    It is low for a few words (0.25 for "the fox ran home" among 140 languages), and grows with
    length; `among` makes it surer. Any text of the language maximises it, nonsense made of its
    commonest words included: pair it with a reward of what is said. A text without a letter is in
    no language and pays 0. Only the first 10,000 characters are read.

    Args:
        language: the code of the language, ISO 639: ``"en"``, ``"de"``.
        among: the languages that it may be in at all, `language` or not, by default every one
            that `py3langid` knows. A text in none of them is still taken to be in one, with
            roughly even odds if it looks like none.
        name: its name in `info["rewards"]`.

    Raises:
        ImportError: where `py3langid` is not installed.
        ValueError: an unknown language, or fewer than two to choose from.

    Source:
        Lui and Baldwin, langid.py: an off-the-shelf language identification tool, 2012.

    Example:
        >>> german = Language("de", among=["de", "en"])
        >>> german.value("Der Fuchs lief schnell nach Hause.") > 0.99
        True
        >>> german.value("The fox ran home quickly.") < 0.01, german.value("")
        (True, 0.0)
    """

    range = (0.0, 1.0)

    def __init__(
        self, language: str, *, among: Sequence[str] | None = None, name: str = "language"
    ) -> None:
        if isinstance(among, str):
            raise TypeError(f'`among` must be a list of languages, got {among!r}. Use `["de"]`.')
        known = _identifier().labels
        for code in (language, *(among or ())):
            if code not in known:
                raise ValueError(f"unknown language {code!r}; {near_matches(str(code), known)}")
        self.language = language
        self.among = None if among is None else tuple(dict.fromkeys((language, *among)))
        self.name = name
        if self.among is not None and len(self.among) < 2:
            raise ValueError(
                f"`among` must name a language besides {language!r}: there would be no choice."
            )

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        text = text[:MAX_CHARACTERS]
        if not any(map(str.isalpha, text)):
            return 0.0
        probability: float = dict(_identifier(self.among).rank(text))[self.language]
        return min(1.0, max(0.0, probability))

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)


# Kept here, not in the reward, which can thus be pickled.
@cache
def _identifier(among: tuple[str, ...] | None = None) -> Any:
    """The identifier of `among` or of all languages: half a second to load, so once a process."""
    if among is not None:
        # A copy shares the model; it only sees these columns of it.
        identifier = copy(_identifier())
        identifier.set_languages(among)
        return identifier
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ImportError(
            'the reward `language` needs py3langid. Install it: pip install "textgym[rewards]"'
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
