"""The synchronous grammar of `TranslationTask`: one structure, told in English and in German.

A `Sentence` says what is said; `in_english` and `in_german` say it. Each language takes care of its
own agreement, case, negation and word order. Every English word has one German translation here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from textgym.tasks.translation_lexicon import (
    ADJECTIVES,
    LINKS,
    MODALS,
    NAMES,
    PLACES,
    TIMES,
    Noun,
    Verb,
    adjectives_of,
    nouns_of,
    times_of,
    verbs_of,
)

Case = Literal["nominative", "accusative", "dative"]
Tense = Literal["present", "past"]
Order = Literal["second", "first", "last"]
T = TypeVar("T")

# How often a noun has an adjective; short sentences have it often, for the sake of their number.
ADJECTIVE_SHARE = {1: 0.75, 2: 0.4, 3: 0.4}


# ------------------------------------------------------------------------------ what is said
@dataclass(frozen=True)
class NounPhrase:
    """A noun, or a name (a `str`), with what stands before it: ``NounPhrase(dog, "the", "old")``.

    Args:
        noun: of `NOUNS`, or one of `NAMES`.
        determiner: of `DETERMINERS`; "" for none: a name, or any number of things.
        adjective: of `ADJECTIVES`, or none.
        plural: several of them.
    """

    noun: Noun | str
    determiner: str = ""
    adjective: str = ""
    plural: bool = False


@dataclass(frozen=True)
class Clause:
    """Who does what, when and where.

    Args:
        subject: who does it.
        verb: of `VERBS`.
        object: what it is done to, where the verb takes one (in the dative, for some verbs).
        recipient: who is given it, where the verb is one of giving.
        time: of `TIMES`, or none.
        place: of `PLACES`, or none.
        front: which of time and place opens the clause; none is for the subject.
        tense: the past is the German perfect, or with a modal verb its preterite.
        modal: of `MODALS`, or none.
        negated: it is not done.
    """

    subject: NounPhrase
    verb: Verb
    object: NounPhrase | None = None
    recipient: NounPhrase | None = None
    time: str = ""
    place: str = ""
    front: Literal["", "time", "place"] = ""
    tense: Tense = "present"
    modal: str = ""
    negated: bool = False


@dataclass(frozen=True)
class Sentence:
    """A clause, and one that depends on it: joined by `link`, which stands first if `fronted`."""

    main: Clause
    link: str = ""
    dependent: Clause | None = None
    fronted: bool = False


# ------------------------------------------------------------------------------ English
def in_english(sentence: Sentence) -> str:
    """The English sentence."""
    text = _english_clause(sentence.main)
    if sentence.dependent is not None:
        dependent = f"{sentence.link} {_english_clause(sentence.dependent)}"
        text = f"{dependent}, {text}" if sentence.fronted else f"{text} {dependent}"
    return text[0].upper() + text[1:] + "."


def _english_clause(clause: Clause) -> str:
    plural = clause.subject.plural
    parts = [
        english_phrase(clause.subject),
        english_verb(clause.verb, clause.tense, clause.modal, clause.negated, plural),
        english_phrase(clause.recipient),
        english_phrase(clause.object),
        clause.place if clause.front != "place" else "",
        clause.time if clause.front != "time" else "",
    ]
    front = {"time": clause.time, "place": clause.place}.get(clause.front, "")
    return " ".join(part for part in (front, *parts) if part)


def english_phrase(phrase: NounPhrase | None) -> str:
    """A noun phrase in English; nothing for None."""
    if phrase is None:
        return ""
    if isinstance(phrase.noun, str):
        return phrase.noun
    noun = phrase.noun.english_plural if phrase.plural else phrase.noun.english
    determiner = phrase.determiner
    if determiner == "a" and (phrase.adjective or noun)[0] in "aeiou":
        determiner = "an"
    elif determiner == "this" and phrase.plural:
        determiner = "these"
    return " ".join(part for part in (determiner, phrase.adjective, noun) if part)


def english_verb(verb: Verb, tense: Tense, modal: str, negated: bool, plural: bool) -> str:
    """All the words of the verb in English: ``does not want to call``."""
    past = tense == "past"
    if modal == "can":
        return f"{'cannot' if negated else 'can'} {verb.english}"
    if negated:
        do = "did" if past else "do" if plural else "does"
        return f"{do} not {modal + ' to ' if modal else ''}{verb.english}"
    if modal:
        return f"{MODALS[modal][2 if past else int(plural)]} {verb.english}"
    if past:
        return verb.english_past
    head, _, particle = verb.english.partition(" ")
    return f"{head if plural else _third_person(head)} {particle}".strip()


def _third_person(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


# ------------------------------------------------------------------------------ German
def in_german(sentence: Sentence) -> str:
    """The German sentence."""
    if sentence.dependent is None:
        text = _german_clause(sentence.main, "second")
    else:
        dependent = f"{LINKS[sentence.link]} {_german_clause(sentence.dependent, 'last')}"
        if sentence.fronted:  # the dependent clause takes the first position, the verb the second
            text = f"{dependent}, {_german_clause(sentence.main, 'first')}"
        else:
            text = f"{_german_clause(sentence.main, 'second')}, {dependent}"
    return text[0].upper() + text[1:] + "."


def _german_clause(clause: Clause, order: Order) -> str:
    """The clause with its finite verb `order`; the rest of the verb stands at the end."""
    thing, no = clause.object, False
    if clause.negated and thing is not None and thing.determiner in ("a", ""):
        no = clause.verb.frame != "dat" and not isinstance(thing.noun, str)
        thing = replace(thing, determiner="no") if no else thing
    finite, rest = german_verb(clause.verb, clause.tense, clause.modal, clause.subject.plural)
    subject = german_phrase(clause.subject, "nominative")
    time = TIMES[clause.time][0] if clause.time else ""
    place = PLACES[clause.place] if clause.place else ""
    middle = [
        time if clause.front != "time" else "",
        german_phrase(clause.recipient, "dative"),
        german_phrase(thing, "dative" if clause.verb.frame == "dat" else "accusative"),
        "nicht" if clause.negated and not no else "",
        place if clause.front != "place" else "",
    ]
    if order == "last":
        # A separable prefix that stands before its own verb is written with it.
        end = [rest + finite] if rest == clause.verb.prefix else [rest, finite]
        parts = [subject, *middle, *end]
    elif order == "second" and clause.front:
        parts = [time if clause.front == "time" else place, finite, subject, *middle, rest]
    elif order == "second":
        parts = [subject, finite, *middle, rest]
    else:
        parts = [finite, subject, *middle, rest]
    return " ".join(part for part in parts if part)


def german_verb(verb: Verb, tense: Tense, modal: str, plural: bool) -> tuple[str, str]:
    """The finite verb, and what goes to the end of a main clause."""
    past = tense == "past"
    if modal:
        return MODALS[modal][3 + plural + 2 * past], verb.prefix + verb.german
    if past:
        forms = ("hat", "haben") if verb.auxiliary == "haben" else ("ist", "sind")
        return forms[plural], verb.prefix + verb.participle
    return verb.german if plural else verb.german_singular, verb.prefix


# The strong endings of articles and adjectives, by gender or plural; then the article itself.
_STRONG: dict[str, dict[Case, str]] = {
    "m": {"nominative": "er", "accusative": "en", "dative": "em"},
    "f": {"nominative": "e", "accusative": "e", "dative": "er"},
    "n": {"nominative": "es", "accusative": "es", "dative": "em"},
    "plural": {"nominative": "e", "accusative": "e", "dative": "en"},
}
_THE = {"er": "der", "en": "den", "em": "dem", "e": "die", "es": "das"}
_STEMS = {"a": "ein", "my": "mein", "no": "kein", "this": "dies"}


def german_phrase(phrase: NounPhrase | None, case: Case) -> str:
    """A noun phrase in German in `case`; nothing for None."""
    if phrase is None:
        return ""
    noun = phrase.noun
    if isinstance(noun, str):
        return noun
    kind = "plural" if phrase.plural else noun.gender
    strong = _STRONG[kind][case]
    # "ein", "mein" and "kein" have no ending here, and leave it to the adjective.
    bare = (kind, case) == ("m", "nominative") or (kind == "n" and case != "dative")
    endless = not phrase.determiner or (phrase.determiner in ("a", "my", "no") and bare)
    article = ""
    if phrase.determiner == "the":
        article = _THE[strong]
    elif phrase.determiner:
        article = _STEMS[phrase.determiner] + ("" if endless else strong)
    adjective = ""
    if phrase.adjective:
        weak = "e" if bare or (kind == "f" and case != "dative") else "en"
        adjective = ADJECTIVES[phrase.adjective][0] + (strong if endless else weak)
    word = noun.german_plural if phrase.plural else noun.german
    if phrase.plural and case == "dative" and word[-1] not in "ns":
        word += "n"
    return " ".join(part for part in (article, adjective, word) if part)


# ------------------------------------------------------------------------------ drawing
class _Draw:
    """Choices out of one block of random numbers, drawn at once: a call for each is slow."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._next: Callable[[], float] = iter(rng.random(96).tolist()).__next__

    def chance(self, probability: float) -> bool:
        return self._next() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._next() * len(options))]


