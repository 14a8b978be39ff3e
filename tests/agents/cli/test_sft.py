"""`textgym sft`: what a run leaves, and how it ends early."""

import json
import signal

import pytest
from transformers import AutoModelForCausalLM

from textgym_agents.cli.entry import run
from textgym_agents.lm import imitation

pytestmark = pytest.mark.usefixtures("one_thread")

STORY = ["sft", "textgym/Story-v0", "--demonstrations", "96", "--eval-episodes", "8"]


def test_a_run_lowers_the_loss_and_leaves_a_model(tmp_path, capsys):
    out = tmp_path / "run"
    assert run([*STORY, "--seed", "3", "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["demonstrations"] == 96
    assert record["command"].startswith("textgym sft textgym/Story-v0")
    assert record["loss_after"] < record["loss_before"]
    assert record["score_after"] is not None
    assert list((out / "tensorboard").iterdir())
    printed = capsys.readouterr().out
    assert "held-out loss" in printed
    assert str(out / "model") in printed
    AutoModelForCausalLM.from_pretrained(out / "model")


def test_ctrl_c_keeps_the_model_so_far(tmp_path, capsys, monkeypatch):
    loss = imitation.imitation_loss
    calls = 0

    def interrupting(*args):
        nonlocal calls
        calls += 1
        if calls == 10:  # the eighth is the last of the held-out loss before training
            signal.raise_signal(signal.SIGINT)
        return loss(*args)

    monkeypatch.setattr(imitation, "imitation_loss", interrupting)
    out = tmp_path / "run"
    assert run([*STORY, "--out", str(out), "--batch-size", "8"]) == 130
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert 0 < record["demonstrations"] < 96
    assert "is saved as far as it came" in capsys.readouterr().err
    AutoModelForCausalLM.from_pretrained(out / "model")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["textgym/Continuation-v0"], "no oracle"),
        (["textgym/Stori-v0"], "Story-v0"),
        (["textgym/Story-v0", "--model", "./nowhere"], "no such folder"),
        (["textgym/Story-v0", "--env", "levle=2"], "levle"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, expected):
    assert run(["sft", *arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_targets_of_ones_own_data_are_learned_from(tmp_path):
    data = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"Count to {n}:", "target": " 1 2 3"} for n in range(20)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    arguments = ["textgym/Dataset-v0", "--env", f"dataset={data}", "--demonstrations", "320"]
    assert run(["sft", *arguments, "--eval-episodes", "4", "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["loss_after"] < 0.5 * record["loss_before"]


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert run([*STORY, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
