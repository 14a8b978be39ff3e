"""KeywordsToSentence: which sentences make sense, and what they are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textgym import Tokenizer
from textgym.tasks.keywords_to_sentence import KeywordsToSentenceTask
from textgym.tasks.keywords_world import SHAPES, read

TASK = KeywordsToSentenceTask()
PROMPT = "Words: ball, mill, fox\nSentence:"
GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"


def score(text, prompt=PROMPT, **kwargs):
    return TASK.score_text(TASK.from_prompt(prompt), text, **kwargs)


@pytest.mark.parametrize(
    ("sentence", "content"),
    [
        ("The fox found a ball.", "fox find ball"),
        ("An owl will paint the red boat.", "owl paint red boat"),
        ("Near the mill the fox sings.", "mill fox sing"),
        ("One day a fox danced with an owl.", "fox dance owl"),
        ("The fox and the bear sing by the lake.", "fox bear sing lake"),
        ("The fox helped the bear at the mill.", "fox help bear mill"),
        ("A fox gives the bear a tiny key.", "fox give bear tiny key"),
        ("A fox gave a key to the bear.", "fox give key bear"),
    ],
)
def test_sentences(sentence, content):
    assert sorted(read(sentence)) == sorted(content.split())


@pytest.mark.parametrize(
    "sentence",
    [
        "The ball found a fox.",  # things do nothing
        "The fox painted a bear.",  # and animals are not painted
        "The fox sang a ball.",
        "The fox gave a ball.",
        "The fox helped a ball.",
        "The fox and the bear sings.",
        "The fox sing.",
        "The fox will sang.",
        "The fox helped the fox.",
        "A owl sang.",
        "The red fox sang.",
        "The fox sang",
        "fox ball mill.",
        "the fox sang.",
        "The fox sang near the mill at the lake.",
    ],
)
def test_no_sentences(sentence):
    assert read(sentence) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" The fox found a ball near the mill.", 1),
        ("At the mill a fox will hide the ball.", 1),
        (" The fox found a ball.", 2 / 3),
        (" The fox sang.", 1 / 3),
        (" The bear sang.", 0),
        (" The fox found a ball near the lake.", 2 / 3),
        (" The fox found a red ball near the mill.", 0.9),  # red is one word too many
        (" The fox gave the owl a red ball at the mill.", 0.8),
        (" The fox found a ball near the mill. The fox sang.", 0),
        (" fox ball mill.", 0),
        (" ball, mill, fox", 0),
        (PROMPT, 0),
        ("The fox found a ball near the mill." * 1000, 0),
        ("\ud800", 0),
    ],
)
def test_scores_by_hand(text, expected):
    assert score(text) == pytest.approx(expected)


def test_verbs_count_in_any_form_and_half_if_cut_off():
    prompt = "Words: give, fox, red\nSentence:"
    assert score(" A fox gave the bear a red key.", prompt) == 1.0
    assert score(" The fox gives a red key to the owl.", prompt) == 1.0
    assert score(" The fox gives a red key to the owl.", prompt, ended=False) == 0.5
    assert score(" The fox sells a red key to the owl.", prompt) == pytest.approx(2 / 3)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_prompts_say_everything(level):
    task = KeywordsToSentenceTask(level)
    rng = np.random.default_rng(level)
    for _ in range(200):
        instance = task.sample(rng)
        assert len(instance.data["words"]) == level + 3
        assert task.from_prompt(instance.prompt) == instance
        assert task.score_text(instance, task.solve(instance)) == 1.0


def test_every_shape_is_read():
    words = {
        "adjective": "red",
        "noun": "kite",
        "place": "mill",
        "thing_past": "found",
        "thing_present": "finds",
        "thing_base": "find",
        "move_past": "sang",
        "move_present": "sings",
        "move_base": "sing",
        "meet_past": "met",
        "meet_present": "meets",
        "meet_base": "meet",
        "give_past": "gave",
        "give_present": "gives",
        "give_base": "give",
    }
    kinds = ("fox", "bear", "cat")
    for shape in SHAPES:
        for kind in kinds:
            shape = shape.replace("{kind}", kind, 1)
        assert read(shape.format_map(words) + ".") is not None, shape


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Words: ball, mill, fox", "not a prompt"),
        ("Words: ball, moon\nSentence:", "'moon' is no word"),
        ("Words: ball, ball\nSentence:", "no sentence has all"),
        ("Words: ball, kite\nSentence:", "no sentence has all"),
        ("Words: sing, red\nSentence:", "no sentence has all"),
    ],
)
def test_other_prompts_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        TASK.from_prompt(prompt)


@pytest.mark.parametrize("source", ["embedded", GPT2])
@pytest.mark.parametrize("level", [1, 3])
def test_prompt_bound(source, level):
    if source != "embedded" and not source.is_dir():
        pytest.skip(f"no GPT-2 tokenizer in {source}")
    tokenizer = Tokenizer.load(source)
    task = KeywordsToSentenceTask(level)
    bound = task.prompt_bound(lambda text: len(tokenizer.encode(text)))
    rng = np.random.default_rng(0)
    longest = max(len(tokenizer.encode(task.sample(rng).prompt)) for _ in range(1000))
    assert longest <= bound <= longest + 20
