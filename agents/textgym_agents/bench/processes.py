"""A command in a process group of its own, under limits of time and memory.

The group does not outlive the process that started it, not even where that one is killed with
SIGKILL. What has left the group is found by its parents and killed, too, but not after a SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
MEGABYTE = 2**20

# The shell becomes the command. What it leaves behind waits for the end of a pipe that only the
# starting process can write to, and then kills the group. It is started twice removed, so that a
# command that waits for all its children does not wait for it.
_GUARDED = 'exec 3<&0 <"$0"; ((read -r _ <&3; kill -9 0) &); exec "$@" 3<&-'


class ProcessInfo(NamedTuple):
    """What is read of a process; `started` is in ticks, `resident` in bytes."""

    parent: int
    group: int
    session: int
    started: int
    resident: int


def all_processes(proc: Path = PROC) -> dict[int, ProcessInfo] | None:
    """Every process by its id; None where there is no /proc to read them from.

    Source: proc_pid_stat(5).
    """
    if not (proc / "self" / "stat").is_file():
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    found = {}
    for entry in os.scandir(proc):
        if not entry.name.isdecimal():
            continue
        try:
            text = (proc / entry.name / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended meanwhile
        fields = text.rpartition(")")[2].split()  # the name before it may hold anything
        found[int(entry.name)] = ProcessInfo(
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            started=int(fields[19]),
            resident=int(fields[21]) * page,
        )
    return found


@dataclass(frozen=True)
class Limits:
    """What a process may take; None: no limit.

    Args:
        seconds: of wall time.
        megabytes: resident, of the process and all it started, in 2^20 bytes.
    """

    seconds: float | None = None
    megabytes: float | None = None


class GuardedProcess:
    """A command that is running.

    Args:
        command: with its arguments.
        given: the file that is its standard input.
        log: where its output goes, appended.
        environment: of the process.
        limits: what it may take.
    """

    def __init__(
        self,
        command: Sequence[str],
        given: Path,
        log: Path,
        environment: Mapping[str, str],
        limits: Limits,
    ) -> None:
        self.limits = limits
        self.peak_bytes = 0
        self._started = time.monotonic()
        self._members: dict[int, int] = {}
        read, self._pipe = os.pipe()
        try:
            with log.open("ab") as stream:
                self._process = subprocess.Popen(
                    ["sh", "-c", _GUARDED, str(given), *command],
                    stdin=read,
                    stdout=stream,
                    stderr=stream,
                    env=dict(environment),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(read)

    @property
    def pid(self) -> int:
        """Of the command, and of its group."""
        return self._process.pid

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._started

    def poll(self) -> int | None:
        """The exit code, below 0 the number of a signal; None while it runs.

        Once it has ended, whatever it left running is killed.
        """
        code = self._process.poll()
        if code is not None:
            self.kill()
        return code

    def measure(self, processes: Mapping[int, ProcessInfo]) -> int:
        """The resident bytes of the command and all it started; pages they share count in each.

        Args:
            processes: all there are.
        """
        # Those found before stay members when their parents end, unless another has their id.
        members = {
            pid
            for pid, info in processes.items()
            if info.session == self.pid or self._members.get(pid) == info.started
        }
        size = -1
        while size < len(members):
            size = len(members)
            members |= {pid for pid, info in processes.items() if info.parent in members}
        self._members = {pid: processes[pid].started for pid in members}
        resident = sum(processes[pid].resident for pid in members)
        self.peak_bytes = max(self.peak_bytes, resident)
        return resident

    def kill(self) -> None:
        """End it, and all it started, at once."""
        if self._pipe < 0:
            return
        processes = all_processes()
        if processes is not None:
            self.measure(processes)
            for pid in self._members:
                if processes[pid].group != self.pid:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
        # The guard is in the group until now, so that its id cannot have gone to another.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._pipe)
        self._pipe = -1
