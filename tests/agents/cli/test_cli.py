"""The command line as someone who types it sees it: what is printed where, and the exit code."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from textgym import Tokenizer
from textgym.demonstrations import demonstrate
from textgym.registration import REGISTRY
from textgym.seeding import instance_rng
from textgym_agents.cli.entry import run


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command in this process: `command(*args, stdin=...)` -> (code, stdout, stderr)."""

    def call(*args: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def assert_one_line(err: str, *parts: str) -> None:
    assert err.startswith("textgym: error: ")
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err


# ---------------------------------------------------------------------- list
def test_list_has_a_line_for_each_id(command):
    code, out, err = command("list", "--all")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(REGISTRY)
    assert all(REGISTRY[line.split()[0]].summary in line for line in lines)


def test_list_has_one_line_for_each_bridge_to_a_package(command):
    code, out, _ = command("list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    own = {id for id, row in REGISTRY.items() if not row.bridged}
    assert set(lines) == own | {"textgym/ReasoningGym.*-v0", "textgym/TextArena.*-v0"}
    assert list(lines) == sorted(lines)
    for start, extra in (("ReasoningGym", "reasoning-gym"), ("TextArena", "textarena")):
        line = lines[f"textgym/{start}.*-v0"]
        count = sum(id.startswith(f"textgym/{start}.") for id in REGISTRY)
        assert f"{count} of {extra}" in line
        assert f'pip install "textgym[{extra}]"' in line


def test_unknown_ids_are_told_the_bridged_ones_only_if_meant(command):
    _, _, err = command("play", "textgym/Stroy-v0")
    assert "textgym/Story-v0" in err
    assert "ReasoningGym" not in err
    _, _, err = command("play", "textgym/ReasoningGym.chainsum-v0")
    assert "did you mean `textgym/ReasoningGym.chain_sum-v0`" in err


def test_list_json(command):
    code, out, _ = command("list", "--json")
    assert code == 0
    assert {row["id"]: row["summary"] for row in json.loads(out)} == {
        row.id: row.summary for row in REGISTRY.values()
    }


def test_list_imports_no_torch():
    code = (
        "import sys\n"
        "from textgym_agents.cli.entry import run\n"
        "assert run(['list']) == 0\n"
        "heavy = {'torch', 'transformers', 'stable_baselines3', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_list_into_a_closed_pipe_is_quiet():
    done = subprocess.run(
        f"{sys.executable} -m textgym_agents.cli list --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[", "")


# ---------------------------------------------------------------------- play
def test_play_shows_prompt_budget_and_rewards(command):
    code, out, err = command(
        *("play", "textgym/Continuation-v0", "--prompt", "Once upon a time"),
        *("--reward", "keywords:happy,love", "--max-new-tokens", "30"),
        stdin="they were happy.\n\n",
    )
    assert (code, err) == (0, "")
    assert "Once upon a time" in out
    assert "[30 tokens left" in out
    assert "reward 0.500 (you ended it)" in out
    assert "keywords: 0.500" in out


@pytest.mark.parametrize("name", ["Story", "Dialogue", "Recommendation", "TwentyQuestions"])
def test_a_person_who_plays_like_the_oracle_scores_one(command, name):
    task = REGISTRY[f"textgym/{name}-v0"].task_class()()
    instance = task.draw(instance_rng(3, "train", 0, 0), "train")
    episode = demonstrate(task, instance, Tokenizer.load())
    lines = [turn.text.strip() for turn in episode.turns if turn.role == "agent"]
    code, out, err = command(
        *("play", f"textgym/{name}-v0", "--seed", "3", "--max-new-tokens", "100"),
        *("--episodes", "1"),
        stdin="".join(f"{line}\n\n" for line in lines),
    )
    assert (code, err) == (0, "")
    assert "score 1.000" in out
    for text in (instance.prompt, *(turn.text for turn in episode.turns if turn.role == "task")):
        assert all(line.strip() in out for line in text.splitlines())


def test_play_tells_when_the_budget_ends(command):
    code, out, _ = command(
        *("play", "textgym/Continuation-v0", "--max-new-tokens", "2", "--episodes", "1"),
        stdin="a very long line that cannot fit\n",
    )
    assert code == 0
    assert "the budget ended it" in out
    assert "The budget ends" in out


@pytest.mark.parametrize("stdin", ["", "half a line", "a line\n", "a line\n\n"])
def test_play_ends_politely_with_its_input(command, stdin):
    code, out, err = command("play", "textgym/Continuation-v0", stdin=stdin)
    assert (code, err) == (0, "")
    assert out.endswith("Goodbye.\n")
    assert out.count("you ended it") == bool(stdin)


def test_play_ends_politely_on_ctrl_c(command, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("textgym_agents.cli.commands.input_line", interrupt)
    code, out, err = command("play", "textgym/Continuation-v0")
    assert (code, err) == (0, "")
    assert out.endswith("Goodbye.\n")


def test_play_shows_no_control_characters(command):
    code, out, _ = command("play", "textgym/Continuation-v0", "--prompt", "a\x1b[31mb")
    assert code == 0
    assert "\x1b" not in out


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["lits"], ["lits", "list", "textgym --help"]),
        (["train", "textgym/Story-v0"], ["--out", "textgym train --help"]),
        (["play", "textgym/Stori-v0"], ["textgym/Stori-v0", "did you mean `textgym/Story-v0`"]),
        (["evaluate", "Nothing"], ["Nothing", "Known: textgym/Arithmetic-v0"]),
        (["play", "textgym/Story-v0", "--prompt", "hi"], ["textgym/Continuation-v0"]),
        (["play", "textgym/Story-v0", "--env", "x"], ["KEY=VALUE", "'x'"]),
        (["play", "textgym/Story-v0", "--env", "max_turn=1"], ["max_turn`", "max_turns"]),
        (["play", "textgym/Story-v0", "--env", "max_turns=0"], ["`max_turns`", "got 0"]),
        (["play", "textgym/Story-v0", "--reward", "keyword:a"], ["did you mean `keywords`"]),
        (["play", "textgym/Story-v0", "--tokenizer", "/no/such"], ["no such directory"]),
        (["play", "textgym/Story-v0", "--split", "dev"], ["`split`", "'dev'"]),
        (["play", "textgym/Continuation-v0", "--prompts", "no.txt"], ["no such file", "no.txt"]),
        (["evaluate", "textgym/Story-v0", "--model", "./none"], ["--model", "./none"]),
        (["evaluate", "textgym/Story-v0", "--threads", "many"], ["--threads", "'many'"]),
        (["evaluate", "textgym/Story-v0", "--episodes", "0"], ["--episodes"]),
        (["train", "textgym/Story-v0", "--out", "r", "--algo", "dqn"], ["--algo", "dqn"]),
        (["train", "textgym/Story-v0", "--out", "r", "--engine", "ray"], ["--engine", "rllib"]),
        (["train", "textgym/Story-v0", "--out", "r", "--runners", "2"], ["--engine rllib"]),
        (["train", "textgym/Story-v0", "--out", "r", "--model", "./none"], ["no such folder"]),
        (["train", "textgym/Story-v0", "--out", "r", "--seed", "-1"], ["--seed"]),
        (["train", "textgym/Story-v0", "--out", "r", "--reward", "size"], ["unknown reward"]),
    ],
)
def test_bad_input_gets_one_line(command, tmp_path, monkeypatch, args, parts):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*args)
    assert code == 2
    assert_one_line(err, *parts)
    assert list(tmp_path.iterdir()) == []


