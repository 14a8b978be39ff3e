"""Countdown: exact values, each number once, closeness that is worth a little."""

import time
from collections import Counter
from pathlib import Path

import pytest

from textgym import Tokenizer
from textgym.seeding import instance_rng
from textgym.tasks.countdown import CountdownTask, search
from textgym.tasks.expression import read

GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"
LEVELS = range(1, CountdownTask.levels + 1)
TASK = CountdownTask()
INSTANCE = TASK.from_prompt("Help Mia make 20 from 8, 3, 3, 2:")


def draws(level, count):
    task = CountdownTask(level=level)
    return task, [task.draw(instance_rng(0, "train", 0, i), "train") for i in range(count)]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        *((" 8*3-2*3+2", 0.0), (" 8*3-3-2", 0.1 + 0.2 * 20 / 30), (" (8+2)*(3-3/3)", 0.0)),
        *(
            (" (3+2)*(8-3)-5", 0.0),
            (" 2*(8+3)-3", 0.1 + 0.2 * 20 / 30),
            (" 3*(8-3)+2", 0.1 + 0.2 / 2.5),
        ),
        *((" 8*2+3+3", 0.1 + 0.2 * 20 / 40), (" 8*2+3", 0.1 + 0.2 * 20 / 30)),
        # One half off: a fraction is judged as exactly as a whole number.
        (" 8*2+3+3/2", 0.0),
        (" 3*8-3/2", 0.1 + 0.2 * 20 / 45),
        *(
            (" 20", 0.0),
            (" 8", 0.0),
            ("", 0.0),
            (" 8+12", 0.0),
            (" 8+8+3+1", 0.0),
            (" 8 + + 3", 0.0),
        ),
        *((" 8*3-2-3=19", 0.0), ("\ud800", 0.0), ("9**9**9", 0.0), ("8" * 100_000, 0.0)),
        *(("(" * 10_000 + "8+3" + ")" * 10_000, 0.0), ("8/(3-3)", 0.0)),
    ],
)
def test_scores_by_hand(answer, score):
    assert TASK.score_text(INSTANCE, answer) == pytest.approx(score)


@pytest.mark.parametrize("answer", [" 24/(8-7)", "(24)/(8-7).", "24 / (8 - 7)", "24*(8-7)", "3*8"])
def test_every_way_to_make_it_is_right(answer):
    instance = TASK.from_prompt("Ivy has 24, 8, 7, 3 and wants 24:")
    assert TASK.score_text(instance, answer) == 1.0
    assert TASK.score_text(instance, answer, ended=False) == pytest.approx(0.3)


def test_fractions_on_the_way_count():
    instance = TASK.from_prompt("Ivy needs 24 out of 8, 3, 8, 3:")
    assert TASK.score_text(instance, " 8/(3-8/3)") == 1.0


def test_closer_is_better_and_right_is_best():
    instance = TASK.from_prompt("Ivy needs 30 out of 1, 2, 3, 5, 10:")
    answers = ("1+2", "5+3", "10+5", "10+5+3+2", "10*3-1", "10*3")
    scores = [TASK.score_text(instance, answer) for answer in answers]
    assert scores == sorted(scores)
    assert scores[-2] < 0.3
    assert scores[-1] == 1.0


@pytest.mark.parametrize("level", LEVELS)
def test_instances_can_be_solved_as_drawn(level):
    task, instances = draws(level, 300)
    for instance in instances:
        numbers, target = instance.data["numbers"], instance.data["target"]
        assert task.from_prompt(instance.prompt).data == instance.data
        assert len(numbers) == level + 2
        assert target not in numbers
        solution = read(task.solve(instance).strip())
        assert solution.value == target
        assert not Counter(solution.numbers) - Counter(numbers)
        assert task.score_text(instance, task.solve(instance)) == 1.0


@pytest.mark.parametrize("level", [1, 2, 3])
def test_what_was_drawn_is_found_by_searching_too(level):
    task, instances = draws(level, 10 if level < 3 else 2)
    for instance in instances:
        found = task.solve(task.from_prompt(instance.prompt))
        assert task.score_text(instance, found) == 1.0


def test_what_cannot_be_made_is_said():
    assert search((1, 1, 1), 50) is None
    with pytest.raises(ValueError, match="cannot be made"):
        TASK.solve(TASK.from_prompt("Ivy needs 50 out of 1, 1, 1:"))


def test_scoring_is_cheap():
    texts = ["*".join(["8"] * 50_000), "(" * 99, "-" * 99 + "8", "8-" * 49 + "8", "8" * 100_000]
    start = time.process_time()
    for text in texts:
        TASK.score_text(INSTANCE, text)
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize("level", LEVELS)
def test_prompts_and_answers_fit(level):
    tokenizers = [Tokenizer.load()] + ([Tokenizer.load(GPT2)] if GPT2.is_dir() else [])
    task, instances = draws(level, 300)
    for tokenizer in tokenizers:
        bound = task.prompt_bound(lambda text, t=tokenizer: len(t.encode(text)))
        assert max(len(tokenizer.encode(i.prompt)) for i in instances) <= bound <= 60
        longest = max(len(tokenizer.encode(task.solve(i))) for i in instances)
        assert longest + 1 <= task.max_new_tokens


@pytest.mark.parametrize(
    "prompt", ["", "Make 24", "Ivy needs 24 out of 3:", "Ivy needs 0 out of 3, 4:", "Ivy needs 5:"]
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="not a countdown prompt"):
        TASK.from_prompt(prompt)
