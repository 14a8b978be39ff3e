"""`textgym train --profile` and `--scoring-workers`: the same run, and where its time went."""

from __future__ import annotations

import json

import pytest
import torch

from textgym_agents.cli import profiling
from textgym_agents.cli.entry import run
from textgym_agents.lm.slot_cache import SlotCache
from textgym_agents.stopwatch import Stopwatch

pytestmark = pytest.mark.usefixtures("one_thread")

REWARDS = """
import os, time
calls = 0

def happy(episodes):
    return [episode.completion_text.split().count("happy") / 8 for episode in episodes]

happy.thread_safe = True

def fail(episodes):
    global calls
    calls += 1
    if calls < 6 or os.environ["HOW"] == "never":
        return happy(episodes)
    if os.environ["HOW"] == "raises":
        raise ZeroDivisionError("nothing to divide")
    if os.environ["HOW"] == "hangs":
        time.sleep(30)
    return [float("nan")] * len(episodes)
"""


@pytest.fixture(autouse=True)
def short_rollouts(monkeypatch):
    """Rollouts of one text a row, so that a short run has several updates."""
    from textgym_agents.cli import building

    algorithm, defaults = building._ALGORITHMS["ppo"]

    def short(envs, **keywords):
        return defaults(envs, **keywords) | {"n_steps": 8, "batch_size": 64}

    monkeypatch.setitem(building._ALGORITHMS, "ppo", (algorithm, short))


@pytest.fixture
def train(model, tmp_path):
    """`train(name, *options, reward=...)` into a folder of that name; the exit code."""
    file = tmp_path / "my_rewards.py"
    file.write_text(REWARDS)

    def run_train(name, *options, reward="happy"):
        return run(
            [
                *("train", "textgym/Continuation-v0", "--out", str(tmp_path / name)),
                *("--model", str(model), "--prompt", "once upon a time", "--max-new-tokens", "8"),
                *("--n-envs", "16", "--learning-rate", "0.01", "--eval-episodes", "8"),
                *("--timesteps", "512", "--threads", "1", "--checkpoint-every", "1"),
                *("--reward", f"python:{file}:{reward}", *options),
            ]
        )

    return run_train


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def weights_of(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


# ---------------------------------------------------------------------------- --profile
def test_profile_shows_where_the_time_went_and_changes_nothing(train, tmp_path, capsys):
    body, backward = SlotCache._body, torch.Tensor.backward
    assert train("plain") == 0
    assert "profile" not in record_of(tmp_path / "plain")
    assert "Where the time went" not in capsys.readouterr().out
    assert train("timed", "--profile") == 0
    shown = capsys.readouterr().out
    profile = record_of(tmp_path / "timed")["profile"]
    parts = profile["parts"]
    assert list(parts) == [
        *("generation: model forward", "generation: head and sampling", "generation: slot cache"),
        *("environment", "text decoding", "reward: happy", "rollout buffer"),
        *("reference KL", "advantages", "update: forward", "update: backward"),
        *("update: optimizer", "update: rest", "evaluation", "checkpoints", "other"),
    ]
    assert profile["tokens"] == 512
    assert all(part["seconds"] > 0 for part in parts.values())
    total = sum(part["seconds"] for part in parts.values())
    assert total == pytest.approx(profile["seconds"], abs=1e-4)
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1, abs=1e-4)
    for name, part in parts.items():
        assert name in shown
        assert part["us_per_token"] == pytest.approx(part["seconds"] * 1e6 / 512, abs=1e-2)
    assert weights_of(tmp_path / "plain") == weights_of(tmp_path / "timed")
    assert SlotCache._body is body
    assert torch.Tensor.backward is backward


def test_profile_of_a_run_that_fails_and_of_what_is_left(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOW", "raises")
    assert train("failed", "--profile", reward="fail") == 1
    assert record_of(tmp_path / "failed")["profile"]["parts"]["reward: fail"]["seconds"] > 0
    monkeypatch.setenv("HOW", "never")
    assert train("failed", "--profile", "--resume", reward="fail") == 0
    assert 0 < record_of(tmp_path / "failed")["profile"]["tokens"] < 512


def test_profile_with_waiting(train, tmp_path):
    assert train("waiting", "--profile", "--scoring-workers", "2") == 0
    assert record_of(tmp_path / "waiting")["profile"]["parts"]["waiting for scores"]["seconds"] > 0


def test_profile_is_of_one_engine(train, capsys):
    assert train("cluster", "--profile", "--engine", "rllib") == 2
    assert "--profile is for --engine sb3" in capsys.readouterr().err


def test_the_table_adds_up():
    watch = Stopwatch()
    watch.seconds |= {"other": 1.0, "reward: b": 0.5, profiling.MODEL: 2.5}
    profile = profiling.to_json(watch, 1000)
    assert list(profile["parts"]) == [profiling.MODEL, "reward: b", "other"]
    assert profile["parts"]["reward: b"] == {"seconds": 0.5, "share": 0.125, "us_per_token": 500.0}
    columns = [list(column.cells) for column in profiling.table(profile).columns]
    assert [column[-1] for column in columns] == ["all", "4.00", "100.0%", "4000.0"]
    nothing = profiling.table(profiling.to_json(watch, 0))
    assert list(nothing.columns[-1].cells) == ["-"] * 4


# ---------------------------------------------------------------------------- --scoring-workers
def test_workers_change_nothing_but_the_time(train, tmp_path):
    assert train("sync") == 0
    assert train("async", "--scoring-workers", "3") == 0
    one, other = record_of(tmp_path / "sync"), record_of(tmp_path / "async")
    assert other["options"]["scoring_workers"] == 3
    assert weights_of(tmp_path / "sync") == weights_of(tmp_path / "async")
    assert one["rewards_after"] == other["rewards_after"]


@pytest.mark.parametrize("how", ["raises", "hangs", "nan"])
def test_what_goes_wrong_is_told_in_the_same_line(train, how, monkeypatch, capsys):
    monkeypatch.setenv("HOW", how)
    limit = ("--reward-timeout", "0.3")
    assert train("sync", *limit, reward="fail") == 1
    said = capsys.readouterr().err
    assert "reward `fail` failed for the completion" in said
    assert train("async", *limit, "--scoring-workers", "2", reward="fail") == 1
    assert capsys.readouterr().err == said


def test_a_run_that_failed_goes_on_as_if_it_had_not(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOW", "never")
    assert train("whole", reward="fail") == 0
    monkeypatch.setenv("HOW", "raises")
    assert train("parts", "--scoring-workers", "2", reward="fail") == 1
    assert 0 < record_of(tmp_path / "parts")["timesteps"] < 512
    monkeypatch.setenv("HOW", "never")
    assert train("parts", "--resume", "--scoring-workers", "3", reward="fail") == 0
    assert weights_of(tmp_path / "whole") == weights_of(tmp_path / "parts")


def test_workers_are_of_one_engine(train, capsys):
    assert train("cluster", "--scoring-workers", "2", "--engine", "rllib") == 2
    assert "--scoring-workers is for --engine sb3" in capsys.readouterr().err
