"""`textgym train --engine rllib`: a run, resumed with other numbers of processes, and refusals."""

import json
import os

import pytest
from transformers import AutoModelForCausalLM

from textgym_agents.cli.entry import run

from .conftest import ENV
from .test_training import scalars

RUN = ("train", ENV, "--engine", "rllib", "--max-new-tokens", "12", "--n-envs", "8")


def record_of(folder):
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def fake_evaluation(self, stage):
    self.folder.update({f"reward_{stage}": 0.0})


@pytest.fixture
def no_evaluation(monkeypatch):
    monkeypatch.setattr("textgym_agents.cli.training.TrainingRun._evaluate", fake_evaluation)


def test_a_run_and_its_resumption_with_other_processes(tmp_path, capsys):
    folder = tmp_path / "run"
    more = ("--eval-episodes", "8", "--out", str(folder))
    reward = ("--reward", "length:30", "--reward-timeout", "20")
    assert run([*RUN, "--runners", "0", "--timesteps", "2100", *reward, *more]) == 0
    first = record_of(folder)
    assert (first["status"], first["options"]["engine"]) == ("finished", "rllib")
    assert first["timesteps"] >= 2100
    assert {"reward_before", "reward_after", "kl_per_token", "tokens_per_s", "threads"} <= set(
        first
    )
    assert first["versions"]["ray"]
    AutoModelForCausalLM.from_pretrained(folder / "model")
    assert {"before", "after"} == {
        json.loads(line)["stage"] for line in (folder / "samples.jsonl").open(encoding="utf-8")
    }
    logged = scalars(folder / "tensorboard")
    assert {"rollout/ep_rew_mean", "kl/per_token", "train/approx_kl", "time/fps"} <= set(logged)
    assert [e.step for e in logged["heldout/reward"]] == [0, first["timesteps"]]

    args = ["train", ENV, "--runners", "1", "--timesteps", "4200", "--resume", *more]
    assert run(args) == 0
    second = record_of(folder)
    assert second["timesteps"] >= 4200
    assert second["reward_before"] == first["reward_before"]
    assert second["kl_per_token"] > 0
    assert "Continuing" in capsys.readouterr().out


def test_a_reward_that_raises_is_one_line(tmp_path, no_evaluation, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def bad(episodes):\n    return [float('nan')] * len(episodes)\n")
    out = str(tmp_path / "run")
    assert run([*RUN, "--runners", "1", "--reward", f"python:{file}:bad", "--out", out]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("textgym: error: reward `bad`")
    assert "--resume" in line
    assert record_of(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize(
    "options",
    [
        ("--algo", "a2c"),
        ("--lora", "4"),
        ("--redistribute", "uniform"),
        ("--device", "cuda"),
    ],
)
def test_what_the_engine_does_not_take_is_refused(tmp_path, capsys, options):
    assert run([*RUN, *options, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert options[0] in line
    assert "--engine sb3" in line
    assert not (tmp_path / "run").exists()


def test_more_processes_than_cpus_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cpus = os.cpu_count()
    counts = ("--runners", str(cpus), "--learners", "1")
    assert run([*RUN, *counts, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"need {cpus + 1} CPUs, and this machine has {cpus}" in line
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run([*RUN, "--out", str(tmp_path / "run")]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("textgym: error: nobody answers at 127.0.0.1:1")
    assert not (tmp_path / "run").exists()
