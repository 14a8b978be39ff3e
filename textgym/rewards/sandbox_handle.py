"""One worker process of a `Sandbox`, as the calling process sees it."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Seconds: to load the function, and to hear from a worker beyond the time that the function has.
LOADING = 60.0
GRACE = 10.0
# Set in workers, where no further sandbox may be made: a file that makes one when it is imported
# would otherwise start processes without end.
INSIDE = "TEXTGYM_INSIDE_SANDBOX"

_LENGTH = struct.Struct(">Q")
# One thread each: workers already run side by side, and threads reserve much memory.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Failed:
    """The outcome of a call that gave no value, and why."""

    reason: str


def send_frame(channel: socket.socket, data: bytes) -> None:
    """Send `data` so that `receive_frame` knows where it ends."""
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive_frame(channel: socket.socket) -> bytes:
    """What `send_frame` sent.

    Raises:
        EOFError: where the other end was closed instead.
    """
    (length,) = _LENGTH.unpack(_receive(channel, _LENGTH.size))
    return _receive(channel, length)


def _receive(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = channel.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


class WorkerHandle:
    """The calling process's end of one worker process.

    Args:
        settings: what `sandbox_worker.Worker` takes, without the folder.

    Attributes:
        index: which item it is busy with; None while idle.
        deadline: when to give it up.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        if os.environ.get(INSIDE):
            raise ValueError("a sandbox was to be started inside a sandbox. Make it elsewhere.")
        self.index: int | None = None
        self.deadline = 0.0
        self.folder = tempfile.mkdtemp(prefix="textgym-sandbox-")
        self.channel, theirs = socket.socketpair()
        self._log = Path(self.folder, "log")
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        kept = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        environment = {key: os.environ[key] for key in kept if key in os.environ} | {
            "PYTHONPATH": path,
            "PYTHONHASHSEED": "0",  # sets are then in the same order in all workers
            "PYTHONUTF8": "1",
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
            INSIDE: "1",
            **dict.fromkeys(_THREADS, "1"),
        }
        with theirs, self._log.open("wb") as log:
            # -P: the current directory is not searched for modules.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "textgym.rewards.sandbox_worker"],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        self.channel.settimeout(LOADING + GRACE)
        with contextlib.suppress(OSError):  # it has died, which `wait_until_ready` will tell
            send_frame(self.channel, pickle.dumps({**settings, "folder": self.folder}))

    def wait_until_ready(self) -> None:
        """Return once the function is loaded.

        Raises:
            ValueError: where it cannot be.
        """
        try:
            problem = pickle.loads(receive_frame(self.channel))
        except (EOFError, OSError):
            log = self._log.read_text("utf-8", "replace")[-2000:].strip()
            problem = f"its process ended or hung while loading it (in {LOADING:g} s). {log}"
        self.channel.settimeout(GRACE)
        if problem is not None:
            raise ValueError(problem.strip())

    def lives(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def ask(self, index: int, request: bytes, seconds: float) -> None:
        """Send a request; its answer is awaited for `seconds`."""
        self.index, self.deadline = index, time.monotonic() + seconds
        send_frame(self.channel, request)

    def answer(self) -> float | Failed | None:
        """The answer that has come; None where the process ended instead."""
        try:
            value, reason = pickle.loads(receive_frame(self.channel))
        except (EOFError, OSError):
            return None
        return Failed(reason) if value is None else float(value)

    def close(self) -> None:
        """End the process, gently so that it ends what it has started; delete its folder."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def forget(self) -> None:
        """Leave the process to its owner, from which this one was forked."""
        self.channel.close()
        self.process.returncode = 0  # else Popen would look for, and warn of, a foreign process
