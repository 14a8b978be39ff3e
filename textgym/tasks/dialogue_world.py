"""The world of the dialogues: places to book, what can be said of them, and who wants one.

A user has five wishes: the kind, area and price of a place, and a time and a number of people. What
the assistant says is read by a small grammar of questions and bookings, in any case; the user
answers what is understood, and changes state only by what is said.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

KINDS = ("cafe", "diner", "bar", "club", "cinema")
AREAS = ("north", "south", "east", "west", "centre")
PRICES = ("cheap", "modest", "fancy")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
TIMES, PEOPLE = NUMBERS[4:10], NUMBERS[1:7]
ADJECTIVES = (
    *("red", "blue", "green", "golden", "silver", "tiny"),
    *("shiny", "wooden", "round", "old", "little", "lost"),
)
NOUNS = (
    *("boat", "shell", "drum", "bell", "moon", "star", "fox", "owl", "bear", "goat"),
    *("hat", "button", "kite", "ball", "castle", "tower", "crown", "lamp"),
)
# The wishes, and what each can be. The first three are of the place.
WISHES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "area": AREAS,
    "price": PRICES,
    "time": TIMES,
    "people": PEOPLE,
}
OF_PLACE = ("kind", "area", "price")
MAX_ASKED = 2

# ------------------------------------------------------------------ what the assistant can say
QUESTIONS: dict[str, tuple[str, ...]] = {
    "kind": ("what kind", "which kind", "what kind of place"),
    "area": ("what area", "which area", "where", "in what area", "in which area"),
    "price": ("what price", "which price", "at what price", "how cheap"),
    "time": ("what time", "at what time", "when", "which time"),
    "people": ("how many people", "for how many people", "how many", "for how many"),
}
# After another question, the first word can be left out: what area and time?
ELLIPSES = ("kind", "area", "price", "time")
TAILS = ("would you like", "do you want", "do you need", "shall i book", "should it be", "please")
OPENERS = ("sure", "ok", "of course", "thank you", "sorry", "well", "gladly", "hello")
NOTHING_FITS = (
    *("nothing fits", "no place fits", "there is nothing", "there is none", "none fits"),
    *("there is no such place", "i found nothing", "nothing matches"),
)

_MAX_CHARACTERS = 200
_OPENER = re.compile(rf"(?:{'|'.join(OPENERS)})[,.!] ")
_TAIL = re.compile(rf" (?:{'|'.join(TAILS)})$")
_NAME, _TIME, _PEOPLE = (
    r"(?:the )?(?P<name>[a-z]+(?: [a-z]+){0,2})",
    r"at (?P<time>[a-z0-9]+)",
    r"for (?P<people>[a-z0-9]+)(?: people)?",
)
_BOOKINGS = tuple(
    re.compile(rf"booked: {_NAME} {first} {second}\.?")
    for first, second in ((_TIME, _PEOPLE), (_PEOPLE, _TIME))
)
_DIGITS = {str(i): word for i, word in enumerate(NUMBERS, 1)}
_ASKED = {phrase: wish for wish, phrases in QUESTIONS.items() for phrase in phrases}


class Booking(NamedTuple):
    """What was booked: any words, in lower case; numbers as words."""

    name: str
    time: str
    people: str


class Question(NamedTuple):
    """The wishes that were asked for, in order."""

    wishes: tuple[str, ...]


class NothingFits(NamedTuple):
    """The claim that no place is as wished."""


Saying = Booking | Question | NothingFits


def understand(text: str) -> Saying | None:
    """What `text` says; None where it is not of the grammar.

    >>> understand(" What area, and what time would you like?")
    Question(wishes=('area', 'time'))
    >>> understand("Sure. Booked: Red Boat at 7 for two.")
    Booking(name='red boat', time='seven', people='two')
    >>> understand("What and area time?") is None
    True
    """
    return _parse(text) if len(text) <= _MAX_CHARACTERS else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Saying | None:
    said = " ".join(text.lower().split())
    opener = _OPENER.match(said)
    if opener:
        said = said[opener.end() :]
    if said.rstrip(".") in NOTHING_FITS:
        return NothingFits()
    for pattern in _BOOKINGS:
        match = pattern.fullmatch(said)
        if match:
            name, time, people = match["name"], match["time"], match["people"]
            return Booking(name, _DIGITS.get(time, time), _DIGITS.get(people, people))
    return _question(said)


def _question(said: str) -> Question | None:
    *sentences, rest = said.split("?")
    if rest or not sentences:
        return None
    asked: list[str] = []
    for sentence in sentences:
        for i, part in enumerate(re.split(r", and |, | and ", sentence.strip())):
            phrase = _TAIL.sub("", part)
            wish = phrase if i and phrase in ELLIPSES else _ASKED.get(phrase)
            if wish is None:
                return None
            asked.append(wish)
    return Question(tuple(dict.fromkeys(asked)))


# ------------------------------------------------------------------ what the user can say
FRAGMENTS = {
    "kind": "a {}",
    "area": "in the {}",
    "price": "something {}",
    "time": "at {}",
    "people": "for {}",
}
ANSWERS = {
    "kind": ("A {}.", "A {}, please."),
    "area": ("In the {}.", "The {}, please."),
    "price": ("Something {}.", "A {} one."),
    "time": ("At {}.", "At {}, please."),
    "people": ("For {}.", "We are {}."),
}
INDIRECT: dict[str, dict[str, tuple[str, ...]]] = {
    "kind": {
        "cafe": ("For coffee.",),
        "diner": ("For dinner.",),
        "bar": ("For drinks.",),
        "club": ("To dance.",),
        "cinema": ("To see a film.",),
    },
    "area": {
        "north": ("Where it is cold.",),
        "south": ("Where it is warm.",),
        "east": ("Where the sun comes up.",),
        "west": ("Where the sun goes down.",),
        "centre": ("In the middle.",),
    },
    "price": {
        "cheap": ("We are poor.",),
        "modest": ("In between.",),
        "fancy": ("We are rich.",),
    },
    "time": {
        time: (f"An hour after {NUMBERS[i - 1]}.", f"An hour before {NUMBERS[i + 1]}.")
        for i, time in enumerate(NUMBERS)
        if time in TIMES
    },
    "people": {
        people: (f"Me and {NUMBERS[i - 1]} friends." if i > 1 else "Me and a friend.",)
        for i, people in enumerate(NUMBERS)
        if people in PEOPLE
    },
}
VOLUNTEERED = ("Oh, and {}.", "And {}, please.")
CHANGED = ("Actually, {}.", "Wait, rather {}.", "Oh, better {}.")
RELAXED = ("Then {} will do.", "Then {} is fine.")
NOT_HEARD = ("Pardon?", "What did you say?", "It is loud here. What?")
NOT_UNDERSTOOD = "Sorry? Ask: What price and what time?"
TOO_MANY = "Two things at most, please."
LOOK_AGAIN = "Please look again."
PLEASED, DISPLEASED = "Thank you!", "That is not what I want."

# Something that happens once, at a question: the user tells one thing more; hears nothing (at the
# question numbered `data["deaf_at"]`); or overlooks the second of two new things asked.
VOLUNTEER, DEAF, OVERLOOK = "volunteer", "deaf", "overlook"


class User:
    """The simulated user, in the state that the assistant's turns so far have brought about.

    Args:
        data: of the instance: `wishes` {wish: value}, the wishes told in the `opening`, the
            `places` {name: (kind, area, price)}, what they `change` or `relax` (wish, value), the
            `event` that happens, and a `draw` that their wording depends on.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.wishes: dict[str, str] = dict(data["wishes"])
        self.told = set(data["opening"])
        self.turns = 0
        self.booking: Booking | None = None
        self._data = data
        self._change: tuple[str, str] | None = data["change"]
        self._relax: tuple[str, str] | None = data["relax"]
        self._event: str | None = data["event"]
        self._questions = 0

    @property
    def untold(self) -> list[str]:
        """The wishes still to be told."""
        return [wish for wish in WISHES if wish not in self.told]

    @property
    def pending(self) -> int:
        """How many things are still to be told: the wishes, and one they will give up."""
        return len(WISHES) - len(self.told) + (self._relax is not None)

    @property
    def stuck(self) -> bool:
        """Whether all has been told, and no place is so."""
        return self._relax is not None and len(self.told) == len(WISHES)

    def hear(self, text: str) -> str:
        """Take in a turn of the assistant's and answer it; sets `booking` where it books."""
        self.turns += 1
        said = understand(text)
        if isinstance(said, Booking):
            self.booking = said
            pleased = not self.pending and all(self.met())
            return PLEASED if pleased else DISPLEASED
        if isinstance(said, NothingFits):
            return self._give_up() if self.stuck else LOOK_AGAIN
        if said is None:
            return NOT_UNDERSTOOD
        if len(said.wishes) > MAX_ASKED:
            return TOO_MANY
        return self._answer(said.wishes)

    def met(self) -> tuple[bool, bool, bool]:
        """Whether the place, the time and the number booked are as wished, and were told."""
        if self.booking is None:
            return (False, False, False)
        name, *slots = self.booking
        wished = tuple(self.wishes[wish] for wish in OF_PLACE)
        place = self.told.issuperset(OF_PLACE) and self._data["places"].get(name) == wished
        time, people = (
            wish in self.told and self.wishes[wish] == said
            for wish, said in zip(("time", "people"), slots, strict=True)
        )
        return place, time, people

    def _answer(self, asked: Sequence[str]) -> str:
        self._questions += 1
        if self._event == DEAF and self._questions == self._data["deaf_at"]:
            return self._pick(NOT_HEARD, "deaf")
        new = [wish for wish in asked if wish not in self.told]
        if self._event == OVERLOOK and len(new) == MAX_ASKED:
            self._event, asked = None, new[:1]
        sentences = [self._tell(wish) for wish in asked]
        if self._event == VOLUNTEER and self.untold:
            self._event, wish = None, self.untold[0]
            self.told.add(wish)
            sentences.append(self._pick(VOLUNTEERED, wish).format(self._fragment(wish)))
        if self._change is not None and not self.untold:
            (wish, value), self._change = self._change, None
            self.wishes[wish] = value
            sentences.append(self._pick(CHANGED, wish).format(self._fragment(wish)))
        return " ".join(sentences)

    def _tell(self, wish: str) -> str:
        value = self.wishes[wish]
        choices: Sequence[str] = ANSWERS[wish]
        # Who is asked again is plainer.
        if self._data["indirect"] and wish not in self.told:
            choices = (*choices, *INDIRECT[wish][value])
        self.told.add(wish)
        return self._pick(choices, wish).format(value)

    def _give_up(self) -> str:
        wish, value = self._relax or ("", "")
        self._relax = None
        self.wishes[wish] = value
        return self._pick(RELAXED, wish).format(self._fragment(wish))

    def _fragment(self, wish: str) -> str:
        return FRAGMENTS[wish].format(self.wishes[wish])

    def _pick(self, choices: Sequence[str], key: str) -> str:
        """One of `choices`, the same whenever the same conversation is had."""
        hashed = zlib.crc32(f"{self._data['draw']} {self.turns} {key}".encode())
        return choices[hashed % len(choices)]


def fewest_turns(data: Mapping[str, Any]) -> int:
    """The fewest turns in which all can be told and then booked."""
    untold = len(WISHES) - len(data["opening"])
    match data["event"]:
        case "volunteer":
            questions = 1 + _halved(max(0, untold - MAX_ASKED - 1))
        case "deaf":
            questions = 1 + _halved(untold)
        case "overlook":
            questions = _halved(untold + 1)
        case _:
            questions = _halved(untold)
    return questions + (data["relax"] is not None) + 1


def _halved(wishes: int) -> int:
    return -(-wishes // MAX_ASKED)
