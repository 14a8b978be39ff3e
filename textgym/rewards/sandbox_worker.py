"""What a worker process of a `Sandbox` does: load a function, then fork for every call of it.

The worker itself runs none of the code it judges, once loaded, and so can always end it. Run as
``python -m textgym.rewards.sandbox_worker`` with a socket as standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import math
import os
import pickle
import random
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from textgym.rewards.function import load_attribute
from textgym.rewards.sandbox_handle import LOADING, receive_frame, send_frame

MOST_PROCESSES = 64
MOST_OPEN_FILES = 64

_TICK = 0.05  # seconds between looks at a running call
_LONGEST_REASON = 1000
_DIES_WITH_PARENT, _ADOPTS_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER


def main() -> None:
    """Serve the calling process until it closes the socket or ends."""
    parent = os.getppid()
    channel = socket.socket(fileno=os.dup(0))
    _onto(os.open(os.devnull, os.O_RDONLY), 0)
    settings = pickle.loads(receive_frame(channel))
    worker: Worker | None = None
    problem: str | None = None
    signal.alarm(math.ceil(LOADING))  # ends this process, should loading hang
    try:
        worker = Worker(channel, parent, settings)
    except BaseException as error:  # a user's module may raise anything, SystemExit too
        problem = str(error) if isinstance(error, ValueError) else told(error)
    signal.alarm(0)
    try:
        send_frame(channel, pickle.dumps(problem))
        if worker is not None:
            worker.serve()
    except (EOFError, OSError):
        pass  # the caller has gone
    finally:
        shutil.rmtree(settings["folder"], ignore_errors=True)
    os._exit(0)  # nothing a user's module has registered for the end is of use here


class Worker:
    """Answers requests, each in a fork of this process.

    Args:
        channel: leads to the calling process.
        parent: the id of the calling process.
        settings: see `Sandbox._settings`; also the folder to use.
    """

    def __init__(self, channel: socket.socket, parent: int, settings: dict[str, Any]) -> None:
        self.channel = channel
        self.parent = parent
        self.settings = settings
        self.function: Callable[[Any], Any] = load_attribute(settings["function"])
        if not callable(self.function):
            raise ValueError(f"{settings['function']} is {self.function!r}, not a function.")
        if settings["set_up"] is not None:
            load_attribute(settings["set_up"])()
        importlib.import_module("textgym.episode")
        _prctl(_ADOPTS_ORPHANS, 1)
        self.own_children = _children_of(os.getpid()) if _has_children() else set()
        self.random_state = random.getstate()
        gc.collect()
        gc.freeze()  # a fork then shares more memory with this process

    def serve(self) -> None:
        """Answer requests until there is nobody to ask.

        Raises:
            EOFError: once the calling process has closed the socket.
        """
        while True:
            _readable([self.channel], 1.0)
            if os.getppid() != self.parent:
                raise EOFError
            if _readable([self.channel], 0.0):
                request = receive_frame(self.channel)
                send_frame(self.channel, pickle.dumps(self.judge(request)))

    def judge(self, request: bytes) -> tuple[float | None, str]:
        """The value of the pickled item `request`, or None and the reason."""
        folder = tempfile.mkdtemp(dir=self.settings["folder"])
        with tempfile.TemporaryFile(dir=self.settings["folder"]) as output:
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                self._run(request, folder, output.fileno(), reading, writing)
            os.close(writing)
            with contextlib.suppress(OSError):
                os.setpgid(child, child)  # in both, since either may be first
            try:
                return self._await(child, reading)
            finally:
                os.close(reading)
                self._end(child)
                with contextlib.suppress(Exception):  # RecursionError, where folders nest deeply
                    shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------------ in the fork
    def _run(
        self, request: bytes, folder: str, output: int, reading: int, writing: int
    ) -> NoReturn:
        """Judge, as a fork, and write the outcome to `writing`."""
        try:
            os.setpgid(0, 0)
            _prctl(_DIES_WITH_PARENT, signal.SIGKILL)
            os.close(reading)
            self.channel.close()
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(folder)
            os.environ.update(HOME=folder, TMPDIR=folder)
            tempfile.tempdir = None
            random.setstate(self.random_state)  # Python seeds anew in a fork
            limit(self.settings)
            outcome = self._outcome(request)
            os.write(writing, json.dumps(outcome).encode() + b"\n")
        finally:
            os._exit(70)

    def _outcome(self, request: bytes) -> tuple[float | None, str]:
        file_mb, memory_mb = self.settings["file"] >> 20, self.settings["memory"] >> 20
        try:
            value = as_number(self.function(pickle.loads(request)))
            sys.stdout.flush()
            sys.stderr.flush()
            return value, ""
        except MemoryError:
            return None, f"it needed more than {memory_mb} MB of memory"
        except BaseException as error:
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                return None, f"it wrote more than {file_mb} MB to a file, or printed as much"
            return None, told(error)

    # ------------------------------------------------------------------ beside the fork
    def _await(self, child: int, reading: int) -> tuple[float | None, str]:
        """The outcome that `child` writes to `reading`, or what became of it."""
        deadline = time.monotonic() + self.settings["timeout"]
        data = b""
        sources: list[Any] = [reading, self.channel]
        tick = _TICK
        while (now := time.monotonic()) < deadline:
            ready = _readable(sources, min(tick, deadline - now))
            if self.channel in ready or os.getppid() != self.parent:
                raise EOFError  # nothing more is asked before this is answered: it was closed
            if reading in ready:
                part = os.read(reading, 1 << 16)
                data += part
                if data.endswith(b"\n"):
                    return _read_outcome(data)
                if not part:
                    sources.remove(reading)
                    tick = 0.001  # it has died, unless it closed the pipe
                continue
            ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                return None, _how_it_ended(ended.si_code, ended.si_status)
            if _count_below(child) > MOST_PROCESSES:
                return None, f"it started more than {MOST_PROCESSES} processes"
        return None, f"it took longer than {self.settings['timeout']:g} s"

    def _end(self, child: int) -> None:
        """Kill `child` and all that it has started."""
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
        # Those that left its group are this process's children by now: it adopts orphans.
        while _has_children():
            left = _children_of(os.getpid()) - self.own_children
            if not left:
                return
            for process in left:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)


def limit(settings: dict[str, Any]) -> None:
    """Set the limits of this process and its children, as far as the system knows them."""
    import resource

    seconds = math.ceil(settings["timeout"]) + 1
    used = _address_space()
    limits = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": settings["file"],
        "RLIMIT_NOFILE": MOST_OPEN_FILES,
        "RLIMIT_CORE": 0,
    }
    if used is not None:
        limits["RLIMIT_AS"] = used + settings["memory"]
    for name, most in limits.items():
        if hasattr(resource, name):
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            with contextlib.suppress(ValueError, OSError):  # macOS refuses some
                resource.setrlimit(kind, (most, most))


def as_number(value: Any) -> float:
    """`value` as a finite float.

    Raises:
        TypeError: where it is not a number (True and False are; numpy's and torch's, too).
        ValueError: where it is not finite.
    """
    if hasattr(value, "item") and not isinstance(value, type):
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError(f"it returned {_shown(value)}, expected a number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"it returned {number}, expected a finite number")
    return number


def told(error: BaseException) -> str:
    """What `error` says, whatever it is, in at most 1000 characters."""
    try:
        text = str(error)
    except BaseException:
        text = "(an error that cannot be shown)"
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:_LONGEST_REASON]


def _shown(value: Any) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"a {kind}"


def _read_outcome(line: bytes) -> tuple[float | None, str]:
    try:
        value, reason = json.loads(line)
        return None if value is None else float(value), str(reason)
    except (TypeError, ValueError):  # it has come upon the pipe, and written something else
        return None, "it wrote what is no result"


def _how_it_ended(code: int, status: int) -> str:
    if code == os.CLD_EXITED:
        return f"its process ended with exit code {status}, without a result"
    if status == getattr(signal, "SIGXCPU", None):
        return "it took too much processor time"
    with contextlib.suppress(ValueError):
        return f"its process crashed ({signal.Signals(status).name})"
    return f"its process crashed (signal {status})"


def _address_space() -> int | None:
    """Bytes of address space this process has; None where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _LIBC.prctl(option, value, 0, 0, 0)


_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def _readable(sources: list[Any], seconds: float) -> list[Any]:
    return select.select(sources, [], [], seconds)[0]


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _parents() -> dict[int, int]:
    """The parent of every process; empty where the system does not tell."""
    found: dict[int, int] = {}
    if sys.platform == "linux":
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with (
                    contextlib.suppress(OSError, ValueError),
                    open(f"/proc/{entry}/stat", "rb") as f,
                ):
                    # The name, in parentheses, may hold anything.
                    found[int(entry)] = int(f.read().rpartition(b")")[2].split()[1])
    return found


def _children_of(process: int) -> set[int]:
    return {child for child, parent in _parents().items() if parent == process}


def _count_below(process: int) -> int:
    """How many processes descend from `process`."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    count, left = 0, [process]
    while left:
        below = children.get(left.pop(), [])
        count += len(below)
        left += below
    return count


def _onto(descriptor: int, place: int) -> None:
    os.dup2(descriptor, place)
    os.close(descriptor)


if __name__ == "__main__":
    main()
