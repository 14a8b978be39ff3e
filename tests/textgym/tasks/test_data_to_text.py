"""DataToText: tables, what a text about them is worth, and prompts that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textgym import Tokenizer
from textgym.tasks.data_to_text import DataToTextTask

TASK = DataToTextTask()
PROMPT = "name: Mia | food: soup | kind: fox | home: mill\nText:"
TWO = "name: Mia | kind: fox | friend: Tom\nname: Tom | mood: sad\nText:"
GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"


def score(text, prompt=PROMPT, **kwargs):
    return TASK.score_text(TASK.from_prompt(prompt), text, **kwargs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Mia is a fox. She likes soup. She lives near the mill.", 1),
        ("Mia is a fox who likes soup and has a home near the mill.", 1),
        (" Mia the fox lives by the mill.", 2 / 3),
        (" Mia is a fox.", 1 / 3),
        (" Mia is a fox who likes cake and lives near the mill.", 2 / 3 * 2 / 3),
        (" Mia is a fox. She is happy.", 1 / 3 * 1 / 2),  # not in the table
        (" Mia Mia fox soup mill.", 0),
        (PROMPT, 0),
        (" Tom is a fox who likes soup.", 0),
        ("\ud800", 0),
    ],
)
def test_scores_by_hand(text, expected):
    assert score(text) == pytest.approx(expected)


def test_a_text_cut_off_is_worth_less():
    best = " Mia is a fox who likes soup and has a home near the mill."
    assert score(best, ended=False) == pytest.approx(3 / 4)


def test_two_characters_and_a_friendship_from_either_side():
    assert score(" Mia is a fox. Tom is sad. He has a friend called Mia.", TWO) == 1.0
    assert score(" Mia the fox is a friend of Tom. Tom feels sad.", TWO) == 1.0
    assert score(" Mia is a fox. She is sad.", TWO) == pytest.approx(1 / 3 * 1 / 2)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_prompts_say_everything(level):
    task = DataToTextTask(level)
    rng = np.random.default_rng(level)
    for _ in range(200):
        instance = task.sample(rng)
        assert task.from_prompt(instance.prompt) == instance
        assert task.score_text(instance, task.solve(instance)) == 1.0
        assert instance.prompt.count(" | ") == (3, 4, 5, 6)[level - 1]


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "name: Mia | kind: fox",
        "name: Bob | kind: fox\nText:",
        "name: Mia\nText:",
        "name: Mia | kind: mill\nText:",
        "name: Mia | kind: fox | kind: cat\nText:",
        "name: Mia | kind: fox\nname: Mia | home: mill\nText:",
        "name: Mia | friend: Mia\nText:",
        "kind: fox | name: Mia\nText:",
        "name: Mia | thing: kite\nText:",
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="not a table"):
        TASK.from_prompt(prompt)


@pytest.mark.parametrize("source", ["embedded", GPT2])
@pytest.mark.parametrize("level", [1, 4])
def test_prompt_bound(source, level):
    if source != "embedded" and not source.is_dir():
        pytest.skip(f"no GPT-2 tokenizer in {source}")
    tokenizer = Tokenizer.load(source)
    task = DataToTextTask(level)
    bound = task.prompt_bound(lambda text: len(tokenizer.encode(text)))
    rng = np.random.default_rng(0)
    longest = max(len(tokenizer.encode(task.sample(rng).prompt)) for _ in range(1000))
    assert longest <= bound <= longest + 20
