"""The world of facts: what its sentences say, which are none, and how texts are judged."""

from __future__ import annotations

import random

import pytest

from textgym.tasks.facts_world import (
    ATTRIBUTES,
    FACTS,
    draw_value,
    facts_of,
    faithfulness,
    tell,
    tell_fact,
)
from textgym.tasks.story_world import NAMES

MIA = {"kind": "fox", "home": "mill", "food": "soup"}
TRUTH = facts_of("Mia", MIA)


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("Mia is a fox.", {"kind": "fox"}),
        ("Mia is an owl.", {"kind": "owl"}),
        ("Mia the fox lives by the mill.", {"kind": "fox", "home": "mill"}),
        ("An owl called Mia likes soup.", {"kind": "owl", "food": "soup"}),
        ("A baker called Mia is sad.", {"job": "baker", "feeling": "sad"}),
        ("Near the mill lives Mia the fox.", {"kind": "fox", "home": "mill"}),
        ("Mia is a proud baker.", {"feeling": "proud", "job": "baker"}),
        ("Mia owns a red kite.", {"thing": "red kite"}),
        ("Mia is a fox who lives near the mill and likes soup.", MIA),
        ("Mia is a fox, lives near the mill and likes soup.", MIA),
        ("Mia is a fox, lives near the mill, and likes soup.", MIA),
        ("Mia likes soup and likes soup.", {"food": "soup"}),
        ("Mia is a friend of Tom.", {"friend": "Tom"}),
    ],
)
def test_what_sentences_say(sentence, said):
    assert FACTS.read(sentence) == ("Mia", facts_of("Mia", said))


@pytest.mark.parametrize(
    "sentence",
    [
        "Mia is a fox",  # no full stop
        "Mia is an fox.",
        "Mia is a owl.",
        "mia is a fox.",
        "Mia is  a fox.",
        "Mia a fox is.",
        "Mia is a mill.",
        "Mia is a fox, lives near the mill.",
        "Mia is a fox and lives near the mill and likes soup.",
        "Mia likes soup who is a fox.",
        "Mia the fox.",
        "Near the mill lives Mia and likes soup.",
        "She is a fox.",  # who?
        ".",
    ],
)
def test_no_sentences(sentence):
    assert FACTS.read(sentence) is None


def test_pronouns_mean_the_last_subject():
    assert FACTS.read("She is a fox.", "Mia") == ("Mia", {("Mia", "kind", "fox")})
    assert FACTS.read("He is a fox.", "Mia") is None
    # Tom is not the subject of the first sentence.
    text = "Mia is a friend of Tom. He likes soup."
    assert faithfulness(FACTS, text, facts_of("Mia", {"friend": "Tom"})) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("text", "coverage", "precision"),
    [
        ("Mia the fox lives near the mill. She likes soup.", 1, 1),
        ("Mia is a fox.", 1 / 3, 1),
        ("Mia is a fox who likes cake.", 1 / 3, 1 / 2),
        ("Mia is a fox. Mia is a fox.", 1 / 3, 1 / 2),  # nothing new
        ("Mia is a fox. Mia the fox likes soup.", 2 / 3, 1),  # said twice, beside something new
        ("Mia is a fox. She runs.", 1 / 3, 1 / 2),  # not grammatical
        ("Mia is a fox. She likes", 1 / 3, 1 / 2),  # unfinished
        ("Mia is a fox.She likes soup.", 1 / 3, 1 / 2),  # glued
        ("Mia is a fox. Mia is a cat. Mia is a bear.", 1 / 3, 1 / 3),  # hedging
        ("Tom is a fox who lives near the mill and likes soup.", 0, 0),
        ("", 0, 0),
        ("Mia is a fox. " * 100, 0, 0),
    ],
)
def test_coverage_and_precision(text, coverage, precision):
    assert faithfulness(FACTS, text, TRUTH) == pytest.approx((coverage, precision))


def test_a_text_that_was_cut_off_has_one_fault():
    assert faithfulness(FACTS, "Mia is a fox.", TRUTH, ended=False) == (1 / 3, 1 / 2)


def test_what_is_told_is_read():
    dice = random.Random(0)
    for _ in range(500):
        name = dice.choice(NAMES)
        values = {a: draw_value(a, name, dice) for a in dice.sample(ATTRIBUTES, dice.randint(1, 7))}
        text = tell(name, values, dice)
        assert faithfulness(FACTS, text, facts_of(name, values)) == (1.0, 1.0), text
        (attribute, value) = next(iter(values.items()))
        sentence = tell_fact(name, attribute, value, dice, known=True)
        assert FACTS.read(sentence, name) == (name, facts_of(name, {attribute: value}))
