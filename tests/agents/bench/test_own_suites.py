"""Suites of one's own, in the forms that docs/benchmarks.md shows."""

import json
import re
from pathlib import Path

import pytest

from textgym.suites import Suite, SuiteTask, find_suite
from textgym_agents.bench.own_suites import load_suite

GUIDE = Path(__file__).parents[3] / "docs" / "benchmarks.md"


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_as_in_the_guide(in_folder):
    text = re.search(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]
    (in_folder / "mine.json").write_text(text, encoding="utf-8")
    task = SuiteTask("story", "textgym/Story-v0", {}, 40_000)
    assert load_suite("mine.json") == Suite("mine", "Stories.", (task,), (0, 1, 2))


def test_what_is_known_is_the_same_from_a_file(in_folder):
    known = find_suite("exact")
    record = {"name": "own", "description": "", "tasks": [task.to_json() for task in known.tasks]}
    (in_folder / "own.json").write_text(json.dumps(record))
    assert load_suite("own.json").hash == known.hash == load_suite("exact").hash


def test_a_module_as_in_the_guide(in_folder):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = [block for block in blocks if "SUITE = " in block]
    (in_folder / "suites_of_the_guide.py").write_text(text, encoding="utf-8")
    suite = load_suite("suites_of_the_guide:SUITE")
    assert [task.name for task in suite.tasks] == ["story", "sums"]
    with pytest.raises(ImportError, match="has no `SUIT`; did you mean `SUITE`"):
        load_suite("suites_of_the_guide:SUIT")
    with pytest.raises(TypeError, match=r"must be a `textgym.suites.Suite`, got type"):
        load_suite("suites_of_the_guide:SuiteTask")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("{", ValueError, "own.json is not JSON"),
        ("[]", ValueError, "must be a JSON object with name, description, tasks, got list"),
        ('{"name": "a"}', ValueError, "with name, description, tasks, got name"),
        (
            '{"name": "a", "description": "", "tasks": [], "sedes": [0]}',
            TypeError,
            "unknown field `sedes`; did you mean `seeds`",
        ),
        (
            '{"name": "a", "description": "", "tasks": [{"name": "b", "env_id": "textgym/Stry"}]}',
            TypeError,
            "did you mean `textgym/Story-v0`",
        ),
        ('{"name": "a", "description": "", "tasks": []}', ValueError, "at least one"),
    ],
)
def test_what_is_wrong_is_said(in_folder, text, error, said):
    (in_folder / "own.json").write_text(text)
    with pytest.raises(error, match=re.escape(said)):
        load_suite("own.json")
    with pytest.raises(FileNotFoundError):
        load_suite("nowhere.json")
