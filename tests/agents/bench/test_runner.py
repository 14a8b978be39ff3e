"""Cells in processes of their own: what is written when they, or the runner, come to grief."""

import fcntl
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from textgym.suites import Suite, SuiteTask
from textgym_agents.bench.cells import cells_of
from textgym_agents.bench.processes import GuardedProcess, Limits, all_processes
from textgym_agents.bench.records import read_lines, read_results
from textgym_agents.bench.results_file import ResultsFile
from textgym_agents.bench.runner import Observer, Runner, log_of

forked = multiprocessing.get_context("fork")


class Told(Observer):
    def __init__(self):
        self.lines = []

    def starts(self, cell):
        self.lines.append(("starts", str(cell)))

    def ends(self, cell, record, log, again):
        self.lines.append((record["status"], str(cell), again))

    def note(self, text):
        self.lines.append(("note", text))


@pytest.fixture
def run(tmp_path, suite, fake):
    """Run some agents on the suite's first task, without the anchors; their newest records."""

    def call(*agents, seeds=(0,), out="out", **options):
        cells = cells_of(suite, agents, seeds, ["first"])[2:]
        with ResultsFile(tmp_path / out, suite.name, suite.hash) as results:
            return Runner(results, command=fake, **options).run(cells)

    return call


def started(fake):
    return len(fake.notes("start"))


# ---------------------------------------------------------------------- which cells
def test_cells_are_anchors_once_a_task_then_seed_by_seed(suite):
    cells = cells_of(suite, ["ppo", "random", "a:b", "ppo"], [0, 1])
    names = [str(cell) for cell in cells]
    anchors = ["first/random/0", "first/oracle/0", "second/random/0", "second/oracle/0"]
    seeds = [f"{t}/{a}/{s}" for s in (0, 1) for t in ("first", "second") for a in ("ppo", "a:b")]
    assert names == anchors + seeds
    assert {str(c) for c in cells_of(suite, ["ppo"], [0], ["second"])} == {
        f"second/{agent}/0" for agent in ("random", "oracle", "ppo")
    }
    with pytest.raises(TypeError, match="did you mean `second`"):
        cells_of(suite, ["ppo"], [0], ["secnd"])


def test_file_names_tell_cells_apart(suite):
    agents = ["a:b", "a_b", "a/b", "..", "ä b", "a%3ab"]
    cells = cells_of(suite, agents, [0, 1])
    names = {cell.file_name for cell in cells}
    assert len(names) == len(cells)
    assert not any("/" in name or ":" in name for name in names)


# ---------------------------------------------------------------------- how cells end
def test_a_cell_that_ends_well_is_written_once_and_not_run_again(run, tmp_path, fake):
    (record,) = run("ok")
    assert (record["status"], record["attempts"]) == ("ok", 1)
    assert read_lines(tmp_path / "out" / "results.jsonl") == [record]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "results.jsonl"]
    assert run("ok") == [record]
    assert started(fake) == 1


@pytest.mark.parametrize(
    ("agent", "status", "said"),
    [
        ("crashes", "crashed", "ValueError: no such [31m luck (exit code 1)"),
        ("killed", "killed", "ended by the signal SIGKILL"),
        ("aborts", "crashed", "ended by the signal SIGABRT"),
        ("nothing", "crashed", "ended without a record; its last line: almost done"),
        ("garbage", "crashed", "left a record that cannot be used: not valid JSON"),
        ("nan", "crashed", "NaN is not a JSON number"),
        ("another", "crashed", "expected ('first', 'another', 0)"),
        ("ok, but fails", "crashed", "exit code 3"),
        ("invalid", "invalid_action", "chose a token that is masked"),
    ],
)
def test_a_cell_that_fails_is_tried_twice_and_told(run, tmp_path, suite, fake, agent, status, said):
    told = Told()
    (record,) = run(agent, observer=told)
    assert record["status"] == status
    assert said in record["error"]
    assert "\n" not in record["error"]
    assert record["attempts"] == started(fake) == 2
    assert record["returns"] is None
    assert {"versions", "started", "command"} <= set(record["provenance"])
    name = f"first/{agent}/0"
    assert told.lines == [
        ("starts", name),
        (status, name, True),
        ("starts", name),
        (status, name, False),
    ]
    assert read_lines(tmp_path / "out" / "results.jsonl") == [record]
    # The next run tries again, and counts on.
    (again,) = run(agent)
    assert (again["status"], again["attempts"]) == (status, 4)
    assert read_results(tmp_path / "out").records == (again,)


