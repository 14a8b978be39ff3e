"""All cells of a suite, each in a process of its own.

What has ended is on the disk at once, a line a cell. So a run may be stopped in any way, and run
again: cells that are done are not run again.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from textgym_agents.bench.cells import Cell, Command, cell_command
from textgym_agents.bench.processes import MEGABYTE, GuardedProcess, Limits, all_processes
from textgym_agents.bench.records import Record, key_of, parse_line
from textgym_agents.bench.results_file import ResultsFile

ATTEMPTS = 2
LOGS = "logs"
_RUNNING = ".running"
# Seconds between looks at whether a cell has ended, and at its memory.
_POLL, _MEASURE = 0.02, 0.25
# Looking at every process may take at most this share of the time.
_LOOKING = 0.05
_LONGEST_ERROR = 300
# What comes from outside and is no fault of the program; others, such as SIGSEGV, are.
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# One thread a cell: gradients depend on their number, and cells run beside each other. Sets of
# strings have the same order in every process.
ENVIRONMENT = {
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")},
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}


class Observer:
    """What a run tells while it goes on; a display overrides what it shows."""

    def begins(self, cells: Sequence[Cell], done: int) -> None:
        """`cells` will be run; `done` others of those asked for need not be."""

    def starts(self, cell: Cell) -> None:
        """A cell was started."""

    def ends(self, cell: Cell, record: Record, log: Path | None, again: bool) -> None:
        """A cell has ended; `log` is what it wrote, if it failed; it will be run again or not."""

    def note(self, text: str) -> None:
        """There is something to know."""

    def ticks(self) -> None:
        """Some time has passed."""


@dataclass(eq=False)  # compared by identity
class _Attempt:
    cell: Cell
    number: int
    process: GuardedProcess
    record: Path
    log: Path
    started: str


class Runner:
    """Runs cells and writes their records.

    Args:
        results: entered, for as long as this runs.
        jobs: cells at a time.
        limits: of each cell.
        command: makes a command line that runs the cell described on its standard input, and
            leaves the record, one JSON object, in the file it is given.
        observer: is told what happens.
    """

    def __init__(
        self,
        results: ResultsFile,
        *,
        jobs: int = 1,
        limits: Limits | None = None,
        command: Command = cell_command,
        observer: Observer | None = None,
    ) -> None:
        if jobs < 1:
            raise ValueError(f"`jobs` must be at least 1, got {jobs}. Use 1.")
        self.results = results
        self.jobs = jobs
        self.limits = Limits() if limits is None else limits
        self.command = command
        self.observer = Observer() if observer is None else observer
        self._scratch = results.folder / _RUNNING
        self._logs = results.folder / LOGS
        self._running: list[_Attempt] = []
        self._next_look = 0.0

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those of `cells` that have no record with status ok."""
        records = self.results.records
        return [
            cell for cell in cells if cell.key not in records or records[cell.key]["status"] != "ok"
        ]

    def run(self, cells: Sequence[Cell]) -> list[Record]:
        """Run those of `cells` that are not done.

        Returns:
            The newest record of each of `cells`.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM came; the cells that ran were killed.
            OSError: a record could not be written.
        """
        missing = self.missing(cells)
        queue = deque((cell, 1) for cell in missing)
        self.observer.begins(missing, len(cells) - len(missing))
        if missing and self.limits.megabytes is not None and all_processes() is None:
            self.observer.note("There is no /proc here: the limit of memory is not enforced.")
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a run that was killed
        self._scratch.mkdir()
        self._logs.mkdir(exist_ok=True)
        with _Signals() as signals:
            try:
                while queue or self._running:
                    while queue and len(self._running) < self.jobs:
                        self._start(*queue.popleft())
                    self._look(queue)
                    self.observer.ticks()
                    signals.wait(_POLL)
            finally:
                for attempt in self._running:
                    attempt.process.kill()
                self._running.clear()
                shutil.rmtree(self._scratch, ignore_errors=True)
                if not any(self._logs.iterdir()):
                    self._logs.rmdir()
        return [self.results.records[cell.key] for cell in cells]

    # ------------------------------------------------------------------ cells that run
    def _start(self, cell: Cell, number: int) -> None:
        record = self._scratch / f"{cell.file_name}.json"
        record.unlink(missing_ok=True)
        log = log_of(self.results.folder, cell)
        if number == 1:
            log.unlink(missing_ok=True)
        else:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"\n--- attempt {number} ---\n")
        described = self._scratch / f"{cell.file_name}.description.json"
        described.write_text(json.dumps(cell.description()), encoding="utf-8")
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        process = GuardedProcess(
            self.command(record), described, log, os.environ | ENVIRONMENT, self.limits
        )
        self._running.append(_Attempt(cell, number, process, record, log, started))
        self.observer.starts(cell)

    def _look(self, queue: deque[tuple[Cell, int]]) -> None:
        """Record the cells that have ended or went beyond a limit."""
        over = self._over_memory()
        for attempt in list(self._running):
            code = attempt.process.poll()
            if code is not None:
                found = self._left(attempt, code)
            elif attempt in over:
                found = self._beyond(attempt, "memory")
            elif self.limits.seconds is not None and attempt.process.seconds > self.limits.seconds:
                found = self._beyond(attempt, "timeout")
            else:
                continue
            self._running.remove(attempt)
            self._finish(attempt, found, queue)

    def _over_memory(self) -> list[_Attempt]:
        began = time.monotonic()
        if began < self._next_look:
            return []
        processes = all_processes()
        self._next_look = began + max(_MEASURE, (time.monotonic() - began) / _LOOKING)
        if processes is None:
            return []
        used = {attempt: attempt.process.measure(processes) for attempt in self._running}
        most = self.limits.megabytes
        return [a for a, bytes_ in used.items() if most is not None and bytes_ > most * MEGABYTE]

    def _beyond(self, attempt: _Attempt, status: str) -> Record:
        process, limits = attempt.process, self.limits
        process.kill()
        error = (
            f"took longer than {limits.seconds:g} s (--timeout)"
            if status == "timeout"
            else f"used {process.peak_bytes / MEGABYTE:,.0f} MB of memory, "
            f"more than {limits.megabytes:,.0f} (--memory)"
        )
        return _failed(attempt, status, error)

    def _left(self, attempt: _Attempt, code: int) -> Record:
        """The record of a cell whose process has ended: its own, or of what went wrong."""
        if code < 0:
            status = "killed" if -code in _KILLS else "crashed"
            hint = ": was there memory enough?" if -code == signal.SIGKILL else ""
            return _failed(attempt, status, f"ended by the signal {_name(-code)}{hint}")
        said = last_line(attempt.log)
        reason = f"{said} (exit code {code})" if said else f"exit code {code}, without a message"
        if attempt.record.is_file():
            try:
                found = parse_line(attempt.record.read_bytes())
                _check_identity(found, attempt.cell)
            except ValueError as error:
                reason = reason if code else f"left a record that cannot be used: {error}"
            else:
                # One that says ok before it fails is not to be trusted.
                if code == 0 or found["status"] != "ok":
                    return found
        elif not code:
            reason = f"ended without a record{f'; its last line: {said}' if said else ''}"
        return _failed(attempt, "crashed", reason)

    def _finish(self, attempt: _Attempt, found: Record, queue: deque[tuple[Cell, int]]) -> None:
        cell = attempt.cell
        before = self.results.records.get(cell.key)
        earlier = before["attempts"] if before is not None else 0
        record = found | {"attempts": earlier + attempt.number}
        again = record["status"] != "ok" and attempt.number < ATTEMPTS
        log: Path | None = attempt.log
        if record["status"] == "ok":
            attempt.log.unlink(missing_ok=True)
            log = None
        if again:
            queue.append((cell, attempt.number + 1))
        else:
            self.results.append(record)
        self.observer.ends(cell, record, log, again)


