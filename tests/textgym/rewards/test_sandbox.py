"""Calls that hang, crash or misbehave cost themselves alone, and leave nothing behind."""

import copy
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from textgym.rewards.sandbox import Sandbox, where_is
from textgym.rewards.sandbox_handle import Failed

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")

FUNCTIONS = '''
import ctypes, os, random, resource, subprocess, sys, tempfile, time

calls = 0
random.seed(3)

def deep(n):
    return deep(n + 1)

def spin():
    while True:
        pass

def spin_on(what):
    try:
        spin()
    finally:
        spin_on(what)

def stubborn():
    import signal
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    spin()

def fork(count):
    for _ in range(count):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    time.sleep(60)

def leave_a_daemon():
    """The id of a process that has left group and session."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            time.sleep(60)
        os._exit(0)
    return int(os.read(reading, 100))

def raise_strangely():
    class Strange(BaseException):
        def __str__(self):
            raise KeyError
    raise Strange

def write_everywhere():
    for i in range(3, 64):
        try:
            os.write(i, b"[1.0, 2\\n")
        except OSError:
            pass
    return 1.0

def noisy():
    print("1.0", flush=True)
    print("a warning", file=sys.stderr)
    os.write(1, b"\\x00\\xff\\n{}")
    subprocess.run(["echo", "hello"], check=True)
    return len(sys.stdin.read())

def count_calls():
    global calls
    calls += 1
    os.environ["LEFT"] = "yes"
    return calls

def litter():
    before = len(os.listdir("."))
    open("file", "w").write("x")
    os.makedirs("a/b")
    with tempfile.NamedTemporaryFile(delete=False) as file:
        inside = os.path.dirname(file.name) == os.getcwd()
    return before + (not inside)

def secrets():
    return len(os.environ.get("SECRET", "")) + len(os.environ.get("LEFT", ""))

KINDS = {
    "spins": spin, "ignores signals": stubborn, "never gives up": lambda: spin_on(0),
    "sleeps": lambda: time.sleep(60),
    "raises": lambda: {}["no such key"], "raises strangely": raise_strangely,
    "long message": lambda: int("x" * 10**6 + "\\ud800"),
    "sys.exit": lambda: sys.exit(0), "os._exit": lambda: os._exit(3), "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "memory": lambda: len(bytearray(10**10)),
    "memory bomb": lambda: [[0] * 10**6 for _ in iter(int, 1)],
    "recursion": lambda: deep(0),
    "deep recursion": lambda: sys.setrecursionlimit(10**9) or deep(0),
    "prints much": lambda: [print("x" * 1000) for _ in range(10**6)],
    "large file": lambda: open("f", "w").write("x" * 10**7),
    "many files": lambda: [open(str(i), "w") for i in range(1000)][-1].close() or 1.0,
    "forks": lambda: fork(100), "closes all": lambda: os.closerange(0, 256),
    "writes everywhere": write_everywhere,
    "kills its worker": lambda: os.kill(os.getppid(), 9),
    "None": lambda: None, "text": lambda: "0.5", "nan": lambda: float("nan"),
    "inf": lambda: -float("inf"), "list": lambda: [1.0], "huge": lambda: 10**400,
    "class": lambda: float, "complex": lambda: 1j,
    "noisy": noisy, "count": count_calls, "litter": litter, "secrets": secrets,
    "random": random.random, "daemon": leave_a_daemon, "true": lambda: True,
    "open files": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "core": lambda: resource.getrlimit(resource.RLIMIT_CORE)[0],
}

def judge(item):
    if isinstance(item, str) and item in KINDS:
        return KINDS[item]()
    return item if isinstance(item, (int, float)) else len(item)
'''