def test_output_of_a_failed_cell_is_kept_that_of_others_is_not(run, tmp_path, suite):
    run("crashes", "flaky", "ok")
    cells = cells_of(suite, ["crashes", "flaky", "ok"], [0], ["first"])[2:]
    kept = [log_of(tmp_path / "out", cell) for cell in cells]
    assert [path.exists() for path in kept] == [True, False, False]
    text = kept[0].read_text()
    assert text.count("some warning") == 2
    assert "--- attempt 2 ---" in text


def test_a_second_attempt_may_do(run, fake):
    flaky, ok = run("flaky", "ok")
    assert (flaky["status"], flaky["attempts"]) == ("ok", 2)
    assert (ok["status"], ok["attempts"]) == ("ok", 1)


def test_timeout_ends_a_cell_and_all_it_started(run, fake, all_gone):
    began = time.monotonic()
    (record,) = run("hangs", limits=Limits(seconds=0.5))
    assert time.monotonic() - began < 5
    assert record["status"] == "timeout"
    assert record["error"] == "took longer than 0.5 s (--timeout)"
    assert record["peak_mb"] > 1
    assert len(fake.notes("child")) == 2
    assert all_gone(fake.notes("start") + fake.notes("child"))


def test_memory_beyond_the_limit_ends_a_cell(run):
    ok, eats = run("ok", "eats", limits=Limits(megabytes=100))
    assert ok["status"] == "ok"
    assert eats["status"] == "memory"
    assert eats["error"].endswith("MB of memory, more than 100 (--memory)")
    assert eats["peak_mb"] > 100


def test_without_proc_the_limit_of_memory_is_said_to_be_off(run, monkeypatch):
    monkeypatch.setattr("textgym_agents.bench.runner.all_processes", lambda: None)
    told = Told()
    (record,) = run("ok", limits=Limits(megabytes=1), observer=told)
    assert record["status"] == "ok"
    assert [line for line in told.lines if line[0] == "note"] == [
        ("note", "There is no /proc here: the limit of memory is not enforced.")
    ]


def test_nothing_that_a_cell_leaves_running_outlives_it(run, fake, all_gone):
    (record,) = run("daemon")
    assert record["status"] == "ok"
    assert len(fake.notes("child")) == 1
    assert all_gone(fake.notes("child"))


def test_a_cell_sees_no_child_that_it_did_not_start(run):
    (record,) = run("waits", limits=Limits(seconds=5))
    assert record["status"] == "ok"


def test_cells_have_one_thread_and_their_description(tmp_path, suite):
    shown = tmp_path / "shown.txt"
    cells = cells_of(suite, ["x"], [7], ["first"], typed="textgym bench run")[2:]
    script = f'cat > {shown}; echo "$OMP_NUM_THREADS $MKL_NUM_THREADS" >> {shown}'
    with ResultsFile(tmp_path / "out", suite.name, suite.hash) as results:
        Runner(results, command=lambda record: ["sh", "-c", script]).run(cells)
    described, threads = shown.read_text().replace("}1 1", "}\n1 1").splitlines()
    assert threads == "1 1"
    found = json.loads(described)
    assert (found["agent"], found["seed"], found["command"]) == ("x", 7, "textgym bench run")
    assert SuiteTask.from_json(found["task"]) == suite.task("first")


def test_two_jobs_run_at_once_and_one_job_does_not(run, fake):
    run("slow", seeds=(0, 1), jobs=2)
    (a, _), (b, _) = fake.notes("start")
    assert max(a, b) < min(at for at, _ in fake.notes("end"))
    run("slow", seeds=(2, 3))
    (_, _), (_, _), (_, _), (second, _) = fake.notes("start")
    assert second > fake.notes("end")[2][0]


def test_jobs_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="`jobs` must be at least 1, got 0"):
        Runner(ResultsFile(tmp_path, "tiny", "0"), jobs=0)


def test_proc_is_read_as_the_system_tells_it():
    mine = all_processes()[os.getpid()]
    assert (mine.parent, mine.group) == (os.getppid(), os.getpgrp())
    assert mine.session == os.getsid(0)
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    (resident,) = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")]
    assert abs(mine.resident - resident) < 0.1 * resident


def test_kill_twice_is_no_error(tmp_path):
    process = GuardedProcess(
        ["sleep", "60"], os.devnull, tmp_path / "log", os.environ, Limits(None, None)
    )
    process.kill()
    process.kill()
    assert process.poll() == -signal.SIGKILL


