"""Sorting: what is in order from the start counts, and nothing behind the first mistake."""

import itertools
from pathlib import Path

import pytest

from textgym import Instance, Tokenizer
from textgym.seeding import instance_rng
from textgym.tasks.sorting import SortingTask

GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"
LEVELS = range(1, SortingTask.levels + 1)
TASK = SortingTask()
INSTANCE = TASK.from_prompt("Sort: pear, fig, mill, apple ->")


def draws(level, count):
    task = SortingTask(level=level)
    return task, [task.draw(instance_rng(0, "train", 0, i), "train") for i in range(count)]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Sort: pear, fig, mill, apple ->", "apple, fig, mill, pear"),
        ("Sort down: pear, fig, mill, apple ->", "pear, mill, fig, apple"),
        ("Sort: 10, 9, 0, 11 ->", "0, 9, 10, 11"),
        ("Sort down: 10, -9, 0, -11, 10 ->", "10, 10, 0, -9, -11"),
    ],
)
def test_answers_by_hand(prompt, answer):
    assert TASK.from_prompt(prompt) == Instance(prompt, answer)
    assert TASK.score_text(Instance(prompt), f" {answer}") == 1.0


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *(
            (" apple, fig, mill, pear", 4),
            ("apple,fig,mill,pear.", 4),
            (" apple , fig, mill, pear\n", 4),
        ),
        *(
            (" apple, fig, mill", 3),
            (" apple, fig, mill, pear, pear", 3),
            (" apple, fig, mill, fig", 3),
        ),
        *((" apple, fig, pear, mill", 2), (" apple, fig", 2), (" apple", 1), (" apple, apple", 1)),
        *((" fig, apple, mill, pear", 0), (" pear, mill, fig, apple", 0), (" Apple, fig", 0)),
        *((" pear, fig, mill, apple", 0), (" apple fig mill pear", 0), (" apples, fig", 0)),
        *(("", 0), (",", 0), (",,,,", 0), ("\ud800", 0), ("apple" * 20_000, 0)),
        # Each word too many takes one away.
        *((" apple, fig, mill, pear, and more", 2), (" apple, fig, mill, pear more", 2)),
        *((" apple, fig, mill, pear\n" * 2, 0), (" apple, fig, mill, pear" * 30, 0)),
        *((" apple" * 3, 0), ("apple, " * 8, 0), ("," * 100_000, 0)),
    ],
)
def test_scores_by_hand(answer, right):
    assert TASK.score_text(INSTANCE, answer) == (right / 4) ** 2


def test_the_last_one_needs_an_end():
    assert TASK.score_text(INSTANCE, " apple, fig, mill, pear", ended=False) == (3 / 4) ** 2
    assert TASK.score_text(INSTANCE, " apple, fig", ended=False) == (2 / 4) ** 2


@pytest.mark.parametrize("level", LEVELS)
def test_instances_are_as_the_level_says(level):
    task, instances = draws(level, 300)
    for instance in instances:
        assert task.from_prompt(instance.prompt) == instance
        order, _, rest = instance.prompt.partition(": ")
        items = rest.removesuffix(" ->").split(", ")
        assert len(items) == (4, 6, 6, 8)[level - 1]
        numbers = items[0].lstrip("-").isdigit()
        assert len(set(items)) == len(items) - (numbers and level == 4)
        assert order == "Sort" or (order == "Sort down" and level > 2)
        # Each is no further than the next.
        wanted = instance.target.split(", ")
        assert sorted(wanted) == sorted(items)
        keys = list(map(int, wanted)) if numbers else wanted
        pairs = list(itertools.pairwise(keys))
        assert all(a >= b if order == "Sort down" else a <= b for a, b in pairs)
    directions = {i.prompt.partition(":")[0] for i in instances}
    assert len(directions) == (2 if level > 2 else 1)
    assert len({i.prompt for i in instances}) == 300


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
    "prompt",
    ["", "Sort:", "Sort: a b ->", "Sort: Pear, fig ->", "Sort: 1, fig ->", "Sort up: 1, 2 ->"],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="not a sorting prompt"):
        TASK.from_prompt(prompt)
