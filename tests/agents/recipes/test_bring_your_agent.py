"""The recipe's agent beats random tokens, and what fails is told."""

from __future__ import annotations

from pathlib import Path


def test_it_learns_the_lock(scores):
    own, random = scores("bring_your_agent")
    assert own > 0.3 > 0.1 > random


def test_its_agent_has_less_than_thirty_lines(load_recipe):
    source = Path(load_recipe("bring_your_agent").__file__).read_text()
    agent = source.split("# -----")[1].splitlines()[1:]
    assert 10 < sum(bool(line.strip()) and '"""' not in line for line in agent) < 30


def test_a_failure_is_told(load_recipe, monkeypatch, capsys):
    recipe = load_recipe("bring_your_agent")
    failed = {"status": "crashed", "error": "ValueError: oh"}
    monkeypatch.setattr(recipe, "run_cell", lambda *arguments: failed)
    assert recipe.main(["--tokens", "10"]) == 1
    assert capsys.readouterr().err == "ValueError: oh\n"
