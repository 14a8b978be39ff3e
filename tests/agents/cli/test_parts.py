"""The parts of the command line that need no model."""

import errno
import json

import numpy as np
import pytest
from rich.console import Console

from textgym_agents.cli import threads
from textgym_agents.cli.display import Sample, TrainingDisplay, before_and_after
from textgym_agents.cli.errors import CommandError, bad_input, is_disk_full, one_line
from textgym_agents.cli.options import (
    EnvOptions,
    ModelOptions,
    TrainOptions,
    key_values,
    train_options,
)
from textgym_agents.cli.run_folder import RunFolder, replace_folder, write_text


# ---------------------------------------------------------------------- options
def test_options_survive_json():
    options = TrainOptions(
        env=EnvOptions("textgym/Story-v0", prompts=("a", "b"), rewards=("length",), env={"x": [1]}),
        model=ModelOptions(model="./m", top_k=5),
        kl_coef=0.5,
    )
    assert TrainOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_resumed_options_keep_what_is_not_given():
    stored = TrainOptions(env=EnvOptions("a", rewards=("length",)), seed=7)
    given = {"id": "a", "timesteps": 500, "seed": None, "rewards": ()}
    resumed = train_options(given, stored)
    assert (resumed.seed, resumed.timesteps, resumed.env) == (7, 500, stored.env)


@pytest.mark.parametrize(
    ("given", "option"),
    [({"seed": 1}, "--seed 7"), ({"rewards": ("x",)}, "--reward"), ({"top_p": 0.5}, "--top-p 1.0")],
)
def test_resumed_options_cannot_change_what_is_learned(given, option):
    stored = TrainOptions(env=EnvOptions("a"), seed=7)
    with pytest.raises(CommandError, match=option):
        train_options({"id": "a", **given}, stored)


@pytest.mark.parametrize("text", ["a", "=1", "a b=1", ""])
def test_key_values_refuse_what_is_none(text):
    with pytest.raises(CommandError, match="KEY=VALUE"):
        key_values([text])


def test_key_values_read_json():
    assert key_values(["a=[1,2]", "b=x=y", "c=NaN", "d=null", 'e="1"']) == {
        "a": [1, 2],
        "b": "x=y",
        "c": "NaN",
        "d": None,
        "e": "1",
    }


# ---------------------------------------------------------------------- run folder
def test_record_is_replaced_whole(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.update({"options": {}, "seed": 1})
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        folder.update({"seed": 2})
    assert json.loads(folder.record_file.read_text()) == {"options": {}, "seed": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["run.json"]


def full_disk(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_model_is_replaced_whole(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save_model(lambda path: write_text(path / "weights", "old"))

    def fail(path):
        write_text(path / "weights", "half")
        full_disk()

    with pytest.raises(OSError, match="No space"):
        folder.save_model(fail)
    assert (folder.model / "weights").read_text() == "old"
    folder.save_model(lambda path: write_text(path / "weights", "new"))
    assert (folder.model / "weights").read_text() == "new"
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_a_crash_between_renames_loses_nothing(tmp_path):
    previous = tmp_path / ".model.previous"
    previous.mkdir()
    (previous / "weights").write_text("old")

    with pytest.raises(OSError, match="No space"):
        replace_folder(tmp_path / "model", full_disk)
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_samples_survive_any_text(tmp_path):
    folder = RunFolder(tmp_path)
    rows = [{"completion": 'a\nb\u2028c\x85"\N{GRINNING FACE}'}]
    folder.add_samples(rows)
    folder.add_samples(rows)
    assert folder.samples() == rows * 2


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "No space left on device: a/b"),
        (FileNotFoundError("model: no\n such folder"), "model: no such folder"),
        (KeyError("a key"), "a key"),
        (ValueError(), "ValueError"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line


def test_disk_full_is_recognised_through_its_causes():
    error = RuntimeError("could not save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(error)
    assert is_disk_full(RuntimeError("PytorchStreamWriter failed writing file data/3"))
    assert not is_disk_full(RuntimeError("shapes differ"))


def test_defects_of_ours_are_not_called_bad_input():
    with pytest.raises(AttributeError), bad_input():
        None.nothing  # noqa: B018
    with pytest.raises(CommandError, match="such"), bad_input():
        raise FileNotFoundError("no such folder")


# ---------------------------------------------------------------------- threads
def test_threads_are_restored_and_the_fastest_is_chosen(monkeypatch):
    import torch

    cost = {1: 3.0, 2: 1.0, 4: 2.0}
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    chosen = [torch.get_num_threads()]
    monkeypatch.setattr("torch.set_num_threads", lambda n: chosen.append(n))
    monkeypatch.setattr("torch.get_num_threads", lambda: chosen[-1])

    def work():
        clock[0] += cost[chosen[-1]]

    seconds = threads.measure(work, [1, 2, 4])
    assert seconds == cost
    assert threads.best(seconds) == 2
    assert chosen[-1] == chosen[0]


def test_measuring_leaves_the_model_as_it_was():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.random.get_rng_state()
    threads.model_work(model, rows=3, length=16)()
    assert torch.equal(state, torch.random.get_rng_state())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


# ---------------------------------------------------------------------- display
def test_texts_cannot_control_the_terminal_or_its_markup():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    sample = Sample("p", "[bold]x[/bold]\x1b[2J", "[/nonsense]", 0.25, 0.5)
    console.print(before_and_after([sample]))
    text = console.export_text()
    assert "[bold]x[/bold]" in text
    assert "[/nonsense]" in text
    assert "\x1b" not in text
    assert "reward 0.25" in text


def test_display_in_a_file_writes_a_line_now_and_then(capsys):
    display = TrainingDisplay(Console(width=80), total=1000)
    with display:
        for done in range(0, 1001, 10):
            display.advance(done)
            display.show({"reward": f"{done / 1000:.3f}"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"{share}%" for share in range(0, 101, 5)]
    assert lines[-1].endswith("reward 1.000")


def test_display_leaves_evaluation_out_of_the_training_time():
    display = TrainingDisplay(Console(), total=10)
    with display:
        display.not_training(100.0)
        assert display.train_seconds == pytest.approx(-100.0, abs=1.0)
    assert np.isfinite(display.tokens_per_second)