def test_train_leaves_a_filled_folder_alone(command, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    code, _, err = command("train", "textgym/Story-v0", "--out", str(tmp_path))
    assert code == 2
    assert_one_line(err, "not empty", "--resume")
    code, _, err = command("train", "textgym/Story-v0", "--out", str(tmp_path), "--resume")
    assert code == 2
    assert_one_line(err, "run.json")
    assert [f.name for f in tmp_path.iterdir()] == ["precious.txt"]


def test_train_into_a_file(command, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    code, _, err = command("train", "textgym/Story-v0", "--out", str(file))
    assert code == 2
    assert_one_line(err, "is a file")


def test_an_engine_that_is_not_installed_is_named_with_its_extra(command, tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("textgym_agents.rllib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "textgym_agents.cli.cluster", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    folder = tmp_path / "run"
    code, _, err = command("train", "textgym/Story-v0", "--engine", "rllib", "--out", str(folder))
    assert code == 2
    assert_one_line(err, "Ray RLlib", "pip install 'textgym[agents,rllib]'")
    assert not folder.exists()


def test_missing_libraries_are_named(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "textgym_agents.cli", "list"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 2
    assert_one_line(done.stderr, "`typer`", "pip install 'textgym[agents]'")


def test_version(command):
    import textgym

    assert command("--version") == (0, f"textgym {textgym.__version__}\n", "")
