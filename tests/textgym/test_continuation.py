"""Continuation: prompts from lists, files and datasets, and their splits."""

import json
import sys

import numpy as np
import pytest

from textgym.seeding import split_of
from textgym.tasks.continuation import DEFAULT_PROMPTS, ContinuationTask

MANY = [f"Chapter {i}." for i in range(200)]


class Dataset:
    """As much of a Hugging Face dataset as is read."""

    def __init__(self, **columns):
        self._columns = columns
        self.column_names = list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def drawn(task, split, count=400):
    rng = np.random.default_rng(0)
    return {task.draw(rng, split).prompt for _ in range(count)}


def test_many_prompts_are_split_by_hash():
    task = ContinuationTask(MANY)
    train, test = drawn(task, "train", 3000), drawn(task, "test", 3000)
    assert train | test == set(MANY)
    assert not train & test
    assert all(split_of(p) == "test" for p in test)


def test_few_prompts_are_shared():
    task = ContinuationTask(["a b", "c d"])
    assert drawn(task, "train") == drawn(task, "test") == {"a b", "c d"}
    assert drawn(ContinuationTask(), "train") == set(DEFAULT_PROMPTS)


def test_test_prompts_of_ones_own():
    task = ContinuationTask(MANY, test_prompts=["x", "y"])
    assert drawn(task, "test") == {"x", "y"}
    assert drawn(task, "train", 3000) == set(MANY)
    with pytest.raises(ValueError, match="Chapter 3"):
        ContinuationTask(MANY, test_prompts=["Chapter 3."])


def test_files(tmp_path):
    text = tmp_path / "prompts.txt"
    text.write_text("One\n\n  Two\nOne\nDrei ü\n", encoding="utf-8")
    assert drawn(ContinuationTask(text), "train") == {"One", "  Two", "Drei ü"}
    assert drawn(ContinuationTask(str(text)), "train") == {"One", "  Two", "Drei ü"}
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("\n".join(json.dumps({"prompt": p, "text": p.upper()}) for p in ("a", "b")))
    assert drawn(ContinuationTask(lines), "train") == {"a", "b"}
    assert drawn(ContinuationTask(lines, column="text"), "train") == {"A", "B"}
    with pytest.raises(ValueError, match=r"line 1.*'title'.*column="):
        ContinuationTask(lines, column="title")
    lines.write_text('{"prompt": "a"}\n{"prompt"')
    with pytest.raises(ValueError, match="line 2: not JSON"):
        ContinuationTask(lines)
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        ContinuationTask(tmp_path / "missing.txt")


def test_datasets():
    data = Dataset(prompt=["a", "b", "a"], other=["c", "d", "e"])
    assert drawn(ContinuationTask(data), "train") == {"a", "b"}
    assert drawn(ContinuationTask(data, column="other"), "test") == {"c", "d", "e"}
    with pytest.raises(ValueError, match="prompt, other"):
        ContinuationTask(data, column="text")
    parts = Dataset()
    parts.column_names = {"train": ["prompt"], "test": ["prompt"]}
    with pytest.raises(TypeError, match='dataset\\["train"\\]'):
        ContinuationTask(parts)


def test_a_hub_id_needs_the_datasets_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        ContinuationTask("owner/stories")


def test_a_hub_id_reads_the_train_part(monkeypatch):
    module = type(sys)("datasets")
    module.load_dataset = lambda name, split: Dataset(prompt=[f"{name} {split}"])
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert drawn(ContinuationTask("owner/stories"), "train") == {"owner/stories train"}


@pytest.mark.parametrize(
    ("prompts", "error", "match"),
    [
        ("Once upon a time", ValueError, r"\['Once upon a time'\]"),
        ("", ValueError, "list of str"),
        ([], ValueError, "no prompt"),
        (["", " "], ValueError, "no prompt"),
        (["a", 3], TypeError, "3"),
        (7, TypeError, "int"),
    ],
)
def test_bad_prompts_are_named(prompts, error, match):
    with pytest.raises(error, match=match):
        ContinuationTask(prompts)
