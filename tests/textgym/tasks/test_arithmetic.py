"""Arithmetic: the right number, its right digits, and nothing else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from textgym import Instance, Tokenizer
from textgym.seeding import instance_rng
from textgym.tasks.arithmetic import ArithmeticTask

GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"
LEVELS = range(1, ArithmeticTask.levels + 1)


def draws(level, count, split="train"):
    task = ArithmeticTask(level=level)
    return [task.draw(instance_rng(0, split, 0, i), split) for i in range(count)]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Mia has 7 red bells. Tom gives her 5 more. How many now?", "12"),
        ("Tom finds 3 tiny keys in the cave, then 4 more. How many now?", "7"),
        ("In the barn are 38 green hats. Ivy brings 25 more. How many now?", "63"),
        ("Leo has 9 blue kites and gives 9 to Mia. How many are left?", "0"),
        ("Leo had 41 blue kites and lost 12 in the barn. How many are left?", "29"),
        ("In the mill were 8 round drums. Zoe took 5. How many are left?", "3"),
        ("7 * 8 - 15 =", "41"),
        ("(3 - 20) * 4 - (-2) =", "-66"),
        ("99 * 99 * 10 - 10 + 0 =", "98000"),
    ],
)
def test_answers_by_hand(prompt, answer):
    task = ArithmeticTask()
    assert task.from_prompt(prompt) == Instance(prompt, answer)
    assert task.score_text(Instance(prompt), f" {answer}") == 1.0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        *((" -241", 1.0), ("-241", 1.0), (" -241.", 1.0), ("\n-241 \n", 1.0)),
        # Two of three digits in place, one, none.
        *((" -245", 0.2), (" -941", 0.2), (" -291", 0.2), (" -299", 0.1), (" -124", 0.0)),
        *((" 241", 0.0), (" 999", 0.0), (" -24", 0.0), (" -2410", 0.0), (" --241", 0.0)),
        *((" -0241", 0.0), (" - 241", 0.0), (" -241 bells", 0.0), (" -2 4 1", 0.0), ("-", 0.0)),
        *((" -241\n-241", 0.0), (" -२४१", 0.0), ("", 0.0), ("9" * 100_000, 0.0), ("\ud800", 0.0)),
    ],
)
def test_scores_by_hand(answer, score):
    assert ArithmeticTask().score_text(Instance("9 - 250 =", "-241"), answer) == pytest.approx(
        score
    )


def test_a_text_that_was_not_ended_earns_only_its_digits():
    task, instance = ArithmeticTask(), Instance("20 + 21 =", "41")
    assert task.score_text(instance, " 41", ended=False) == pytest.approx(0.3)
    assert task.score_text(instance, " 4", ended=False) == 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_instances_are_as_the_level_says(level):
    instances = draws(level, 300)
    answers = [int(i.target) for i in instances]
    low, high = {1: (0, 18), 2: (0, 198), 3: (0, 999), 4: (-999, 999), 5: (-99999, 99999)}[level]
    assert low <= min(answers) <= max(answers) <= high
    for instance in instances:
        assert ArithmeticTask(level=level).from_prompt(instance.prompt) == instance
        if level > 2:
            operators = instance.prompt.replace("(-", "").split("=")[0]
            assert sum(operators.count(x) for x in "+-*") == level - 1
            assert ("(" in instance.prompt.replace("(-", "")) == (level > 3)
    assert len({i.prompt for i in instances}) > (200 if level == 3 else 295)


@pytest.mark.parametrize("level", LEVELS)
def test_no_constant_answer_pays(level):
    task, instances = ArithmeticTask(level=level), draws(level, 2000)
    for answer, _ in Counter(i.target for i in instances).most_common(5):
        assert np.mean([task.score_text(i, f" {answer}") for i in instances]) < 0.13


@pytest.mark.parametrize("level", LEVELS)
def test_prompts_and_answers_fit(level):
    tokenizers = [Tokenizer.load()] + ([Tokenizer.load(GPT2)] if GPT2.is_dir() else [])
    task, instances = ArithmeticTask(level=level), draws(level, 300)
    for tokenizer in tokenizers:
        bound = task.prompt_bound(lambda text, t=tokenizer: len(t.encode(text)))
        assert max(len(tokenizer.encode(i.prompt)) for i in instances) <= bound <= 80
        longest = max(len(tokenizer.encode(task.solve(i))) for i in instances)
        assert longest + 1 <= task.max_new_tokens


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "7 + 5",
        "7 / 2 =",
        "7 / 0 =",
        "Mia has 7 red dogs. Tom gives her 5 more. How many now?",
        "Mia has 7 red bells. Tom gives them 5 more. How many now?",
        "Mia had 5 red bells and lost 7 in the barn. How many are left?",
        "Mia has x red bells. Tom gives her 5 more. How many now?",
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="arithmetic prompt"):
        ArithmeticTask().from_prompt(prompt)


def test_unknown_levels_are_refused():
    with pytest.raises(ValueError, match="1 to 5"):
        ArithmeticTask(level=6)
