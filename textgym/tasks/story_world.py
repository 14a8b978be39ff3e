"""The story world: its words, its grammar, and what must hold for one sentence to follow another.

A sentence is read by replacing the words of the lexicon by their classes and looking the result up
in a table, so the grammar is a finite set of sentence shapes and reading costs a dictionary lookup.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

HEROINES = ("Mia", "Lily", "Anna", "Rosa", "Nina", "Ella", "Zoe", "Ruby", "Ivy", "Luna", "Tess")
HEROES = ("Tom", "Ben", "Max", "Sam", "Leo", "Finn", "Hugo", "Otto", "Theo", "Jack", "Noah")
NAMES = HEROINES + HEROES
KINDS = ("fox", "owl", "bear", "hare", "mouse", "frog", "cat", "duck", "goat", "deer", "crow")
PLACES = (
    *("garden", "mill", "river", "meadow", "barn", "market", "tower"),
    *("cave", "bridge", "beach", "lake", "hill", "village", "castle"),
)
ADJECTIVES = ("red", "blue", "green", "golden", "silver", "tiny", "shiny", "wooden", "round")
NOUNS = (
    *("kite", "drum", "lamp", "bell", "boat", "ball", "shell", "key", "hat", "cup"),
    *("book", "flute", "mirror", "basket", "ribbon", "scarf", "button", "feather"),
)
FEELINGS = ("sad", "lonely", "bored", "cross", "worried", "shy", "gloomy", "restless")
MOODS = ("happy", "proud", "brave", "calm", "thankful", "merry", "wise", "sleepy")

# Words a story may use and no prompt asks for. Being glad needs a deed, but no particular one.
PASSER_BY, PASSER_BY_KIND = "Pip", "snail"
WILDERNESS, TRIFLE_ADJECTIVE, TRIFLE, GLAD = "woods", "little", "pebble", "glad"

PRONOUNS = dict.fromkeys(HEROINES, ("she", "her")) | dict.fromkeys(HEROES, ("he", "him"))

# What stands for a word of the lexicon in the shape of a sentence.
_CLASS = (
    dict.fromkeys((*NAMES, PASSER_BY), "{name}")
    | dict.fromkeys((*KINDS, PASSER_BY_KIND), "{kind}")
    | dict.fromkeys((*PLACES, WILDERNESS), "{place}")
    | dict.fromkeys((*ADJECTIVES, TRIFLE_ADJECTIVE), "{adjective}")
    | dict.fromkeys((*NOUNS, TRIFLE), "{noun}")
    | dict.fromkeys((*MOODS, GLAD), "{mood}")
    | {"She": "{She}", "He": "{She}", "she": "{she}", "he": "{she}", "her": "{her}", "him": "{her}"}
)
_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)")


def expand(pattern: str) -> list[str]:
    """Every text that `pattern` stands for, where ``(a|b)`` is a choice.

    >>> expand("(Soon|Then) she (ran|left).")
    ['Soon she ran.', 'Soon she left.', 'Then she ran.', 'Then she left.']
    """
    parts = _CHOICE.split(pattern)
    options = [p.split("|") if i % 2 else [p] for i, p in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


# (events, the mood they are a cause of, sentences). `{hero}` may always be told as a pronoun too;
# `{Hero}` starts a sentence.
_GRAMMAR: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
    (
        "go",
        None,
        (
            "{Hero} (walked|ran|hurried|went) to the {place}.",
            "(Soon|Then|So) {hero} (walked|ran|hurried|went) to the {place}.",
            "The next (day|morning) {hero} (walked|went) to the {place}.",
            "A long path led {her} to the {place}.",
        ),
    ),
    ("travel", None, ("Together {hero} and {friend} (walked|ran|went) to the {place}.",)),
    (
        "meet",
        None,
        (
            "There {hero} (met|saw) {friend} the {kind}.",
            "By the gate {hero} met {friend} the {kind}.",
            "{friend} the {kind} (came along|was waiting there|was there too).",
            "Down the path came {friend} the {kind}.",
        ),
    ),
    ("at meet", None, ("At the {place} {hero} (met|saw) {friend} the {kind}.",)),
    ("go meet", None, ("{Hero} (walked|ran|went) to the {place} and met {friend} the {kind}.",)),
    (
        "get",
        None,
        (
            "{Hero} (found|picked up) a {adjective} {noun}.",
            "(Under a tree|Behind a wall|In the grass) {hero} found a {adjective} {noun}.",
            "Then {hero} (found|saw and took) a {adjective} {noun}.",
        ),
    ),
    ("at get", None, ("At the {place} {hero} found a {adjective} {noun}.",)),
    ("go get", None, ("{Hero} (walked|ran|went) to the {place} and found a {adjective} {noun}.",)),
    ("with get", "thankful", ("{friend} gave {her} a {adjective} {noun}.",)),
    (
        "play",
        "happy",
        (
            "{Hero} played with the {noun} (all day|until dark).",
            "All day {hero} played with the {noun}.",
        ),
    ),
    ("with play", "happy", ("{Hero} and {friend} played with the {noun}.",)),
    (
        "give",
        "proud",
        (
            "{Hero} gave the {noun} to {friend}.",
            "With a smile {hero} gave the {noun} to {friend}.",
            "{Hero} let {friend} keep the {noun}.",
        ),
    ),
    (
        "",
        "brave",
        (
            "A storm came, but {hero} did not (run|hide).",
            "A wolf growled, but {hero} stood still.",
            "The night was dark, but {hero} walked on.",
        ),
    ),
    (
        "",
        "calm",
        (
            "{Hero} sat down and listened to the (wind|birds|rain).",
            "{Hero} rested in the (shade|soft grass).",
            "{Hero} lay down and watched the clouds.",
        ),
    ),
    (
        "with",
        "thankful",
        (
            "{friend} shared some (bread|soup|honey) with {her}.",
            "{friend} helped {her} all day.",
            "{friend} showed {her} the way.",
        ),
    ),
    ("", "merry", ("{Hero} (sang|danced) (all day|in the sun|under the moon).",)),
    ("with", "merry", ("{Hero} and {friend} (sang|danced) (all day|in the sun).",)),
    (
        "with",
        "wise",
        (
            "{friend} told {her} (an old secret|a true story).",
            "{friend} taught {her} (to read the stars|a hard lesson).",
        ),
    ),
    (
        "",
        "sleepy",
        ("{Hero} (worked|climbed trees) (all day|until dark).", "All day {hero} climbed trees."),
    ),
    (
        "",
        None,
        (
            "The (sun|moon) was (bright|low).",
            "(Birds sang|Bees hummed|A warm wind blew) in the trees.",
            "The air smelled of (rain|flowers|honey).",
            "It was a (warm|quiet|fine) (day|evening).",
        ),
    ),
    (
        "end",
        None,
        (
            "In the end {hero} (was|felt) {mood}.",
            "At last {hero} (was|felt) {mood}.",
            "That night {hero} (went home|fell asleep) {mood}.",
            "And so {hero} was {mood}.",
            "{Hero} was {mood} at last.",
        ),
    ),
)


class Shape(NamedTuple):
    """One sentence shape: its text with slots, what happens in it, and the mood it causes."""

    text: str
    roles: tuple[str, ...]
    events: tuple[str, ...]
    cause: str | None


def _shapes() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for events, cause, patterns in _GRAMMAR:
        for pattern in patterns:
            both = pattern.replace("{Hero}", "({hero}|{She})")
            both = re.sub(r"(?<!^)(?<!\()\{hero\}", "({hero}|{she})", both)
            for text in expand(both):
                key = text.replace("{hero}", "{name}").replace("{friend}", "{name}")
                shape = Shape(text, tuple(_SLOT.findall(text)), tuple(events.split()), cause)
                if shapes.setdefault(key, shape) != shape:
                    raise ValueError(f"story grammar: two meanings for {key!r}")
    return shapes


SHAPES = _shapes()


@lru_cache
def shapes_of(events: str, cause: str | None = None) -> tuple[Shape, ...]:
    """The sentence shapes in which exactly `events` happen and which cause `cause`."""
    happens = tuple(events.split())
    found = tuple(s for s in SHAPES.values() if s.events == happens and s.cause == cause)
    if not found:
        raise ValueError(f"story grammar: no sentence for events {events!r}, cause {cause!r}")
    return found


@lru_cache
def causes_of(mood: str) -> tuple[Shape, ...]:
    """The sentence shapes that cause `mood`."""
    return tuple(s for s in SHAPES.values() if s.cause == mood)


def tell(shape: Shape, hero: str, words: Mapping[str, str]) -> str:
    """The sentence of `shape` about `hero`, with `words` in its other slots.

    >>> tell(shapes_of("go")[1], "Mia", {"place": "mill"})
    'Mia ran to the mill.'
    """
    she, her = PRONOUNS[hero]
    own = {"hero": hero, "she": she, "She": she.capitalize(), "her": her}
    return shape.text.format_map({**words, **own})


def read(sentence: str) -> tuple[Shape, dict[str, str]] | None:
    """The shape of `sentence` and the word in each of its slots; None where it is not grammatical.

    >>> shape, words = read("There she met Tom the owl.")
    >>> shape.events, words
    (('meet',), {'she': 'she', 'friend': 'Tom', 'kind': 'owl'})
    >>> read("There met she the owl.") is None
    True
    """
    if not sentence.endswith("."):
        return None
    words = sentence[:-1].split(" ")
    shape = SHAPES.get(" ".join([_CLASS.get(word, word) for word in words]) + ".")
    if shape is None:
        return None
    return shape, dict(zip(shape.roles, [w for w in words if w in _CLASS], strict=True))


@dataclass(frozen=True, slots=True)
class Met:
    """A character the hero has met: what it is and where it stayed."""

    kind: str
    place: str


class World:
    """What is true after the sentences told so far.

    Args:
        hero: the name of the hero.
        place: where the story opens.
    """

    def __init__(self, hero: str, place: str) -> None:
        self.hero = hero
        self.place = place
        self.visited: set[str] = set()
        self.met: dict[str, Met] = {}
        self.had: set[tuple[str, str]] = set()
        self.has: set[str] = set()
        self.caused: set[str] = set()
        self.ending: str | None = None
        self._told: set[str] = set()
        she, her = PRONOUNS[hero]
        self._own = {"hero": hero, "She": she.capitalize(), "she": she, "her": her}

    def happen(self, sentence: str) -> bool:
        """Let `sentence` happen; False, and nothing changes, where it is not sound.

        A sound sentence is grammatical and follows from those before it: pronouns agree; only
        characters that have been met act, where they were met; one meets a stranger, goes to
        another place, and plays with or gives what one has; a mood follows its cause; nothing is
        told twice, and nothing follows the ending.
        """
        found = read(sentence)
        if found is None or self.ending is not None or sentence in self._told:
            return False
        shape, words = found
        own = self._own
        for role, word in words.items():
            if own.get(role, word) != word:
                return False
        if not all(self._can(event, words) for event in shape.events):
            return False
        for event in shape.events:
            self._do(event, words)
        self._told.add(sentence)
        if shape.cause is not None:
            self.caused.add(shape.cause)
        return True

    def _can(self, event: str, words: dict[str, str]) -> bool:
        match event:
            case "go":
                return words["place"] != self.place
            case "at":
                return words["place"] == self.place
            case "meet":
                return words["friend"] != self.hero and words["friend"] not in self.met
            case "get":
                return words["noun"] not in self.has
            case "play":
                return words["noun"] in self.has
            case "give":
                return words["noun"] in self.has and self._is_here(words["friend"])
            case "with":
                return self._is_here(words["friend"])
            case "travel":
                return words["place"] != self.place and self._is_here(words["friend"])
            case "end":
                mood = words["mood"]
                return bool(self.caused) if mood == GLAD else mood in self.caused
        raise ValueError(f"story grammar: unknown event {event!r}")

    def _do(self, event: str, words: dict[str, str]) -> None:
        match event:
            case "go" | "travel":
                self.place = words["place"]
                self.visited.add(self.place)
                if event == "travel":
                    friend = words["friend"]
                    self.met[friend] = Met(self.met[friend].kind, self.place)
            case "meet":
                self.met[words["friend"]] = Met(words["kind"], self.place)
            case "get":
                self.has.add(words["noun"])
                self.had.add((words["adjective"], words["noun"]))
            case "give":
                self.has.remove(words["noun"])
            case "end":
                self.ending = words["mood"]

    def _is_here(self, name: str) -> bool:
        met = self.met.get(name)
        return met is not None and met.place == self.place
