"""The pages of docs/envs are those that docs/generate.py makes of the registry today."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from textgym.registration import REGISTRY, EnvRow
from textgym.tasks.base import Task

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "generate.py"
PAGES = ROOT / "docs" / "envs"


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date():
    """Where this fails: `make docs`."""
    # Another hash seed than that of the run which wrote them: no order may depend on it.
    settings = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"],
        capture_output=True,
        text=True,
        check=False,
        env=settings,
    )
    assert done.returncode == 0, done.stderr


def test_every_environment_is_in_the_gallery():
    gallery = (PAGES / "README.md").read_text(encoding="utf-8")
    for row in REGISTRY.values():
        assert row.bridged or f"## [{row.id}](" in gallery


def test_links_lead_somewhere():
    for page in PAGES.glob("*.md"):
        outside_code = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
        for link in re.findall(r"\]\(([^)#]+)\)", outside_code):
            assert (page.parent / link).exists(), (page.name, link)


def test_check_tells_pages_that_are_missing_stale_or_left_over(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    for name, text in (
        ("Same.md", "a\n"),
        ("Stale.md", "old\n"),
        ("Gone.md", f"# Gone\n\n{generate.GENERATED}\n"),
        ("by-hand.md", "someone's own\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    wanted = {"Same.md": "a\n", "Stale.md": "new\n", "New.md": "n\n"}
    names = generate.stale(wanted)
    assert names == ["Gone.md", "New.md", "Stale.md"]
    generate.write(wanted, names)
    assert generate.stale(wanted) == []
    found = {f.name for f in tmp_path.iterdir()}
    assert found == {"Same.md", "Stale.md", "New.md", "by-hand.md"}


class QuotingTask(Task):
    """Do <this>, `not <that>`.

    ## Description
    > Add:
    > - one
    > + two

    ## Arguments
    Args:
        size: how large; one of
            a few.
        other_size: the same.

    Example:
        >>> 1 + 1
        2
    """


def test_docstrings_become_markdown(generate):
    summary, sections = generate.parse_docstring(QuotingTask)
    assert summary == "Do &lt;this>, `not <that>`."
    assert sections == {
        "Description": "> Add:\\\n> \\- one\\\n> \\+ two",
        "Arguments": "- `size`: how large; one of\n  a few.\n- `other_size`: the same.",
        "Example": "```pycon\n>>> 1 + 1\n2\n```",
    }


def test_texts_are_shown_as_they_are(generate):
    assert generate.code("a\nb `c`") == "```text\na\nb `c`\n```"
    assert generate.code("```\n") == "````text\n```\n````"
    assert generate.code("a\x00\u202eb\t") == "```text\na\\x00\\u202eb\\t\n```"
    assert generate.escape("a_b|c*<d>") == "a\\_b\\|c\\*\\<d\\>"
    assert generate.table(["a|b"], [["c\\|d"]]) == "| a\\|b |\n| --- |\n| c\\|d |"


def test_a_bridge_has_one_page_for_all_its_ids(generate, monkeypatch):
    tasks = {name: type(name, (QuotingTask,), {"__doc__": None}) for name in ("sum_up", "b")}
    monkeypatch.setitem(sys.modules, "some_bridge", SimpleNamespace(**tasks))
    rows = {
        f"textgym/Quoting-{name}-v0": EnvRow(
            f"textgym/Quoting-{name}-v0",
            f"some_bridge:{name}",
            "Do a_thing.",
            extra="quoting",
            bridged=True,
        )
        for name in tasks
    }
    monkeypatch.setattr(generate, "REGISTRY", {**rows})
    pages = generate.pages()
    assert sorted(pages) == ["Quoting.md", "README.md"]
    assert "# Quoting\n" in pages["Quoting.md"]
    assert 'Needs `pip install "textgym[quoting]"`.' in pages["Quoting.md"]
    assert "| `textgym/Quoting-sum_up-v0` | Do a\\_thing. |  |  |" in pages["Quoting.md"]
    assert "| [Quoting](Quoting.md) | 2 |" in pages["README.md"]
