"""Summarization: reports, what a summary of them is worth, and copies that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from textgym import Tokenizer
from textgym.tasks.story import split_sentences
from textgym.tasks.summarization import EVENTS, SummarizationTask

TASK = SummarizationTask()
REPORT = (
    "On Monday Mia the fox went to the mill. The sun was low. There she found a red kite. "
    "Last spring she lost a blue hat. In the end she was proud.\nSummary:"
)
GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"


def score(text, **kwargs):
    return TASK.score_text(TASK.from_prompt(REPORT), text, **kwargs)


# Five key facts: Monday, mill, found, red kite, proud; so at most fifteen words.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" On Monday Mia found a red kite at the mill and was proud.", 1),
        ("Mia went to the mill on Monday. She found a red kite. She felt proud.", 1),
        (" At the mill Mia found a red kite on Monday and felt proud.", 1),
        (" Mia found a red kite at the mill.", 3 / 5),
        (" Mia found a red kite.", 2 / 5),
        (" Mia was proud.", 1 / 5),
        (" On Monday Mia found a blue hat at the mill and was proud.", 4 / 5 * 4 / 5),
        (" On Monday Mia lost a blue hat at the mill and was proud.", 3 / 5 * 3 / 5),
        (" Mia found a red kite at the lake.", 2 / 5 * 2 / 3),
        (" Mia found a red kite. The sun was low.", 2 / 5 * 2 / 3),  # an aside
        (" Mia found a red kite. She found a red kite.", 2 / 5 * 2 / 3),
        (" Tom found a red kite at the mill.", 0),
        (REPORT, 0),
        (" There she found a red kite.", 0),
        (" On Monday Mia the fox went to the mill.", 0),
        (" Mia Monday mill red kite proud.", 0),
        ("", 0),
        ("\ud800", 0),
    ],
)
def test_scores_by_hand(text, expected):
    assert score(text) == pytest.approx(expected)


def test_long_and_unfinished_summaries_are_worth_less():
    text = (
        " On Monday Mia went to the mill. On Monday she found a red kite at the mill."
        " On Monday she was at the mill and felt proud."
    )
    assert len(text.split()) == 27
    assert score(text) == pytest.approx(15 / 27)
    best = " On Monday Mia found a red kite at the mill and was proud."
    assert score(best, ended=False) == pytest.approx(5 / 6)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_reports_say_everything_and_no_sentence_of_theirs_is_a_summary(level):
    task = SummarizationTask(level)
    rng = np.random.default_rng(level)
    for _ in range(200):
        instance = task.sample(rng)
        assert len(instance.data["facts"]) == level + 3
        assert task.from_prompt(instance.prompt) == instance
        assert task.score_text(instance, task.solve(instance)) == 1.0
        sentences = split_sentences(instance.prompt.removesuffix("\nSummary:"))
        assert len(sentences) == len(set(sentences)) == (4, 5, 8)[level - 1]
        hero = instance.data["facts"][0][0]
        assert not any(EVENTS.read(sentence, hero) for sentence in sentences)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        REPORT.removesuffix("\nSummary:"),
        REPORT.replace("There she", "There he"),
        REPORT.replace("The sun was low. ", "On Friday Mia the fox went to the lake. "),
        REPORT.replace("The sun was low.", "It rained."),
        REPORT.partition(". ")[2],  # starts without the hero
        "There she found a red kite.\nSummary:",
        REPORT.replace("The sun was low.", "Mia came along."),
        REPORT.replace("The sun was low.", "There she hid a red cup."),
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="no sentence of a report"):
        TASK.from_prompt(prompt)


def test_a_report_tells_of_a_deed():
    with pytest.raises(ValueError, match="nothing is done"):
        TASK.from_prompt("On Monday Mia the fox went to the mill.\nSummary:")


@pytest.mark.parametrize("source", ["embedded", GPT2])
@pytest.mark.parametrize("level", [1, 3])
def test_prompt_bound(source, level):
    if source != "embedded" and not source.is_dir():
        pytest.skip(f"no GPT-2 tokenizer in {source}")
    tokenizer = Tokenizer.load(source)
    task = SummarizationTask(level)
    bound = task.prompt_bound(lambda text: len(tokenizer.encode(text)))
    rng = np.random.default_rng(0)
    longest = max(len(tokenizer.encode(task.sample(rng).prompt)) for _ in range(1000))
    assert longest <= bound <= 1.5 * longest
