import os
import sys
import time
from pathlib import Path

import pytest

from textgym.suites import Suite, SuiteTask

FAKE = Path(__file__).parent / "fake_cell.py"


@pytest.fixture
def suite():
    tasks = [SuiteTask(name, "textgym/TokenLock-v0", {}, 100, 4, 2) for name in ("first", "second")]
    return Suite("tiny", "Of two tasks.", tuple(tasks), seeds=(0, 1))


@pytest.fixture
def fake(tmp_path):
    """The command of a fake cell; `fake.notes(kind)` is what cells noted: pairs (time, pid)."""
    folder = tmp_path / "notes"
    folder.mkdir()

    def command(record):
        return [sys.executable, "-I", "-S", str(FAKE), str(folder), str(record)]

    def notes(kind):
        file = folder / "notes.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [line.split() for line in lines]
        return [(float(at), int(pid)) for found, at, pid in rows if found == kind]

    command.notes = notes
    return command


@pytest.fixture
def all_gone():
    """Whether the processes of some notes are gone, after two seconds at most."""

    def check(notes):
        until = time.monotonic() + 2
        while time.monotonic() < until:
            if not any(_runs(pid) for _, pid in notes):
                return True
            time.sleep(0.02)
        return False

    return check


def _runs(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