def log_of(folder: str | os.PathLike[str], cell: Cell) -> Path:
    """Where the output of `cell` is kept, if it failed."""
    return Path(folder) / LOGS / f"{cell.file_name}.log"


def _failed(attempt: _Attempt, status: str, error: str) -> Record:
    peak = round(attempt.process.peak_bytes / MEGABYTE, 1) or None
    return attempt.cell.failed(status, error, peak, attempt.started)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


def _check_identity(record: Mapping[str, Any], cell: Cell) -> None:
    if key_of(record) != cell.key or record["suite_hash"] != cell.suite_hash:
        raise ValueError(
            f"it is of {key_of(record)} in suite {record['suite_hash']}, expected {cell.key} in "
            f"{cell.suite_hash}."
        )


def last_line(log: Path) -> str:
    """The last line with something on it in a file of text, cut to 300 characters."""
    with log.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 8_192))
        text = stream.read().decode("utf-8", "replace")
    lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
    if not lines:
        return ""
    printable = "".join(c if c.isprintable() else " " for c in lines[-1])
    return " ".join(printable.split())[:_LONGEST_ERROR]


class _Signals:
    """While entered, Ctrl-C and SIGTERM are noted, and raised by `wait`: never within a write."""

    def __init__(self) -> None:
        self._came = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Sleep; `KeyboardInterrupt` where a signal came, now or before."""
        time.sleep(seconds)
        if self._came:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True