FAILURES = {
    "spins": "longer than 1 s",
    "ignores signals": "longer than 1 s",
    "never gives up": "longer than 1 s",
    "sleeps": "longer than 1 s",
    "raises": "KeyError: 'no such key'",
    "raises strangely": "Strange: .an error that cannot be shown",
    "long message": "ValueError: ",
    "sys.exit": "SystemExit: 0",
    "os._exit": "ended with exit code 3",
    "abort": "SIGABRT",
    "segfault": "SIGSEGV",
    "memory": "more than 128 MB of memory",
    "memory bomb": "more than 128 MB of memory",
    "recursion": "RecursionError",
    "deep recursion": "",  # how Python ends then depends on its version
    "prints much": "more than 1 MB",
    "large file": "more than 1 MB",
    "many files": "Too many open files",
    "forks": "more than 64 processes|longer than 1 s",
    "closes all": "without a result",
    "writes everywhere": "what is no result",
    "kills its worker": "lost",
    "None": "returned None, expected a number",
    "text": "returned a str, expected a number",
    "nan": "returned nan, expected a finite number",
    "inf": "returned -inf",
    "list": "returned a list",
    "huge": "OverflowError",
    "class": "returned a type",
    "complex": "returned a complex",
}
if sys.platform == "darwin":  # which has no limit on memory
    for kind in ("memory", "memory bomb", "deep recursion"):
        del FAILURES[kind]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sandbox") / "functions.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture(scope="module")
def sandbox(file):
    with Sandbox(f"{file}:judge", timeout=1.0, memory_mb=128, processes=2) as sandbox:
        yield sandbox


