"""`DiskCache`: answers kept in a file that several processes may share."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from textgym.errors import RewardWarning

_TABLE = "textgym_answers"
_KEYS_A_QUERY = 500
_BUSY_SECONDS = 10.0


class DiskCache:
    """Plain values by key, in an SQLite file.

    Never a reason to stop: a file that cannot be used is warned of once, and done without.
    Each call opens the file anew, so that it can be pickled and used after a fork.

    Args:
        path: the file; made where there is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = DiskCache(f"{folder}/answers.sqlite")
        ...     cache.put({"a": 0.5})
        ...     cache.get(["a", "b"])
        {'a': 0.5}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self.usable = True

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values that are there of `keys`."""
        found: dict[str, Any] = {}

        def look(database: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _KEYS_A_QUERY):
                some = keys[start : start + _KEYS_A_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, value FROM {_TABLE} WHERE key IN ({marks})"
                for key, value in database.execute(query, some):
                    # What cannot be read is as good as not there.
                    with suppress(TypeError, ValueError, RecursionError):
                        found[key] = json.loads(value)

        self._use(look)
        return found

    def put(self, values: Mapping[str, Any]) -> None:
        """Keep `values`, which JSON can write."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        query = f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?)"
        if rows:
            self._use(lambda database: database.executemany(query, rows))

    def _use(self, work: Callable[[sqlite3.Connection], object]) -> None:
        if not self.usable:
            return
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as database, database:
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS {_TABLE} (key TEXT PRIMARY KEY, value TEXT)"
                )
                work(database)
        except sqlite3.Error as error:
            # Too busy for once is no reason to do without it from now on.
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            self.usable = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not self.usable:
                warnings.warn(
                    f"the cache {self.path} cannot be used ({error}): going on without it. Delete "
                    "the file, or name another.",
                    RewardWarning,
                    stacklevel=5,
                )


def cache_key(url: str, version: str, body: Any, tag: str) -> str:
    """What the answer to `body` is kept under: a hash, so that no text of it is in the file."""
    text = json.dumps([1, url, version, body, tag], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
