"""Agents by name and by import, and that each of those named acts on a tiny budget."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

from textgym.suites import SuiteTask
from textgym_agents.bench import decoders
from textgym_agents.bench.agents import AGENTS, find_agent, is_import, make_agent, needs_torch
from textgym_agents.bench.cell import run_cell
from textgym_agents.bench.models import FallingRate

LOCK = {"vocab_size": 5, "keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1}
TINY = SuiteTask("lock", "textgym/TokenLock-v0", LOCK, tokens=64, episodes=20, num_envs=16)
# The bundled model, in a task of few tokens.
TALK = SuiteTask("talk", "textgym/Arithmetic-v0", {}, tokens=16, episodes=4, num_envs=8)
WITH_BUNDLED = ("beam", "best-of-n", "a2c", "grpo", "dqn-topk")


class Silent:
    def predict(self, observation):
        return np.zeros(len(observation["remaining"]), np.int64)


# ---------------------------------------------------------------- every one of them
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_acts_on_a_lock(agent):
    if agent in ("trpo", "maskable-ppo", "recurrent-ppo"):
        pytest.importorskip("sb3_contrib")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = run_cell(TINY, agent, 0)
    assert (record["status"], record["error"]) == ("ok", None)
    assert len(record["returns"]) == 20
    assert all(0.0 <= total <= 1.0 for total in record["returns"])
    learns = not AGENTS[agent].make.split(":")[0].endswith(("anchors", "decoders"))
    assert (record["tokens"] >= 64) == learns
    assert bool(record["curve"]) == learns
    (picture, *_) = record["pictures"]
    lengths = {len(row) for name, row in picture.items() if row and name != "prompt"}
    assert lengths == {len(picture["tokens"])}


@pytest.mark.parametrize("agent", WITH_BUNDLED)
def test_agents_begin_with_the_bundled_model(agent):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = run_cell(TALK, agent, 0)
    assert (record["status"], record["error"]) == ("ok", None)
    if agent in ("a2c", "grpo"):
        picture = record["pictures"][0]
        assert picture["ref_log_probs"] == pytest.approx(picture["log_probs"], abs=1.0)
        assert (picture["values"] is None) == (agent == "grpo")


@pytest.mark.parametrize(
    ("agent", "search"), [("beam", "beam_search"), ("best-of-n", "best_texts")]
)
def test_what_a_search_found_is_written_whole(agent, search, monkeypatch):
    found, function = [], getattr(decoders, search)

    def noted(*args, **keywords):
        texts = function(*args, **keywords)
        found.extend(texts if isinstance(texts, list) else [texts])
        return texts

    monkeypatch.setattr(decoders, search, noted)
    record = run_cell(TALK, agent, 0)
    assert len(found) == len(record["returns"]) == 4
    assert any(len(text.tokens) > 2 for text in found)
    assert record["returns"] == pytest.approx([text.total_reward for text in found])
    ends = [text["completion"] for text in record["samples"] if text["stage"] == "end"]
    assert ends == [text.episode.completion_text for text in found][: len(ends)]


def test_maskable_ppo_writes_no_empty_text():
    pytest.importorskip("sb3_contrib")
    record = run_cell(TINY, "maskable-ppo", 0)
    assert all(text["completion"] for text in record["samples"])
    assert not all(text["completion"] for text in run_cell(TINY, "ppo", 0)["samples"])


def test_names_need_nothing_heavy():
    code = (
        "import sys; from textgym_agents.bench.agents import AGENTS, find_agent\n"
        "find_agent('oracle'), find_agent('random')\n"
        "sys.exit('torch' in sys.modules or 'stable_baselines3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- looking them up
def test_names_and_imports(tmp_path, monkeypatch):
    (tmp_path / "mine_to_try.py").write_text("def make(envs, budget):\n    return 7\nother = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_agent("mine_to_try:make")(None, 0) == 7
    assert find_agent(f"{tmp_path / 'mine_to_try.py'}:make")(None, 0) == 7
    assert is_import("mine_to_try:make")
    assert not is_import("ppo")
    assert needs_torch("mine_to_try:make")
    assert not needs_torch("oracle")
    with pytest.raises(TypeError, match="did you mean `grpo`"):
        find_agent("grop")
    with pytest.raises(ImportError, match="has no `mak`; did you mean `make`"):
        find_agent("mine_to_try:mak")
    with pytest.raises(TypeError, match="is no function, but a int"):
        find_agent("mine_to_try:other")
    with pytest.raises(ImportError, match="no such file"):
        find_agent("nowhere.py:make")
    with pytest.raises(ImportError, match="nowhere"):
        find_agent("nowhere:make")


def test_functions_are_given_what_they_take():
    def two(envs, budget):
        seen.append((envs, budget))
        return Silent()

    def three(envs, budget, seed):
        seen.append((envs, budget, seed))
        return Silent()

    def named(envs, budget, *, seed=3):
        seen.append((envs, budget, seed))
        return Silent()

    def starred(*given):
        seen.append(given)
        return Silent()

    def alone(envs):
        return Silent()

    def greedy(envs, budget, seed, more):
        return Silent()

    seen = []
    for make in (two, three, named, starred):
        make_agent(make, "envs", 9, 5)
    assert seen == [("envs", 9), *[("envs", 9, 5)] * 3]
    for make in (alone, greedy):
        with pytest.raises(TypeError, match=r"must take \(envs, budget, seed\)"):
            make_agent(make, "envs", 9, 5)
    with pytest.raises(TypeError, match="must return something with `predict`, got NoneType"):
        make_agent(lambda envs, budget: None, "envs", 9, 5)


def test_the_rate_of_a_random_model_stays_then_falls_to_zero():
    rate = FallingRate(0.02, falling=0.5)
    remaining = [1.0, 0.75, 0.5, 0.25, 0.0]  # of training, as SB3 tells it
    assert [rate(left) for left in remaining] == pytest.approx([0.02, 0.02, 0.02, 0.01, 0.0])
