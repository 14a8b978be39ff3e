"""`JSONClient`: many JSON requests to one URL, with retries, limits and a cache."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Self

from textgym.errors import RewardWarning
from textgym.rewards.service.cache import DiskCache, cache_key
from textgym.rewards.service.session import Answer, Failure, Session, shown
from textgym.rewards.service.settings import ServiceSettings


class JSONClient:
    """Posts JSON to a service, many requests at a time, and reads its answers.

    Whatever goes wrong with an item becomes a `Failure` in its place. Connections are opened when
    they are needed first, and served by one background thread, so that it works in a notebook as
    in a script. It can be pickled, and used after a fork: the copy opens its own. The circuit
    breaker (see `ServiceSettings`) tells of itself by a `RewardWarning`.

    Args:
        settings: where the service is, and how hard it may be asked.

    Raises:
        ImportError: without httpx.

    Attributes:
        requests: how many requests have been made, retries not counted.
        cache_hits: how many items have been answered by the cache.

    Example:
        >>> client = JSONClient(ServiceSettings("http://127.0.0.1:9/", retries=0))
        >>> with client:
        ...     [failure] = client.post([1], pack=list, read=lambda answer, count: answer)
        >>> failure.reason
        'http://127.0.0.1:9/ could not be reached: ConnectError All connection attempts failed'
    """

    def __init__(self, settings: ServiceSettings) -> None:
        if importlib.util.find_spec("httpx") is None:
            raise ImportError('asking a service needs httpx: pip install "textgym[rewards]"')
        self.settings = settings
        self.cache = None if settings.cache is None else DiskCache(settings.cache)
        self.requests = 0
        self.cache_hits = 0
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._ending: Any = None

    def post(
        self,
        items: Sequence[Any],
        *,
        pack: Callable[[list[Any]], Any],
        read: Callable[[Any, int], Sequence[Any]],
        size: int = 1,
        tags: Sequence[str] | None = None,
    ) -> list[Any]:
        """Ask the service about `items`; waits for all answers.

        Args:
            items: plain JSON values.
            pack: the body of the request that asks about a list of items.
            read: takes a parsed answer and the number of items asked about; returns for each a
                plain JSON value, which is cached, or a `Failure`, which is not. Raises ValueError
                for an answer that cannot be used at all.
            size: how many items go into one request.
            tags: what else than its body tells an item from others in the cache.

        Returns:
            What was read, or a `Failure`, for each item. With a cache, equal items are asked about
            once.
        """
        keys = self._keys(items, pack, tags)
        values: dict[Any, Any] = self.cache.get(keys) if self.cache else {}
        self.cache_hits += sum(key in values for key in keys)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in values}
        if missing:
            new = self._ask(missing, pack, read, size)
            if self.cache:
                self.cache.put({k: v for k, v in new.items() if not isinstance(v, Failure)})
            values = values | new
        return [values[key] for key in keys]

    def _keys(
        self, items: Sequence[Any], pack: Callable[[list[Any]], Any], tags: Sequence[str] | None
    ) -> list[Any]:
        if self.cache is None:
            return list(range(len(items)))
        url, version = self.settings.url, self.settings.version
        return [
            cache_key(url, version, pack([item]), tag)
            for item, tag in zip(items, tags or [""] * len(items), strict=True)
        ]

    def _ask(
        self,
        missing: dict[Any, Any],
        pack: Callable[[list[Any]], Any],
        read: Callable[[Any, int], Sequence[Any]],
        size: int,
    ) -> dict[Any, Any]:
        keys = list(missing)
        groups = [keys[start : start + size] for start in range(0, len(keys), size)]
        bodies = [json.dumps(pack([missing[k] for k in group])).encode() for group in groups]
        session = self._opened()
        answers = session.send(bodies, self.settings.key())
        self.requests += len(bodies)
        while session.breaker.notes:
            note = f"{self.settings.where}: {session.breaker.notes.pop()}"
            warnings.warn(note, RewardWarning, stacklevel=4)
        values: dict[Any, Any] = {}
        for group, answer in zip(groups, answers, strict=True):
            values |= zip(group, self._read(answer, read, len(group)), strict=True)
        return values

    def _read(
        self, answer: Answer | Failure, read: Callable[[Any, int], Sequence[Any]], count: int
    ) -> list[Any]:
        """What `answer` says of each of `count` items."""
        if isinstance(answer, Failure):
            return [answer] * count
        begin = f"{self.settings.where} answered {answer.status} with {shown(answer.data)}"
        try:
            parsed = json.loads(answer.data)
        except (ValueError, RecursionError):
            return [Failure(f"{begin}, which is not JSON")] * count
        try:
            values = list(read(parsed, count))
            if len(values) != count:
                raise ValueError(f"{len(values)} values where {count} were expected")
        except ValueError as error:
            return [Failure(f"{begin}: {error}")] * count
        return [Failure(f"{begin}: {v.reason}") if isinstance(v, Failure) else v for v in values]

    # ------------------------------------------------------------------ connections
    def _opened(self) -> Session:
        with self._lock:
            if self._session is None or self._session.pid != os.getpid():
                self._session = Session(self.settings)
                # Also as the interpreter ends, or when nobody holds this client any more.
                self._ending = weakref.finalize(self, self._session.close)
            return self._session

    def close(self) -> None:
        """Close the connections and end the thread. They are opened anew where needed again."""
        with self._lock:
            self._session = None
            if self._ending is not None:
                self._ending()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lock": None, "_session": None, "_ending": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