# ---------------------------------------------------------------------- the file
def test_a_line_that_is_half_written_is_dropped_and_its_cell_run_again(run, tmp_path, fake):
    first, second = run("ok", seeds=(0, 1))
    file = tmp_path / "out" / "results.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    again = run("ok", seeds=(0, 1))
    assert again[0] == first
    assert started(fake) == 3
    assert [record["seed"] for record in read_lines(file)] == [0, 1]
    assert again[1]["returns"] == second["returns"]


def test_a_broken_line_within_the_file_is_told(run, tmp_path):
    run("ok", seeds=(0, 1))
    file = tmp_path / "out" / "results.jsonl"
    file.write_bytes(b"{}\n" + file.read_bytes())
    with pytest.raises(ValueError, match=r"results.jsonl, line 1: `schema` must be 1, got None"):
        run("ok")


def test_results_of_another_suite_are_refused(run, tmp_path):
    run("ok")
    with (
        pytest.raises(ValueError, match=r"holds results of suite tiny .* not of other .* another"),
        ResultsFile(tmp_path / "out", "other", "f" * 16),
    ):
        pass


def test_a_second_runner_is_refused_and_a_lock_left_behind_is_not(run, tmp_path, suite):
    with ResultsFile(tmp_path / "out", suite.name, suite.hash):
        expected = rf"another `textgym bench run` \(process {os.getpid()}\) writes to"
        with pytest.raises(BlockingIOError, match=expected):
            run("ok")
    (tmp_path / "out" / ".lock").write_text("1\n")  # a process that runs, but does not hold it
    assert run("ok")[0]["status"] == "ok"


def test_a_full_disk_leaves_the_file_whole(run, tmp_path, suite, monkeypatch):
    run("ok")
    file = tmp_path / "out" / "results.jsonl"
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run("ok", seeds=(1,))
    assert file.read_bytes() == before


def test_locks_hold_between_processes(run, tmp_path, suite):
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="process unknown"):
            run("ok")


# ---------------------------------------------------------------------- the runner itself
def in_process(tmp_path, fake, jobs, out, agent="some time"):
    """A process that runs 12 cells of an agent and their anchors."""
    tasks = (SuiteTask("only", "textgym/TokenLock-v0", {}, 100, 4, 2),)
    suite = Suite("one", "One task.", tasks, seeds=tuple(range(12)))

    def work():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        cells = cells_of(suite, [agent], suite.seeds)
        try:
            with ResultsFile(tmp_path / out, suite.name, suite.hash) as results:
                Runner(results, command=fake, jobs=jobs).run(cells)
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(0)

    process = forked.Process(target=work)
    process.start()
    return process


def wait_for(condition):
    until = time.monotonic() + 20
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.01)


def timeless(path):
    """The records in a folder, by cell, without what differs between equal runs."""
    differing = ("train_seconds", "attempts", "provenance")
    records = [dict(record) for record in read_results(path).records]
    for record in records:
        for name in differing:
            del record[name]
    return sorted(records, key=lambda record: (record["agent"], record["seed"]))


def test_a_runner_killed_at_any_moment_leaves_what_another_completes(tmp_path, fake, all_gone):
    undisturbed = in_process(tmp_path, fake, 2, "undisturbed")
    undisturbed.join()
    assert undisturbed.exitcode == 0
    rng = random.Random(5)
    file = tmp_path / "killed" / "results.jsonl"
    for lines in (2, 6):
        process = in_process(tmp_path, fake, 2, "killed")
        wait_for(lambda count=lines: file.exists() and file.read_bytes().count(b"\n") >= count)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert all_gone(fake.notes("start"))
        assert file.read_bytes().count(b"\n") < 14
    with file.open("ab") as stream:  # as where it is killed within a write
        stream.write(b'{"schema": 1, "suite"')
    last = in_process(tmp_path, fake, 2, "killed")
    last.join()
    assert last.exitcode == 0
    assert file.read_bytes().count(b"\n") == 14  # none was run twice to its end
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "undisturbed")
    assert not (tmp_path / "killed" / ".running").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cells_do_not_outlive_their_runner(tmp_path, fake, all_gone, number):
    file = tmp_path / "out" / "results.jsonl"
    process = in_process(tmp_path, fake, 2, "out", "hangs")
    wait_for(lambda: len(fake.notes("child")) == 2)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == (-number if number == signal.SIGKILL else 130)
    assert all_gone(fake.notes("start"))
    # Who is killed with SIGKILL cannot look for what has left the group.
    assert number == signal.SIGKILL or all_gone(fake.notes("child"))
    assert {record["agent"] for record in read_lines(file)} == {"random", "oracle"}
    for _, pid in fake.notes("child") if number == signal.SIGKILL else ():
        os.kill(pid, signal.SIGKILL)
