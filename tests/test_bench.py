"""`make bench` puts what was measured onto its page."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
ABOUT = {
    "date": "2026-01-02",
    "cpu": "a processor",
    "cores": 2,
    "threads": 1,
    "clock": "processor",
    "repeats": 5,
    "load_average": 1.0,
    "versions": {"python": "3.11.7"},
}


@pytest.fixture(scope="module")
def speed():
    """The modules of benchmarks/speed that need no more than the standard library."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield {name: importlib.import_module(name) for name in ("speed.goals", "speed.page")}
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in [n for n in sys.modules if n == "speed" or n.startswith("speed.")]:
            del sys.modules[name]


@pytest.fixture
def results():
    figures = {
        "rollout_over_generate_32": 2.25,
        "rollout_tokens_per_s_32": 51234.0,
        "update_over_bare_2048": 0.5,
        "update_over_padded_2048": 1.25,
        "padding_2048": 0.071,
        "padding_of_one_forward_2048": 0.33,
        "update_tokens_per_s_2048": 20000.0,
        "env_tokens_per_s": 2.5e6,
        "env_scored_tokens_per_s": 9e5,
        "single_env_steps_per_s": 7e4,
        **{f"env_step_us_{context}": 45.0 for context in (64, 256, 1024, 4096)},
        "env_step_us_narrow": 28.0,
        "import_textgym_s": 0.08,
        "textgym_list_s": 0.2,
    }
    stages = {
        "seconds": 1.0,
        "tokens": 10_000,
        "rows": 64,
        "parts": {"environment": {"seconds": 1.0, "share": 1.0, "us_per_token": 100.0}},
    }
    sweep = {"points": [[64, 10.0], [128, 20.0]], "exponent": 1.0, "last_exponent": 0.97}
    return {
        "throughput": figures
        | {"about": ABOUT, "skipped": {"gpt2": "too large"}, "stages": {"bundled": stages}},
        "growth": {"sweeps": {"context": sweep}, "about": ABOUT},
    }


def test_the_page_has_every_section_and_keeps_its_words(speed, results):
    page = PAGE.read_text(encoding="utf-8")
    sections = speed["speed.page"].sections(results)
    written = speed["speed.page"].rewrite(page, sections)
    for text in ("| stories260k | 32 rows | 2.25 | 51,230 |", "| context | 1.00 | 0.97 |"):
        assert text in written
    assert "a processor, 2 cores, 1 torch thread" in written
    assert "Left out: gpt2 (too large)" in written
    assert "100.0 (100%)" in written
    assert "there is no `benchmarks/results/masks.json`" in written
    assert "`benchmarks/results/throughput.json` has no" in written  # no rounds
    # Again changes nothing, and other results replace these.
    assert speed["speed.page"].rewrite(written, sections) == written
    results["throughput"]["rollout_over_generate_32"] = 1.11
    again = speed["speed.page"].rewrite(written, speed["speed.page"].sections(results))
    assert "32 rows | 1.11 |" in again
    assert "2.25" not in again
    outside = "Every ratio is taken in one process"
    assert page.count(outside) == again.count(outside) == 1


def test_goals_say_what_is_reached_and_why_not(speed, results):
    table = speed["speed.goals"].goals_table(results)
    lines = {line.split(" | ")[1]: line for line in table.splitlines() if line.startswith("| ")}
    assert lines["stories260k, 32 rows"].endswith("| 2.25 | yes |")
    assert lines["stories260k, 2,048 tokens"].endswith("| 0.50 | **no** |")
    assert lines["share of padding at 2,048 tokens"].endswith("| 0.07 | yes |")
    assert lines["bundled, 4,096 tokens"].endswith("| not measured | - |")
    missed = [line for line in table.splitlines() if line.startswith("- ")]
    assert len(missed) == 1
    assert missed[0].startswith("- Update over bare, stories260k, 2,048 tokens: ")


def test_markers_and_sections_must_match(speed):
    rewrite = speed["speed.page"].rewrite
    page = "a\n<!-- begin: one -->\nold\n<!-- end: one -->\nb\n"
    assert rewrite(page, {"one": "new\\1"}) == page.replace("old", "new\\1")
    for text, sections in ((page, {}), (page, {"one": "", "two": ""}), ("a", {"one": ""})):
        with pytest.raises(ValueError, match="needs a pair"):
            rewrite(text, sections)
    with pytest.raises(ValueError, match="does not end"):
        rewrite("<!-- begin: one -->\n", {"one": ""})


def test_pictures_are_the_same_bytes_for_the_same_figures(speed, results, tmp_path):
    pytest.importorskip("matplotlib", reason='pictures need `pip install -e ".[docs]"`')
    plots = importlib.import_module("speed.plots")
    for name, draw, figures in (
        ("growth", plots.growth_picture, results["growth"]),
        ("stages", plots.stages_picture, results["throughput"]["stages"]),
    ):
        first, second = (tmp_path / f"{name}{i}.svg" for i in range(2))
        draw(figures, first)
        draw(figures, second)
        assert first.read_bytes() == second.read_bytes()
        assert b"<svg" in first.read_bytes()
