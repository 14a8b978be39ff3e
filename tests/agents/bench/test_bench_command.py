"""`textgym bench` as someone who types it sees it."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from textgym.suites import SUITES, Suite, find_suite
from textgym_agents.bench.agents import AGENTS
from textgym_agents.bench.cells import cells_of
from textgym_agents.bench.records import read_results
from textgym_agents.cli import benching
from textgym_agents.cli.bench_display import BenchDisplay, duration
from textgym_agents.cli.benching import DEFAULT_AGENTS
from textgym_agents.cli.entry import run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def command(monkeypatch, capsys, suite, fake):
    """`command(*args)` -> (code, stdout, stderr): with a suite of two tasks and fake cells."""
    monkeypatch.setattr(benching, "load_suite", {"tiny": suite}.get)
    monkeypatch.setattr(benching, "cell_command", fake)
    known = dict.fromkeys([*AGENTS, "ok", "flaky", "crashes", "some time"])
    monkeypatch.setattr(benching, "AGENTS", known)

    def call(*args):
        code = run(("bench", *map(str, args)))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_list_names_suites_and_agents(capsys):
    assert run(("bench", "list")) == 0
    out = capsys.readouterr().out
    for suite in SUITES.values():
        assert suite.description in out
    lines = {line[2:].split(" ")[0]: line for line in out.splitlines()}
    assert {name for name, line in lines.items() if line.startswith("*")} == set(DEFAULT_AGENTS)
    assert set(AGENTS) <= set(lines)


def test_run_shows_lines_and_scores_and_what_to_type_next(command, tmp_path):
    out = tmp_path / "out"
    given = ("run", "--suite", "tiny", "--agent", "ok", "--agent", "ok", "--jobs", 2, "--out", out)
    code, said, err = command(*given)
    assert (code, err) == (0, "")
    lines = said.splitlines()
    assert lines[0] == "8 cells to run, 2 at a time."
    assert [line.split()[0] for line in lines[1:9]] == [f"{i}/8" for i in range(1, 9)]
    assert all("  ok  " in line for line in lines[1:9])
    assert f"Next: textgym bench report {out}" in lines[-1]
    results = read_results(out)
    assert len(results.records) == 8  # two anchors and two seeds on each of two tasks
    rows = [line.split() for line in lines]
    for agent in ("ok", "random", "oracle"):
        first, second = results.scores(agent).mean(axis=0)
        assert [agent, f"{first:.2f}", f"{second:.2f}"] in rows
    typed = results.records[0]["provenance"]["command"]
    assert typed == f"textgym bench {' '.join(map(str, given))}"
    # Again: nothing is run, the same is shown.
    code, said, _ = command(*given)
    assert code == 0
    assert said.splitlines()[0] == "0 cells to run, 2 at a time; 8 done already."
    assert [line.split() for line in said.splitlines()][-6:] == rows[-6:]


def test_failed_cells_are_listed_and_the_exit_code_is_1(command, tmp_path):
    out = tmp_path / "out"
    given = ("run", "--suite", "tiny", "--agent", "crashes", "--only", "second", "--out", out)
    code, said, err = command(*given, "--seeds", 1)
    assert code == 1
    log = out / "logs" / "second+crashes+0.log"
    reason = "crashed: ValueError: no such [31m luck (exit code 1)"
    assert f"  second/crashes/0: {reason} ({log})" in said.splitlines()
    assert "will be tried again" in said
    assert err.startswith("textgym: error: 1 of 3 cells failed")
    assert err.count("\n") == 1
    assert "ValueError" in log.read_text()
    code, said, _ = command(*given, "--seeds", 1, "--agent", "ok")
    assert code == 1
    assert said.splitlines()[0] == "2 cells to run, 1 at a time; 2 done already."


def test_means_leave_out_failed_seeds_and_say_so(command, tmp_path):
    given = ("--suite", "tiny", "--only", "first", "--out", tmp_path / "out")
    code, said, _ = command("run", *given, "--agent", "some time", "--agent", "crashes")
    assert code == 1
    assert "0.00" in said
    assert "Without the seeds" not in said
    file = tmp_path / "out" / "results.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        if (record["agent"], record["seed"]) == ("some time", 1):
            record |= {"status": "timeout", "returns": None}
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    results = read_results(tmp_path / "out")
    console = Console(file=io.StringIO(), width=100)
    benching.show_scores(results, console)
    shown = console.file.getvalue()
    assert f"{results.scores('some time')[0, 0]:.2f}*" in shown
    assert "* Without the seeds that failed" in shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--suite", "exat"), "unknown suite `exat`; did you mean `exact`"),
        (("--agent", "poo"), "unknown agent `poo`; did you mean `ppo`"),
        (("--only", "stry"), "unknown task `stry`; did you mean `story`"),
        (("--seeds", "0"), "--seeds"),
        (("--jobs", "0"), "--jobs"),
        (
            ("--suite", "exact", "--agent", "json:loads", "--agent", "no.such:thing"),
            "--agent no.such:thing cannot be imported: ModuleNotFoundError: No module named 'no'",
        ),
    ],
)
def test_bad_input_is_told_on_one_line(capsys, tmp_path, args, said):
    code = run(("bench", "run", *args, "--out", str(tmp_path / "out")))
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_folders_that_cannot_be_used(command, tmp_path):
    file = tmp_path / "file"
    file.touch()
    code, _, err = command("run", "--suite", "tiny", "--agent", "ok", "--out", file)
    assert (code, err.count("\n")) == (2, 1)
    assert "is a file; expected a folder" in err
    done = ("run", "--suite", "tiny", "--agent", "ok", "--only", "first", "--out", tmp_path / "a")
    assert command(*done)[0] == 0
    code, _, err = command(*done, "--quick")
    assert code == 2
    assert "holds results of suite tiny" in err
    assert "not of tiny-quick" in err
    code, _, err = command("report", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "does not exist" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_says_how_to_go_on(tmp_path, fake, number):
    """As a process of its own: what is tested is the exit code after a signal."""
    out = tmp_path / "out"
    # Cells that end at once but for the last, which hangs.
    script = f"""