def draw_sentence(level: int, rng: np.random.Generator) -> Sentence:
    """A sentence of difficulty `level`, from `rng` alone."""
    draw, used = _Draw(rng), set[Noun | str]()
    if level < 3:
        return Sentence(_draw_clause(draw, level, used))
    link = draw.pick(("", "", "because", "although", "that"))
    tense: Tense = "past" if draw.chance(0.4) else "present"
    if not link:
        return Sentence(_draw_clause(draw, level, used, tense))
    dependent = _draw_clause(draw, level, used, tense, adverbials=0.2, front=False)
    if link == "that":
        verb = draw.pick(verbs_of(level, "that"))
        return Sentence(
            Clause(_draw_phrase(draw, level, used, verb.subject), verb), link, dependent
        )
    fronted = draw.chance(0.4)
    main = _draw_clause(draw, level, used, tense, adverbials=0.2, front=not fronted)
    return Sentence(main, link, dependent, fronted)


def _draw_clause(
    draw: _Draw,
    level: int,
    used: set[Noun | str],
    tense: Tense = "present",
    *,
    adverbials: float = 0.5,
    front: bool = True,
) -> Clause:
    group = draw.pick(("", "", "separable", "separable", "dative")) if level > 1 else ""
    verb = draw.pick(verbs_of(level, group))
    modal, negated = "", False
    if level > 2:
        past = tense == "past"
        if "t" in verb.adverbials and draw.chance(0.35):
            modal = draw.pick(("want", "have") if past else tuple(MODALS))
        negated = draw.chance(0.25)
    clause = Clause(
        _draw_phrase(draw, level, used, verb.subject), verb, None, tense=tense, modal=modal
    )
    clause = replace(clause, negated=negated)
    definite = negated and verb.frame == "dat"  # "no" is for the accusative
    if verb.frame == "give":
        people = frozenset(["person"])
        recipient = _draw_phrase(draw, level, used, people, definite=negated)
        clause = replace(clause, recipient=recipient)
    if verb.frame != "none":
        thing = _draw_phrase(draw, level, used, verb.object, definite=definite)
        clause = replace(clause, object=thing)
    if level == 1:
        return clause
    return _draw_adverbials(draw, clause, adverbials, front)


