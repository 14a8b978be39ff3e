"""Writing results: one process at a time, a line a record, no line that is half written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from textgym_agents.bench.records import RESULTS, Key, Record, key_of, newest, read_lines

_LOCK = ".lock"


class ResultsFile:
    """``FOLDER/results.jsonl``, locked while entered.

    The system drops the lock when its process ends, however it ends: a lock file that was left
    behind locks nothing.

    Args:
        folder: made where it is missing.
        suite: name of the suite whose results go here.
        suite_hash: its hash.
    """

    def __init__(self, folder: str | os.PathLike[str], suite: str, suite_hash: str) -> None:
        self.folder = Path(folder)
        self.file = self.folder / RESULTS
        self.records: dict[Key, Record] = {}
        self._suite = (suite, suite_hash)
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Lock the folder and read what is in it.

        Raises:
            NotADirectoryError: the folder is a file.
            BlockingIOError: another process writes here.
            ValueError: the results in it are of another suite, or a line is no record.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is a file; expected a folder. Name another.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            self._repair()
            self.records = newest(read_lines(self.file)) if self.file.exists() else {}
            self._check_suite()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            os.close(self._lock)  # and with it the lock
            self._lock = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns.

        Raises:
            OSError: it cannot be written, as where the disk is full; the file is as it was.
        """
        if self._lock is None:
            raise RuntimeError("the results must be entered (`with results:`) to be written to.")
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        with self.file.open("ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            try:
                data = memoryview(line.encode("utf-8", "replace") + b"\n")
                while data:
                    data = data[stream.write(data) :]
                os.fsync(stream.fileno())
            except OSError:
                stream.truncate(before)
                raise
        self.records[key_of(record)] = dict(record)

    # ------------------------------------------------------------------ opening
    def _locked(self) -> int:
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise OSError(
                    error.errno,
                    f"{self.folder} cannot be locked ({error.strerror}). Name a folder on a local "
                    "disk",
                ) from error
            raise BlockingIOError(
                f"another `textgym bench run` (process {owner or 'unknown'}) writes to "
                f"{self.folder}. Wait for its end, or name another folder."
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def _repair(self) -> None:
        """Drop a last line without its end: its writer was killed."""
        if not self.file.exists():
            return
        with self.file.open("rb+") as stream:
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                stream.truncate(whole)
                os.fsync(stream.fileno())

    def _check_suite(self) -> None:
        name, found = self._suite
        for record in self.records.values():
            if record["suite_hash"] != found:
                raise ValueError(
                    f"{self.folder} holds results of suite {record['suite']} "
                    f"({record['suite_hash']}), not of {name} ({found}). Name another folder for "
                    "these."
                )
            return  # `read_lines` found that they are all of one
