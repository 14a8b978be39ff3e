"""Dataset: rows from anywhere, any metric, and splits."""

import json

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.metrics import METRICS
from textgym.seeding import split_of
from textgym.tasks.dataset import DEFAULT_ROWS, DatasetTask

MANY = [{"prompt": f"{i} + 1 =", "target": str(i + 1)} for i in range(100)]
FEW = [{"prompt": "a", "target": "b"}]


def drawn(task, split, count=2000):
    rng = np.random.default_rng(0)
    return {task.draw(rng, split).prompt for _ in range(count)}


def score(task, text, instance=None, reason="stop"):
    instance = instance or task.draw(np.random.default_rng(0), "train")
    return task.score(
        Episode(
            instance=instance,
            input_ids=np.zeros(1, np.int64),
            completion_mask=np.zeros(1, np.bool_),
            completion_text=text,
            turns=(Turn("agent", text),),
            finish_reason=reason,
        )
    )


def test_the_defaults_are_questions_with_an_answer_of_their_own():
    task = DatasetTask()
    prompts = drawn(task, "train") | drawn(task, "test")
    assert prompts == {row["prompt"] for row in DEFAULT_ROWS}
    assert len(prompts) == len(DEFAULT_ROWS) >= 24
    assert not drawn(task, "train") & drawn(task, "test")
    instance = task.from_prompt("Question: What do you call a young cat?\nAnswer:")
    assert (instance.target, task.solve(instance)) == ("a kitten", " a kitten")
    assert score(task, " A kitten.\n", instance) == 1.0
    assert score(task, " a small kitten", instance) == pytest.approx(2 / 3)
    assert score(task, " a puppy", instance) == 0.0


def test_many_prompts_are_split_by_hash_and_few_are_shared():
    task = DatasetTask(MANY)
    train, test = drawn(task, "train"), drawn(task, "test")
    assert train | test == {row["prompt"] for row in MANY}
    assert not train & test
    assert all(split_of(prompt) == "test" for prompt in test)
    task = DatasetTask(MANY[:15])
    assert drawn(task, "train") == drawn(task, "test")


def test_a_test_set_of_ones_own():
    task = DatasetTask(MANY, test_dataset=FEW)
    assert drawn(task, "train") == {row["prompt"] for row in MANY}
    assert drawn(task, "test") == {"a"}
    assert task.from_prompt("a").target == "b"
    with pytest.raises(ValueError, match=r"1 prompts of `test_dataset`.*'3 \+ 1 ='.*Take them out"):
        DatasetTask(MANY, test_dataset=[MANY[3], *FEW])


def test_the_closest_of_several_targets_counts():
    rows = [{"prompt": "capital?", "target": t} for t in ("Bern", "the city of Bern", "Bern")]
    task = DatasetTask(rows, metric="exact_match")
    instance = task.from_prompt("capital?")
    assert instance == Instance("capital?", "Bern", {"targets": ("Bern", "the city of Bern")})
    assert [score(task, text, instance) for text in (" Bern", "the city of Bern ", "Basel")] == [
        1.0,
        1.0,
        0.0,
    ]
    assert score(task, "Basel", Instance("capital?", "Basel")) == 1.0


def test_files_columns_and_template(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"q": f"{{{i}}}", "a": f"{i}."}) for i in range(20)))
    task = DatasetTask(
        path, prompt_column="q", target_column="a", template="Q: {prompt}\n", metric="chrf"
    )
    instance = task.from_prompt("Q: {7}\n")
    assert task.solve(instance) == "7."
    assert score(task, "7.", instance) == 1.0
    with pytest.raises(ValueError, match="no row of the dataset has the prompt"):
        task.from_prompt("{7}")
    with pytest.raises(ValueError, match=r"line 1: no column 'prompt', only q, a.*prompt_column="):
        DatasetTask(path)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_by_name(name):
    task = DatasetTask([{"prompt": "p", "target": "a red fox ran"}], metric=name)
    # METEOR's penalty for chunks is never quite 0: 0.5 (1 / 4)^3 of four words in one chunk.
    assert score(task, " a red fox ran") == (1 - 1 / 128 if name == "meteor" else 1.0)
    assert 0.0 <= score(task, "\ud800" * 1000) < 0.1


def test_metrics_of_ones_own():
    task = DatasetTask(FEW, metric=lambda text, target: text.count(target) / 10)
    assert score(task, "bbb") == 0.3
    for wrong in (2.0, -0.1, float("nan")):
        task = DatasetTask(FEW, metric=lambda text, target, wrong=wrong: wrong)
        with pytest.raises(ValueError, match=r"must give a number in \[0, 1\].*'x'.*'b'"):
            score(task, " x ")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"metric": "rogue1"}, TypeError, "unknown metric `rogue1`; did you mean `rouge1`"),
        ({"metric": 3}, TypeError, "`metric` must be a name or a function"),
        ({"template": "Q:"}, ValueError, r"`template` must hold \{prompt\}"),
        ({"dataset": []}, ValueError, "`dataset`: no rows"),
        ({"test_dataset": []}, ValueError, "`test_dataset`: no rows"),
        ({"dataset": [{"prompt": "a", "target": 2}]}, ValueError, "row 1: 'target' must be a non"),
        ({"dataset": [{"prompt": " ", "target": "a"}]}, ValueError, "row 1: 'prompt' must be a"),
        ({"dataset": "none.csv"}, FileNotFoundError, r"none\.csv"),
    ],
)
def test_bad_arguments_are_named(arguments, error, match):
    with pytest.raises(error, match=match):
        DatasetTask(**arguments)


def test_an_instance_without_a_target_cannot_be_scored():
    with pytest.raises(ValueError, match="has no target"):
        score(DatasetTask(), "x", Instance("of my own"))