def alive(process):
    """Whether a process runs; a zombie, which some other process has yet to notice, does not."""
    stat = Path(f"/proc/{process}/stat")
    if sys.platform == "linux":
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def soon(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def pids(sandbox):
    return [worker.process.pid for worker in sandbox._workers]


def test_each_failure_costs_its_own_call_alone(sandbox):
    # One batch: a good call before and after each bad one.
    items = [part for kind in FAILURES for part in ("good", kind)] + ["good"]
    outcomes = sandbox.map(items)
    assert outcomes[::2] == [4.0] * (len(FAILURES) + 1)
    for (kind, expected), outcome in zip(FAILURES.items(), outcomes[1::2], strict=True):
        assert isinstance(outcome, Failed), (kind, outcome)
        assert len(outcome.reason) < 1100
        assert re.search(expected, outcome.reason), (kind, outcome)


def test_values_are_in_order_and_as_one_at_a_time(sandbox):
    items = [i / 8 for i in range(150)]
    assert sandbox.map(items) == items
    assert [sandbox.map([item])[0] for item in items[:10]] == items[:10]
    assert sandbox.map([]) == []
    assert sandbox.map(["", 0, 0.0, "true"]) == [0.0, 0.0, 0.0, 1.0]
    assert sandbox.map(["x" * 10**6, "\ud800\0\x1b\ufffd"]) == [10.0**6, 4.0]


def test_what_is_printed_is_no_answer(sandbox):
    assert sandbox.map(["noisy", "good"] * 3) == [0.0, 4.0] * 3


def test_nothing_of_a_call_reaches_the_next(sandbox):
    assert sandbox.map(["count"] * 6) == [1.0] * 6
    assert sandbox.map(["litter"] * 6) == [0.0] * 6
    assert len(set(sandbox.map(["random"] * 6))) == 1
    assert sandbox.map(["open files", "core"]) == [64.0, 0.0]


def test_the_environment_is_not_handed_on(file, monkeypatch):
    monkeypatch.setenv("SECRET", "1234")
    with Sandbox(f"{file}:judge", processes=1) as sandbox:
        assert sandbox.map(["count", "secrets"]) == [1.0, 0.0]


@linux_only
def test_processes_left_behind_are_killed(sandbox):
    (process,) = sandbox.map(["daemon"])
    assert process > 1
    assert not alive(int(process))


def test_an_item_that_cannot_be_sent(sandbox):
    outcomes = sandbox.map([lambda: 1, 2])
    assert "cannot be sent" in outcomes[0].reason
    assert outcomes[1] == 2.0


def test_a_worker_lost_while_idle_costs_nothing(sandbox):
    sandbox.map([1, 2])
    for process in pids(sandbox):
        os.kill(process, signal.SIGKILL)
    assert soon(lambda: not any(map(alive, pids(sandbox))))
    assert sandbox.map([1, 2, 3, 4]) == [1.0, 2.0, 3.0, 4.0]


def test_closing_leaves_no_process_and_no_folder(file):
    sandbox = Sandbox(f"{file}:judge", processes=2)
    sandbox.map([1, 2, 3])
    processes, folders = pids(sandbox), [worker.folder for worker in sandbox._workers]
    assert len(processes) == 2
    assert all(map(os.path.isdir, folders))
    sandbox.close()
    for process in processes:  # not even a zombie
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
        with pytest.raises(ChildProcessError):
            os.waitpid(process, os.WNOHANG)
    assert not any(map(os.path.exists, folders))
    assert sandbox.map([5]) == [5.0]  # and it starts again
    (process,) = pids(sandbox)
    del sandbox
    assert soon(lambda: not alive(process))


@pytest.mark.parametrize("item", ["idle", "spins", "forks"])
def test_workers_die_with_a_killed_parent(file, item):
    script = textwrap.dedent(
        f"""
        import time
        from textgym.rewards.sandbox import Sandbox
        sandbox = Sandbox({str(file) + ":judge"!r}, timeout=60, processes=1)
        sandbox.start()
        worker = sandbox._workers[0]
        print(worker.process.pid, worker.folder, flush=True)
        sandbox.map([{item!r}] if {item!r} != "idle" else [])
        time.sleep(60)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with parent:
        process, folder = parent.stdout.readline().split()
        if item == "spins":  # until the call runs
            assert soon(lambda: len(os.listdir(folder)) > 1)
        parent.kill()
    assert soon(lambda: not alive(int(process)))
    assert soon(lambda: not os.path.exists(folder))
    if sys.platform == "linux":
        assert soon(lambda: not _groups_of_session(int(process)))


def _groups_of_session(session):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(entry)
    return found


def test_a_fork_has_workers_of_its_own(sandbox):
    sandbox.map([1])
    before = pids(sandbox)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ok = sandbox.map([3, 4]) == [3.0, 4.0] and not set(pids(sandbox)) & set(before)
            sandbox.close()
            os.write(writing, b"yes" if ok else b"no")
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"yes"
    os.close(reading)
    assert pids(sandbox) == before
    assert sandbox.map([5]) == [5.0]


def test_copies_have_workers_of_their_own(sandbox):
    sandbox.map([1])
    for other in (pickle.loads(pickle.dumps(sandbox)), copy.deepcopy(sandbox)):
        assert not pids(other)
        assert (other.where, other.timeout, other.memory_mb) == (sandbox.where, 1.0, 128)
        with other:
            assert other.map([3]) == [3.0]
    assert sandbox.map([1]) == [1.0]


def test_several_threads_may_use_it(sandbox):
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: sandbox.map([i] * 5)}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [float(i)] * 5 for i in range(4)}


def test_an_interrupted_batch_leaves_no_stale_answer(sandbox):
    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            sandbox.map(["sleeps", "good", "sleeps"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sandbox.map([1, 2, 3]) == [1.0, 2.0, 3.0]


def test_functions_that_another_process_cannot_find(tmp_path, monkeypatch):
    def local(item):
        return 1.0

    for function in (local, lambda item: 1.0, [].append, 3):
        with pytest.raises(ValueError, match="top of a module"):
            Sandbox(function)
    for where in ("function", ":f", "file.py:"):
        with pytest.raises(ValueError, match="expected `package"):
            Sandbox(where)
    with pytest.raises(ValueError, match="no such file"):
        Sandbox("no/such/file.py:f")
    monkeypatch.setattr(local, "__module__", "__main__")
    monkeypatch.setattr(local, "__qualname__", "local")
    monkeypatch.setattr(sys.modules["__main__"], "local", local, raising=False)
    with pytest.raises(ValueError, match="script that is run"):
        Sandbox(local)
    (tmp_path / "mine.py").write_text("def f(x): return 1.0")
    monkeypatch.chdir(tmp_path)
    assert where_is("mine.py:f") == f"{tmp_path.resolve()}/mine.py:f"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("def judge(x): return 1.0", "did you mean `judge`"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("import os; os._exit(0)", "process ended or hung"),
        ("import no_such_module_here", "no_such_module_here"),
        ("jugde = 3", "not a function"),
        (
            "from textgym.rewards.sandbox import Sandbox\n"
            "Sandbox('math:sqrt').start()\ndef jugde(x): return 1.0",
            "inside a sandbox",
        ),
    ],
)
def test_a_file_that_cannot_be_loaded(tmp_path, text, match):
    (tmp_path / "mine.py").write_text(text)
    sandbox = Sandbox(f"{tmp_path}/mine.py:jugde")
    with pytest.raises(ValueError, match=match):
        sandbox.start()
    assert not pids(sandbox)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"memory_mb": 0}, ValueError),
        ({"file_mb": 1.5}, TypeError),
        ({"processes": 0}, ValueError),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error):
        Sandbox("math:sqrt", **arguments)
