"""Reads English sentences of `translation_grammar` back into what they say."""

from __future__ import annotations

import re
from functools import lru_cache

from textgym.tasks.translation_grammar import (
    Clause,
    NounPhrase,
    Sentence,
    Tense,
    english_verb,
    in_english,
)
from textgym.tasks.translation_lexicon import (
    ADJECTIVES,
    MODALS,
    NAMES,
    NOUNS,
    PLACES,
    TIMES,
    VERBS,
    Noun,
    Verb,
)


@lru_cache
def _english_nouns() -> dict[str, tuple[Noun, bool]]:
    singular = {noun.english: (noun, False) for noun in NOUNS}
    return singular | {noun.english_plural: (noun, True) for noun in NOUNS}


@lru_cache
def english_verbs(level: int = 3) -> dict[str, tuple[Verb, Tense, str, bool]]:
    """Every form of every verb in English up to `level`: what it is, whatever the subject."""
    tenses: tuple[Tense, ...] = ("present", "past") if level > 2 else ("present",)
    return {
        english_verb(verb, tense, modal, negated, plural): (verb, tense, modal, negated)
        for verb in VERBS
        if verb.level <= level
        for tense in tenses
        for modal in (("", *MODALS) if level > 2 else ("",))
        if not (modal == "can" and tense == "past")
        for negated in ((False, True) if level > 2 else (False,))
        for plural in (False, True)
    }


@lru_cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Of a noun phrase and of a clause in English."""
    nouns, adjectives = "|".join(_english_nouns()), "|".join(ADJECTIVES)
    noun = f"(?:(?:(?:the|an?|my|this|these) )?(?:(?:{adjectives}) )?(?:{nouns})|{'|'.join(NAMES)})"
    parts = f"(?:(the|an?|my|this|these) )?(?:({adjectives}) )?({nouns})"
    time, place = "|".join(TIMES), "|".join(PLACES)
    clause = (
        f"(?:(?P<front>{time}|{place}) )?(?P<subject>{noun}) (?P<verb>[a-z ]+?)"
        f"(?: (?P<first>{noun}))?(?: (?P<second>{noun}))?(?: (?P<place>{place}))?"
        f"(?: (?P<time>{time}))?"
    )
    return re.compile(parts), re.compile(clause)


def parse_english(text: str) -> Sentence | None:
    """The sentence that reads `text` in English; None where the grammar has none.

    >>> from textgym.tasks.translation_grammar import in_german
    >>> in_german(parse_english("Today the old man calls the woman."))
    'Heute ruft der alte Mann die Frau an.'
    """
    body = text.removesuffix(".")
    if body and body.split()[0] not in NAMES:
        body = body[0].lower() + body[1:]
    fronted = re.fullmatch("(because|although) ([^,]*), ([^,]*)", body)
    following = re.fullmatch("(.*?) (because|although|that) (.*)", body)
    if fronted:
        link, second, first = fronted.groups()
    elif following:
        first, link, second = following.groups()
    else:
        first, link, second = body, "", ""
    main, dependent = _parse_clause(first), _parse_clause(second) if link else None
    if main is None or (link and dependent is None):
        return None
    sentence = Sentence(main, link, dependent, bool(fronted))
    told = (main.verb.frame == "that") == (link == "that")
    return sentence if told and in_english(sentence) == text else None


def _parse_clause(text: str) -> Clause | None:
    match = _patterns()[1].fullmatch(text)
    if match is None or match["verb"] not in english_verbs():
        return None
    verb, tense, modal, negated = english_verbs()[match["verb"]]
    subject, first, second = (_parse_phrase(match[g]) for g in ("subject", "first", "second"))
    wanted = {"none": 0, "that": 0, "acc": 1, "dat": 1, "give": 2}[verb.frame]
    if subject is None or wanted != (first is not None) + (second is not None):
        return None
    time, place, front = match["time"] or "", match["place"] or "", match["front"] or ""
    if (front in TIMES and time) or (front in PLACES and place):
        return None
    return Clause(
        subject,
        verb,
        second or first,
        first if second else None,
        front if front in TIMES else time,
        front if front in PLACES else place,
        "time" if front in TIMES else "place" if front else "",
        tense,
        modal,
        negated,
    )


def _parse_phrase(text: str | None) -> NounPhrase | None:
    if text is None or text in NAMES:
        return NounPhrase(text) if text else None
    match = _patterns()[0].fullmatch(text)
    if match is None:
        return None
    determiner, adjective, word = match.groups(default="")
    noun, plural = _english_nouns()[word]
    return NounPhrase(
        noun, {"an": "a", "these": "this"}.get(determiner, determiner), adjective, plural
    )
