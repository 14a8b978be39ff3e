"""`TargetTask`: what tasks share whose prompts say everything and whose answers have a target."""

from __future__ import annotations

import abc
import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from textgym.episode import Episode, Instance
from textgym.metrics import METRICS
from textgym.tasks.base import TextTask, TokenCounter

# Longer texts than any answer are not read.
MAX_CHARACTERS = 1000

_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_AN = re.compile(r"\b([Aa])n ")


class TargetTask(TextTask):
    """A task with a target to compare with: the oracle's text, which is what `solve` gives.

    `metric_names` are names of `textgym.metrics`; each is reported against the target. Subclasses
    define `score_text`, and `from_prompt` that gives instances with `data` and `target`.
    """

    @abc.abstractmethod
    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for; `ValueError` where it is not one of this task's."""

    def known(self, instance: Instance) -> Instance:
        """`instance`, or what its prompt asks for where it came with a prompt alone."""
        return instance if instance.data else self.from_prompt(instance.prompt)

    def solve(self, instance: Instance) -> str:
        """The target: a completion that scores 1.0."""
        return self.known(instance).target or ""

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """`metric_names` of the completion against the target."""
        target = (episode.instance.target or self.solve(episode.instance)).strip()
        text = episode.completion_text.strip()
        return {name: METRICS[name](text, target) for name in self.metric_names}


def dice_of(source: str | np.random.Generator) -> random.Random:
    """A generator that makes many small choices fast, seeded by a text or the next draw of another.

    >>> dice_of("a").random() == dice_of("a").random()
    True
    """
    if isinstance(source, str):
        return random.Random(zlib.crc32(source.encode("utf-8", "replace")))
    return random.Random(int(source.integers(1 << 62)))


def with_articles(text: str) -> str:
    """`text`, written with "a" throughout, with "an" before vowels.

    >>> with_articles("A owl saw a fox and a owl.")
    'An owl saw a fox and an owl.'
    """
    return _ARTICLE.sub(r"\1n ", text)


def without_articles(text: str) -> str | None:
    """`text` with "a" for each "an"; None where one of them stands wrongly.

    >>> without_articles("An owl saw a fox.")
    'A owl saw a fox.'
    >>> without_articles("A owl saw a fox.") is None
    True
    """
    plain = _AN.sub(r"\1 ", text)
    return plain if with_articles(plain) == text else None


def longest(
    shapes: Iterable[str], words: Mapping[str, Sequence[str]], count_tokens: TokenCounter
) -> int:
    """An upper bound on the tokens of a text of one of `shapes`, special tokens not included.

    Every slot ``{name}`` is filled by its first word, and then counted as its longest, alone
    between spaces, where tokenizers do not merge.
    """
    special = count_tokens("")
    costs = {
        slot: [count_tokens(with_articles(f" a {word}")) for word in options]
        for slot, options in words.items()
    }
    first = {slot: options[0] for slot, options in words.items()}
    return max(
        count_tokens(shape.format_map(first))
        + sum(max(costs[slot]) - costs[slot][0] for slot in _SLOT.findall(shape))
        - special
        for shape in shapes
    )
