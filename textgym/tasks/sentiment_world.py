"""Little reviews: what is reviewed, what is said of it, and how much each thing said is worth.

A sentence is one clause or two. Every clause of the grammar is in one table, with the side it takes
(-2 for the worst, 2 for the best) and the thing it speaks of, so reading costs dictionary lookups.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from textgym.tasks.bag_of_words import BagOfWords

T = TypeVar("T")

# What is reviewed, and the parts of it that a review can speak of: no two kinds share one.
ASPECTS: dict[str, tuple[str, ...]] = {
    "film": ("acting", "plot", "ending", "music", "hero"),
    "book": ("story", "writing", "cover", "humour", "message"),
    "cafe": ("coffee", "tea", "cake", "soup", "bread"),
    "hotel": ("room", "bed", "view", "pool", "breakfast"),
    "toy": ("motor", "box", "paint", "sound", "shape"),
    "game": ("start", "map", "puzzle", "castle", "team"),
    "park": ("pond", "path", "lawn", "bridge", "playground"),
    "coat": ("colour", "hood", "pocket", "zip", "fit"),
}
KIND_OF = {aspect: kind for kind, aspects in ASPECTS.items() for aspect in aspects}
FIRST_NAMES = (
    *("Silver", "Blue", "Red", "Green", "Golden", "White", "Little", "Old"),
    *("North", "South", "Summer", "Winter", "Morning", "Evening", "Moon", "River"),
)
LAST_NAMES = (
    *("Lake", "Door", "Hill", "Star", "Tree", "Bird", "Stone", "House"),
    *("Road", "Gate", "Leaf", "Fox", "Boat", "Field", "Tower", "Wind"),
)

# How much each clause says for (or against) what is reviewed; ``(a|b)`` is a choice.
_GRAMMAR: dict[int, tuple[str, ...]] = {
    2: (
        "the {aspect} was (|really )(wonderful|superb|perfect|excellent|lovely)",
        "the {aspect} was a (joy|treat)",
        "the {aspect} made me (smile|happy)",
        "I (|really )loved the {aspect}",
        "(everyone should|I will gladly) try it (soon|again)",
    ),
    1: (
        "the {aspect} was (|quite )(good|nice|fine|pleasant)",
        "the {aspect} was not bad",
        "I (|quite )(liked|enjoyed) the {aspect}",
        "I am glad I tried it",
    ),
    0: (
        "I looked at the {aspect} (twice|first)",
        "my (sister|brother|friend) asked about the {aspect}",
        "it was a (cold|warm|grey|busy) (day|morning)",
        "I was with my (sister|brother|friend)",
        "I tried it on (Monday|Tuesday|Friday|Sunday)",
        "it was my (first|second) try",
    ),
    -1: (
        "the {aspect} was (|quite )(weak|dull|plain|poor)",
        "the {aspect} was not good",
        "I did not (like|enjoy) the {aspect}",
        "I am sorry I tried it",
    ),
    -2: (
        "the {aspect} was (|really )(awful|terrible|horrible|dreadful)",
        "the {aspect} was a (mess|shame)",
        "the {aspect} made me (angry|sad)",
        "I (|really )hated the {aspect}",
        "(nobody should|I will never) try it again",
    ),
}
STARTS = ("But ", "Still, ", "Also, ", "Even so, ", "In the end ", "To my surprise ")
AND, BUT = " and ", ", but "

_CHOICE = re.compile(r"\(([^()]*)\)")


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


class Clause(NamedTuple):
    """One thing said: its text, how much it is worth, and the aspect it speaks of, if any."""

    text: str
    worth: int
    aspect: str | None


def _clauses() -> dict[str, Clause]:
    found: dict[str, Clause] = {}
    for worth, patterns in _GRAMMAR.items():
        for pattern in patterns:
            parts = [p.split("|") if i % 2 else [p] for i, p in enumerate(_CHOICE.split(pattern))]
            for text in map("".join, itertools.product(*parts)):
                for aspect in KIND_OF if "{aspect}" in text else (None,):
                    told = text.replace("{aspect}", aspect or "")
                    found[told] = Clause(told, worth, aspect)
    return found


CLAUSES = _clauses()


@lru_cache
def clauses_about(kind: str, worth: int) -> tuple[Clause, ...]:
    """The clauses of `worth`, from -2 to 2, that fit a review of a `kind`."""
    on = (clauses_on(aspect, worth) for aspect in (None, *ASPECTS[kind]))
    return tuple(itertools.chain.from_iterable(on))


@lru_cache
def clauses_on(aspect: str | None, worth: int) -> tuple[Clause, ...]:
    """The clauses of `worth` that speak of `aspect`, or of none."""
    return tuple(c for c in CLAUSES.values() if c.worth == worth and c.aspect == aspect)


def tell(clauses: Sequence[Clause], joint: str = AND, start: str = "") -> str:
    """The sentence of one clause or two.

    >>> tell([CLAUSES["the tea was nice"], CLAUSES["I loved the cake"]])
    'The tea was nice and I loved the cake.'
    """
    text = start + joint.join(clause.text for clause in clauses)
    return text[0].upper() + text[1:] + "."


def read(sentence: str) -> tuple[Clause, ...] | None:
    """The clauses of `sentence`; None where it is not grammatical.

    Two clauses do not speak of the same thing. "But" joins clauses of which not both praise and not
    both blame; "and" those of which none undoes what the other does.

    >>> [clause.worth for clause in read("Still, the tea was fine and I loved the cake.")]
    [1, 2]
    >>> read("The tea was awful and I loved the cake.") is None
    True
    """
    if not sentence.endswith("."):
        return None
    body = sentence[:-1]
    start = next((start for start in STARTS if body.startswith(start)), "")
    body = body[len(start) :]
    if not start:
        if not body[:1].isupper():
            return None
        body = body if body.startswith("I ") else body[0].lower() + body[1:]
    joint = BUT if BUT in body else AND
    clauses = [CLAUSES.get(part) for part in body.split(joint)]
    found = tuple(clause for clause in clauses if clause is not None)
    if len(found) != len(clauses) or len(found) > 2:
        return None
    if len(found) == 2:
        same = found[0].worth * found[1].worth
        repeated = found[0].aspect == found[1].aspect
        if repeated or (same > 0 if joint == BUT else same < 0):
            return None
    return found


class Review:
    """What has been said so far in a review of a `kind`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.aspects: set[str] = set()
        self._told: set[Clause] = set()
        self._sides: dict[str, int] = {}

    def say(self, sentence: str) -> bool:
        """Say `sentence`; False, and nothing changes, where it is not sound.

        A sound sentence is grammatical, speaks of nothing that other kinds of things have, says
        nothing that was said before, and contradicts nothing: what was blamed is not praised.
        """
        clauses = read(sentence)
        if clauses is None:
            return False
        sides = dict(self._sides)
        for clause in clauses:
            if clause in self._told:
                return False
            if clause.aspect is not None:
                if KIND_OF[clause.aspect] != self.kind:
                    return False
                side = sides.setdefault(clause.aspect, clause.worth)
                if side * clause.worth < 0:
                    return False
                sides[clause.aspect] = side or clause.worth
        self._sides = sides
        self._told.update(clauses)
        self.aspects.update(clause.aspect for clause in clauses if clause.aspect is not None)
        return True


@lru_cache
def classifier() -> BagOfWords:
    """Fitted, once a process, to reviews drawn from the grammar.

    Readers differ: a review that is worth w in all (the sum over its clauses) is positive to a
    share of 1 / (1 + exp(-w)) of them, and that is what the classifier learns to tell.
    """
    rng = np.random.default_rng(0)
    kinds = tuple(ASPECTS)
    texts, labels = [], []
    for _ in range(1500):
        kind = kinds[int(rng.integers(len(kinds)))]
        clauses = [
            pick(clauses_about(kind, int(worth)), rng)
            for worth in rng.integers(-2, 3, size=rng.integers(1, 7))
        ]
        starts = ("", *STARTS)
        texts.append(" ".join(tell([c], start=pick(starts, rng)) for c in clauses))
        labels.append(1 / (1 + np.exp(-sum(clause.worth for clause in clauses))))
    return BagOfWords.fit(texts, labels, l2=0.1, steps=60)
