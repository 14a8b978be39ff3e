"""QuestionAnswering: what is asked and answered, and how answers are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from textgym import Tokenizer
from textgym.tasks.question_answering import NOT_SAID, QuestionAnsweringTask

TASK = QuestionAnsweringTask()
TEXT = (
    "Mia is a baker. She has a friend called Tom. Tom lives near the mill. Zoe is an owl. "
    "Zoe owns a red kite. Tom likes soup."
)
GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"


def ask(question):
    return TASK.from_prompt(f"{TEXT}\nQuestion: {question}\nAnswer:")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Where does Tom live?", "mill"),
        ("What does Mia work as?", "baker"),
        ("What animal is Zoe?", "owl"),
        ("What does Tom like?", "soup"),
        ("What does Zoe own?", "red kite"),
        ("Who is the friend of Mia?", "Tom"),
        ("Who is the friend of Tom?", "Mia"),
        ("Who likes soup?", "Tom"),
        ("Who is an owl?", "Zoe"),
        ("Who owns a red kite?", "Zoe"),
        ("Where does the friend of Mia live?", "mill"),
        ("What does the owl own?", "red kite"),
        ("Where does the friend of the baker live?", "mill"),
        ("Where does Mia live?", NOT_SAID),
        ("Who owns a blue kite?", NOT_SAID),
        ("Where does the fox live?", NOT_SAID),
        ("Who is the friend of Zoe?", NOT_SAID),
    ],
)
def test_questions(question, answer):
    instance = ask(question)
    assert instance.data["value"] == answer
    assert TASK.score_text(instance, " " + answer) == 1.0
    assert TASK.score_text(instance, TASK.solve(instance)) == 1.0
    assert TASK.score_text(instance, TEXT) == 0.0


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Where does Tom live?", " near the mill.", 1),
        ("Where does Tom live?", "The mill", 1),
        ("Where does Tom live?", " MILL.", 1),
        ("Where does Tom live?", " mill lake", 0),
        ("Where does Tom live?", " mill the near.", 0),
        ("Where does Tom live?", " Tom lives near the mill.", 0),
        ("Where does Tom live?", "", 0),
        ("What animal is Zoe?", " It is an owl.", 1),
        ("What animal is Zoe?", " a fox", 0),
        ("What does Zoe own?", " It is a red kite.", 1),
        ("What does Zoe own?", " a blue kite", 1 / 2),
        ("What does Zoe own?", " a kite.", 2 / 3),
        ("What does Zoe own?", " red", 0),
        ("What does Zoe own?", " kite red", 0),
        ("What does Zoe own?", " red kite red kite", 0),
        ("Where does Mia live?", " It is not said.", 1),
        ("Where does Mia live?", " mill", 0),
        ("Where does Tom live?", "\ud800" * 100_000, 0),
    ],
)
def test_scores_by_hand(question, answer, expected):
    assert TASK.score_text(ask(question), answer) == pytest.approx(expected)


def test_an_answer_cut_off_is_worth_half():
    assert TASK.score_text(ask("Where does Tom live?"), " mill", ended=False) == 0.5


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_every_question_has_one_answer_that_cannot_be_guessed(level):
    task = QuestionAnsweringTask(level)
    rng = np.random.default_rng(level)
    values: Counter[str] = Counter()
    for _ in range(600):
        instance = task.sample(rng)
        assert task.from_prompt(instance.prompt) == instance
        text = instance.prompt.partition("\n")[0]
        assert text.count(".") == (3, 4, 5, 7)[level - 1]
        value = instance.data["value"]
        values[value] += 1
        assert (value == NOT_SAID) == (value not in text)
    unsaid = values.pop(NOT_SAID, 0) / 600
    assert unsaid == 0 if level == 1 else 0.05 < unsaid < 0.15
    assert values.most_common(1)[0][1] / 600 < 0.06


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "not a question"),
        ("Mia sings.\nQuestion: Where does Mia live?\nAnswer:", "'Mia sings.' is no sentence"),
        ("Mia likes soup.\nQuestion: Why?\nAnswer:", "not a question"),
        ("Mia likes soup.\nQuestion: Where does Bob live?\nAnswer:", "not a question"),
        ("Mia likes soup.\nQuestion: What does Mia like?", "not a question"),
        ("Mia likes jam. Tom likes jam.\nQuestion: Who likes jam?\nAnswer:", "one answer"),
    ],
)
def test_other_prompts_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        TASK.from_prompt(prompt)


@pytest.mark.parametrize("source", ["embedded", GPT2])
@pytest.mark.parametrize("level", [1, 4])
def test_prompt_bound(source, level):
    if source != "embedded" and not source.is_dir():
        pytest.skip(f"no GPT-2 tokenizer in {source}")
    tokenizer = Tokenizer.load(source)
    task = QuestionAnsweringTask(level)
    bound = task.prompt_bound(lambda text: len(tokenizer.encode(text)))
    rng = np.random.default_rng(0)
    longest = max(len(tokenizer.encode(task.sample(rng).prompt)) for _ in range(1000))
    assert longest <= bound <= 1.6 * longest
