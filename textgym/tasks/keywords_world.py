"""The sentences of `KeywordsToSentenceTask`: who can do what, to what, with whom and where.

A finite set of sentence shapes, made of a subject, a verb in one of its forms, what the verb takes,
and a place. Animals act, things do not; every verb takes what makes sense of it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from functools import lru_cache

from textgym.tasks.facts_world import THING_VERBS
from textgym.tasks.story_world import ADJECTIVES, KINDS, NOUNS, PLACES, expand
from textgym.tasks.target_task import without_articles

# By what the verb takes: a thing; nothing; an animal; a thing and an animal.
VERBS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "thing": THING_VERBS,
    "move": (
        ("run", "runs", "ran"),
        ("walk", "walks", "walked"),
        ("sing", "sings", "sang"),
        ("dance", "dances", "danced"),
        ("sleep", "sleeps", "slept"),
    ),
    "meet": (
        ("help", "helps", "helped"),
        ("meet", "meets", "met"),
        ("watch", "watches", "watched"),
        ("chase", "chases", "chased"),
    ),
    "give": (("give", "gives", "gave"), ("show", "shows", "showed"), ("sell", "sells", "sold")),
}
FORMS = ("base", "present", "past")
GROUP_OF = {verb[0]: group for group, verbs in VERBS.items() for verb in verbs}
# Every word that can be asked for, by class; verbs in their base form.
CONCEPTS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "verb": tuple(GROUP_OF),
    "adjective": ADJECTIVES,
    "noun": NOUNS,
    "place": PLACES,
}
CONCEPT_CLASS = {word: slot for slot, words in CONCEPTS.items() for word in words}

# A form of a verb -> its base; a word -> what stands for it in a shape.
BASE = {form: verb[0] for verbs in VERBS.values() for verb in verbs for form in verb}
_CLASS = {word: f"{{{slot}}}" for slot, words in CONCEPTS.items() for word in words}
_CLASS |= {
    word: f"{{{group}_{form}}}"
    for group, verbs in VERBS.items()
    for verb in verbs
    for form, word in zip(FORMS, verb, strict=True)
}

_ONE, _TWO = "(the|a) {kind}", "the {kind} and the {kind}"
_THING = "(the|a) ({noun}|{adjective} {noun})"
_OBJECTS = {
    "thing": (f" {_THING}",),
    "move": ("", " with (the|a) {kind}"),
    "meet": (f" {_ONE}",),
    "give": (f" {_THING} to {_ONE}", f" {_ONE} {_THING}"),
}
_WHERE = "(at|near|by) the {place}"
# Fronted or not: the subject stands where `{}` is, the rest of the sentence after it.
_FRAMES = ("{}", "{} " + _WHERE, _WHERE + " {}", "One day {}", "One day {} " + _WHERE)


def _shapes() -> dict[str, str]:
    """Every sentence shape, without its full stop, with the group of its verb."""
    shapes = {}
    for group, objects in _OBJECTS.items():
        past, base = f"{{{group}_past}}", f"{{{group}_base}}"
        one = f"({past}|{{{group}_present}}|will {base})"
        two = f"({past}|{base}|will {base})"
        subjects = ((_ONE, one), (_TWO, two))
        for frame, (subject, verb), what in itertools.product(_FRAMES, subjects, objects):
            for text in _expand_nested(frame.replace("{}", f"{subject} {verb}{what}")):
                shapes[text[0].upper() + text[1:]] = group
    return shapes


def _expand_nested(pattern: str) -> list[str]:
    """As `expand`, for choices within choices."""
    texts = [pattern]
    while any("(" in text for text in texts):
        texts = [t for text in texts for t in expand(text)]
    return texts


SHAPES = _shapes()


def read(sentence: str) -> Counter[str] | None:
    """The content words of `sentence`, verbs in base form; None where it is not grammatical.

    >>> sorted(read("The fox hid a red ball near the mill."))
    ['ball', 'fox', 'hide', 'mill', 'red']
    >>> read("The ball hid a fox.") is None
    True
    """
    plain = without_articles(sentence) if sentence.endswith(".") else None
    if plain is None:
        return None
    words = plain[:-1].split(" ")
    if " ".join([_CLASS.get(word, word) for word in words]) not in SHAPES:
        return None
    content = Counter(BASE.get(word, word) for word in words if word in _CLASS)
    # Nobody does anything with a namesake.
    return None if max(content.values()) > 1 else content


@lru_cache(maxsize=4096)
def shapes_with(group: str | None, slots: tuple[str, ...]) -> tuple[str, ...]:
    """The shapes that have a slot for each of `slots` (of concepts), and no more than they must.

    Args:
        group: that of the verb; None is any.
        slots: classes of `CONCEPTS`, sorted, "kind" up to twice.
    """
    wanted = Counter(slots)
    fitting = [
        (sum(have.values()), shape)
        for shape, have in _SLOTS.items()
        if group in (None, SHAPES[shape]) and wanted <= have
    ]
    least = min((size for size, _ in fitting), default=0)
    return tuple(shape for size, shape in fitting if size == least)


def _slots_of(shape: str) -> Counter[str]:
    words = [word[1:-1] for word in shape.split(" ") if word.startswith("{")]
    return Counter("verb" if word not in CONCEPTS else word for word in words)


_SLOTS = {shape: _slots_of(shape) for shape in SHAPES}
