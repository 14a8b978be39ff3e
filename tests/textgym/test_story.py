"""Story: many prompts, an oracle that scores 1, garbage that does not, and every rule at work."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from textgym import Instance, Tokenizer
from textgym.seeding import instance_rng, split_of
from textgym.tasks.story import OPENINGS, SLOTS, StoryTask

TASK = StoryTask()
TOKENIZER = Tokenizer.load()
GPT2 = Path(__file__).parents[2] / ".." / "shared" / "models" / "gpt2-tokenizer"
PROMPT = (
    "Meet Tom the owl, visit the mill, grant the wish, end proud.\n"
    "One morning Mia the fox was lonely near the garden and wished for a red kite."
)
GO, MEET, GET = (
    "Mia ran to the mill.",
    "There she met Tom the owl.",
    "She found a red kite.",
)
GIVE, END = "She gave the kite to Tom.", "In the end Mia was proud."
BEST = " ".join([GO, MEET, GET, GIVE, END])


def instances(split, count):
    return [TASK.draw(instance_rng(0, split, 0, i), split) for i in range(count)]


def score(*sentences, ended=True):
    return TASK.score_text(TASK.from_prompt(PROMPT), " " + " ".join(sentences), ended=ended)


def test_more_than_a_billion_instances():
    free = math.prod(map(len, SLOTS.values())) * len(OPENINGS)
    # The friend is no namesake of the hero, and the place to visit is another one.
    names, places = len(SLOTS["hero"]), len(SLOTS["place"])
    assert free * (names - 1) * (places - 1) // (names * places) > 10**9


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_oracle_scores_one_within_the_budget(split):
    for instance in instances(split, 500):
        story = TASK.solve(instance)
        assert TASK.score_text(instance, story) == 1.0
        assert len(TOKENIZER.encode(story)) + 1 <= TASK.max_new_tokens
        assert split_of(instance.prompt) == split


def test_garbage_is_worth_nothing():
    rng = np.random.default_rng(0)
    for instance in instances("test", 40):
        sentences = TASK.solve(instance).split(". ")
        tokens = rng.integers(0, TOKENIZER.vocab_size, 64)
        garbage = [
            "",
            " ",
            ".",
            "." * 5000,
            "a" * 100_000,
            "\x00\ud800 \U0001f600 ﷽ ‮",
            instance.prompt,
            (instance.prompt + " ") * 3,
            (sentences[0] + ". ") * 10,
            TOKENIZER.decode_completions([tokens.tolist()])[0],
            "".join(chr(c) for c in rng.integers(32, 50_000, 200) if not 0xD800 <= c < 0xE000),
        ]
        for text in garbage:
            assert TASK.score_text(instance, text) <= 0.1, text[:80]


def test_the_best_and_its_parts_by_hand():
    assert score(GO, MEET, GET, GIVE, END) == 1.0
    # Each part missing, or another in its place, from the formula of the docstring.
    assert score(GO, MEET, GET, GIVE, END, ended=False) == pytest.approx(0.7)
    assert score(GO, MEET, GET, GIVE) == pytest.approx(0.7)
    assert score(GO, MEET, GET, GIVE, "In the end Mia was glad.") == pytest.approx(0.8)
    assert score("Mia ran to the lake.", MEET, GET, GIVE, END) == pytest.approx(0.8)
    other = "She gave the kite to Ben."
    assert score(GO, "There she met Ben the owl.", GET, other, END) == pytest.approx(0.8)
    assert score(GO, "There she met Tom the cat.", GET, GIVE, END) == pytest.approx(0.8)
    assert score(GO, MEET, "She found a blue kite.", GIVE, END) == pytest.approx(0.8)
    # Three sentences count as four.
    assert score(GO, MEET, GET) == pytest.approx(0.75 * 0.6)


@pytest.mark.parametrize(
    "story",
    [
        ["He ran to the mill.", MEET, GET, GIVE, END],  # she is no he
        ["Ben ran to the mill.", MEET, GET, GIVE, END],  # nobody knows him
        [GO, "Tom helped her all day.", MEET, GET, GIVE, END],  # not met yet
        [GO, MEET, GIVE, GET, END],  # gives what she does not have
        [GO, MEET, GET, END],  # proud of nothing
        [GO, MEET, GET, GIVE, END, "The sun was low."],  # something follows the ending
        [GO, MEET, GET, GIVE, GIVE, END],  # told twice
        ["Mia ran to the garden.", GO, MEET, GET, GIVE, END],  # she is there
        [GO, MEET, GET, "Mia ran to the lake.", GIVE, END],  # Tom stayed at the mill
        [GO, MEET, GET, GIVE, GIVE.replace("Tom", "Tom the owl"), END],  # no such sentence
        [GO, MEET, GET, GIVE, END, "and"],  # an unfinished sentence
        [GO, MEET, GET, GIVE, END.lower()],
        [GO + MEET, GET, GIVE, END],  # glued together
    ],
)
def test_every_rule_costs(story):
    assert score(*story) < 1.0


def test_scoring_is_pure():
    drawn = instances("train", 20)
    texts = [TASK.solve(i) for i in reversed(drawn)]
    first = [TASK.score_text(i, t) for i, t in zip(drawn, texts, strict=True)]
    again = [TASK.score_text(i, t) for i, t in zip(drawn[::-1], texts[::-1], strict=True)]
    assert first == again[::-1]
    assert min(first) < 0.7


def test_prompts_say_everything():
    for instance in instances("train", 300):
        assert TASK.from_prompt(instance.prompt) == instance
        bare = Instance(instance.prompt)
        assert TASK.score_text(bare, TASK.solve(bare)) == 1.0


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Once upon a time", "not a story prompt"),
        (PROMPT.replace("Mia", "Bob"), "'Bob' is no hero"),
        (PROMPT.replace("Mia", "Tom"), "another name"),
        (PROMPT.replace("garden", "mill"), "another than the first"),
    ],
)
def test_other_prompts_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        TASK.from_prompt(prompt)


@pytest.mark.parametrize("source", ["embedded", GPT2])
def test_prompt_bound(source):
    if source != "embedded" and not source.is_dir():
        pytest.skip(f"no GPT-2 tokenizer in {source}")
    tokenizer = Tokenizer.load(source)
    bound = TASK.prompt_bound(lambda text: len(tokenizer.encode(text)))
    lengths = [len(tokenizer.encode(i.prompt)) for i in instances("train", 3000)]
    assert max(lengths) <= bound <= max(lengths) + 12