import sys
from textgym_agents.cli import benching
from textgym_agents.cli.entry import run
command = {fake(out / "x")[:-1]!r}
benching.cell_command = lambda record: [*command, str(record)]
benching.AGENTS = dict.fromkeys(["hangs"])
sys.exit(run(sys.argv[1:]))
"""
    typed = ["bench", "run", "--suite", "exact", "--only", "small-dense", "--agent", "hangs"]
    typed += ["--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *typed],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    until = time.monotonic() + 30
    while not fake.notes("child") and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert f"stopped; 2 of 7 cells are done, in {out}." in err
    assert f"Continue with: textgym {' '.join(typed)}" in err
    assert len(read_results(out).records) == 2


def test_real_cells_of_the_agents_in_the_guide(monkeypatch, capsys, tmp_path):
    """The command as it is, on a small lock: anchors, and agents of others given as files."""
    guide = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    typed = []
    for name, fence in (("simple", "python"), ("sb3", "py")):
        block = re.search(rf"```{fence}\n(.*?def make_agent.*?)```", guide, flags=re.DOTALL)[1]
        (tmp_path / f"{name}.py").write_text(block, encoding="utf-8")
        typed += ["--agent", f"{name}.py:make_agent"]
    task = dataclasses.replace(find_suite("exact").tasks[0], tokens=600, episodes=16, num_envs=16)
    suite = Suite("small", "One lock.", (task,), seeds=(0,))
    monkeypatch.setattr(benching, "load_suite", {"small": suite}.get)
    code = run(("bench", "run", "--suite", "small", *typed, "--out", "out"))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    results = read_results("out")
    agents = ["random", "oracle", "simple.py:make_agent", "sb3.py:make_agent"]
    assert [record["agent"] for record in results.records] == agents
    assert [record["agent_import"] for record in results.records] == [None, None, *agents[2:]]
    assert results.anchors(task.name).exact
    assert results.scores("oracle")[0, 0] == pytest.approx(1.0)
    for agent in ("random", *agents[2:]):
        assert -0.1 < results.scores(agent)[0, 0] < 0.6
    learnt = [record["tokens"] for record in results.records]
    assert learnt[:2] == [0, 0]
    assert 580 < learnt[2] <= 600 <= learnt[3]
    assert "sb3.py:make_agent" in captured.out


def test_results_are_reported_and_compared(command, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for out in (old, new):
        assert command("run", "--suite", "tiny", "--agent", "ok", "--out", out)[0] == 0
    code, said, err = command("report", old, "--against", "ok")
    assert (code, said, err) == (0, f"Page: {old / 'report.html'}\n", "")
    assert "<html" in (old / "report.html").read_text()
    code, said, _ = command("report", old, "--out", tmp_path / "page.html")
    assert said == f"Page: {tmp_path / 'page.html'}\n"
    code, said, err = command("compare", old, new)
    assert (code, err) == (0, "")
    assert "no difference shown" in said
    file = new / "results.jsonl"
    worse = [json.loads(line) for line in file.read_text().splitlines()]
    worse = [
        r | {"returns": [-50.0 - r["seed"] / 100] if r["agent"] == "ok" else r["returns"]}
        for r in worse
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in worse))
    code, said, _ = command("compare", old, new, "--agent-a", "ok", "--only", "first")
    assert code == 1
    assert "worse" in said
    code, _, err = command("compare", old, new, "--agent-b", "okk")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean `ok`" in err


# ---------------------------------------------------------------------- progress
def test_what_is_left_is_estimated_from_the_cells_most_alike(suite, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("textgym_agents.cli.bench_display.time.monotonic", lambda: now[0])
    cells = cells_of(suite, ["a", "b"], [0])  # four anchors, then a, b on first, a, b on second
    display = BenchDisplay(Console(file=io.StringIO(), width=200), jobs=1)
    display.begins(cells, 0)
    took = {"random": 1.0, "oracle": 3.0, "a": 10.0}
    for cell in cells[:5]:
        display.starts(cell)
        now[0] += took[cell.agent]
        display.ends(cell, {"status": "ok", "returns": [1.0]}, None, False)
    # b has not been seen: as other agents, 10 s; a on second as a on first.
    assert display.seconds_left() == pytest.approx(30.0)
    display.starts(cells[5])
    now[0] += 4.0
    assert display.seconds_left() == pytest.approx(26.0)
    display.ends(cells[5], {"status": "crashed", "error": "x"}, None, True)
    assert display.seconds_left() == pytest.approx(30.0)  # it will be tried again
    assert (display.done, display.failed) == (5, 0)


def test_a_terminal_sees_the_cells_that_run(suite):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    cells = cells_of(suite, ["a"], [0])
    with BenchDisplay(console, jobs=2) as display:
        display.begins(cells, 3)
        display.starts(cells[0])
        display.starts(cells[1])
        display.ticks()
        shown = file.getvalue()
        assert "6 cells to run, 2 at a time; 3 done already." in shown
        assert "first/random/0" in shown
        assert "first/oracle/0" in shown
        assert "0 of 6 done" in shown
        display.ends(cells[0], {"status": "crashed", "error": "no\x1b]0;luck"}, None, False)
    assert "\x1b]0;" not in file.getvalue()
    assert "first/random/0  crashed: no" in file.getvalue()


def test_durations():
    assert [duration(s) for s in (0.4, 59.4, 59.6, 3_599, 7_620)] == [
        *("0 s", "59 s", "1 min 00 s", "59 min 59 s", "2 h 07 min")
    ]