def _draw_adverbials(draw: _Draw, clause: Clause, share: float, front: bool) -> Clause:
    """`clause` with a time and a place, or without; where it is negated only with a fronted time,
    which leaves no doubt where "nicht" stands."""
    verb = clause.verb
    time = place = ""
    if "t" in verb.adverbials and draw.chance(1.0 if verb.frame == "none" and front else share):
        time = draw.pick(times_of(clause.tense == "past", bool(clause.modal)))
    if "p" in verb.adverbials and draw.chance(share):
        place = draw.pick(tuple(PLACES))
    if clause.negated:
        return replace(clause, time=time, front="time") if front and time else clause
    first: Literal["", "time", "place"] = ""
    if front and (time or place) and draw.chance(0.5):
        first = "time" if time else "place"
    return replace(clause, time=time, place=place, front=first)


def _draw_phrase(
    draw: _Draw,
    level: int,
    used: set[Noun | str],
    tags: frozenset[str],
    *,
    definite: bool = False,
) -> NounPhrase:
    """A noun phrase with a noun that has one of `tags` and is not `used`, which it then is."""
    options: Sequence[Noun | str] = nouns_of(level, tags)
    # Two names alone would make the shortest level's sentences too short.
    if tags & {"being", "person"} and draw.chance(0.1) and (level > 1 or not used):
        options = NAMES
    noun = draw.pick(options)
    while noun in used:
        noun = options[(options.index(noun) + 1) % len(options)]
    used.add(noun)
    if isinstance(noun, str):
        return NounPhrase(noun)
    plural = draw.chance(0.2)
    # "Meine Frau" would be one's wife.
    my = "the" if noun.english in ("man", "woman") else "my"
    indefinite = "the" if definite else "" if plural else "a"
    if level == 1:
        determiner = draw.pick(("the", my) if plural else ("the", my, indefinite))
    else:
        determiner = draw.pick(("the", my, indefinite, "this"))
    adjective = draw.pick(adjectives_of(level, noun)) if draw.chance(ADJECTIVE_SHARE[level]) else ""
    return NounPhrase(noun, determiner, adjective, plural)
