"""`Sandbox`: call a function in processes of its own, under limits, many items at a time."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.fallible import Fallible
from textgym.rewards.sandbox_handle import GRACE, Failed, WorkerHandle


class Sandbox:
    """Calls a function of one item in other processes, under limits; each item on its own.

    A worker is a fresh Python that loads the function once and then forks for every item, so that
    nothing an item does reaches another: each finds the function's module, its random generators
    included, as loading left it. (Load what takes long at the top of the module, therefore, not in
    the first call.) Workers know nothing of the calling script, its threads or its open files, and
    have few environment variables (PATH, HOME, the search path of modules). They start when they
    are first needed and end with the calling process, even if that is killed.

    Every call has an empty folder of its own as current directory, deleted afterwards; no standard
    input; and what it prints is not shown. It fails, alone, if it raises, returns no finite
    number, crashes, or exceeds a limit; processes that it leaves behind are killed.

    **This guards against accidents, not against hostile code.** A call runs with your rights: it
    can read your files, write wherever you can and use the network. To run code you do not trust
    at all, run the whole training in a container or virtual machine.

    Limits are the system's (``setrlimit``), for each process that a call starts. Those that the
    system lacks are skipped: macOS has no limit on memory. Linux' limit on the number of
    processes is not used, since it counts all of a user's and does not hold for root; instead, a
    call with more than 64 processes is killed, as soon as that is seen (twenty times a second;
    Linux only). Neither the number of files nor their sum is limited. Not for Windows.

    Args:
        function: what takes an item and returns a number: a function at the top of an importable
            module (not of the script that is run), ``"package.module:function"``, or
            ``"path/to/file.py:function"``.
        timeout: seconds a call may take, by the clock; its processor time is limited to about the
            same.
        memory_mb: MiB of memory a call may take beyond what the loaded function has.
        file_mb: MiB that a file it writes may have, and all that it prints.
        processes: how many calls run at the same time.
        set_up: ``"package.module:function"``, called without arguments when a worker has started.

    Raises:
        ValueError: where the function cannot be reached from another process. That there is such
            a function is checked by `start`.

    Example:
        >>> with Sandbox("math:sqrt", processes=1) as sandbox:
        ...     sandbox.map([9.0, -1.0])
        [3.0, Failed(reason='ValueError: math domain error')]
    """

    def __init__(
        self,
        function: str | Callable[[Any], Any],
        *,
        timeout: float = 5.0,
        memory_mb: int = 512,
        file_mb: int = 1,
        processes: int = 4,
        set_up: str | None = None,
    ) -> None:
        if os.name != "posix":
            raise ValueError("a sandbox needs Linux or macOS. On Windows use `python:` rewards.")
        if not 0 < timeout < float("inf"):
            raise ValueError(f"`timeout` must be a number of seconds above 0, got {timeout!r}.")
        self.where = where_is(function)
        self.timeout = float(timeout)
        self.memory_mb = check_positive_int("memory_mb", memory_mb)
        self.file_mb = check_positive_int("file_mb", file_mb)
        self.processes = check_positive_int("processes", processes)
        self.set_up = set_up
        self._begin()

    def _begin(self) -> None:
        """No workers yet, in this process."""
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[WorkerHandle] = []
        self._finalizer = weakref.finalize(self, _close_all, self._workers, self._owner)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next call starts new ones."""
        if os.getpid() == self._owner:
            with self._lock:
                _close_all(self._workers, self._owner)

    def start(self) -> None:
        """Start a worker, if there is none, to see that the function can be loaded.

        Raises:
            ValueError: where it cannot, saying why.
        """
        self.map([], at_least=1)

    def map(self, items: Sequence[Any], *, at_least: int = 0) -> list[float | Failed]:
        """What the function returns for each of `items`, or why it returned nothing.

        Args:
            items: what can be pickled.
            at_least: how many workers to have afterwards, even if no item needs them.

        Raises:
            ValueError: where the function cannot be loaded.
        """
        if os.getpid() != self._owner:  # forked: the workers are the parent's
            for worker in self._workers:
                worker.forget()
            self._begin()
        outcomes: list[float | Failed] = [Failed("it was not judged")] * len(items)
        requests: deque[tuple[int, bytes]] = deque()
        for i, item in enumerate(items):
            try:
                requests.append((i, pickle.dumps(item)))
            except Exception as error:  # whatever a user's class raises
                outcomes[i] = Failed(f"it cannot be sent to another process: {_told(error)}")
        with self._lock:
            self._have(max(at_least, min(self.processes, len(requests))))
            try:
                self._serve(requests, outcomes)
            except BaseException:
                # An answer that nobody waits for would be taken for that to the next question.
                for worker in [w for w in self._workers if w.index is not None]:
                    worker.close()
                    self._workers.remove(worker)
                raise
        return outcomes

    def _have(self, count: int) -> None:
        """Have at least `count` workers, none dead that is idle."""
        for worker in [w for w in self._workers if w.index is None and not w.lives()]:
            worker.close()
            self._workers.remove(worker)
        new = [WorkerHandle(self._settings()) for _ in range(count - len(self._workers))]
        self._workers += new
        try:
            for worker in new:
                worker.wait_until_ready()
        except BaseException:
            for worker in new:
                worker.close()
                self._workers.remove(worker)
            raise

    def _settings(self) -> dict[str, Any]:
        return {
            "function": self.where,
            "set_up": self.set_up,
            "timeout": self.timeout,
            "memory": self.memory_mb << 20,
            "file": self.file_mb << 20,
        }

    def _serve(self, requests: deque[tuple[int, bytes]], outcomes: list[float | Failed]) -> None:
        """Fill `outcomes` with the answers to `requests`."""
        with selectors.DefaultSelector() as selector:
            while True:
                while requests and (idle := [w for w in self._workers if w.index is None]):
                    worker = self._ask(idle[0], *requests.popleft())
                    selector.register(worker.channel, selectors.EVENT_READ, worker)
                busy = [w for w in self._workers if w.index is not None]
                if not busy:
                    return
                wait = min(w.deadline for w in busy) - time.monotonic()
                ready = {key.data for key, _ in selector.select(max(0.0, wait))}
                now = time.monotonic()
                for worker in busy:
                    if worker not in ready and now < worker.deadline:
                        continue
                    outcome = worker.answer() if worker in ready else None
                    selector.unregister(worker.channel)
                    if outcome is None:
                        outcomes[worker.index or 0] = Failed("its process was lost")
                        self._replace(worker)
                    else:
                        outcomes[worker.index or 0] = outcome
                        worker.index = None

    def _ask(self, worker: WorkerHandle, index: int, request: bytes) -> WorkerHandle:
        """Ask `worker`, or one in its place if it has died while it was idle."""
        if not worker.lives():
            worker = self._replace(worker)
        with contextlib.suppress(OSError):  # it has died just now: its answer will be none
            worker.ask(index, request, self.timeout + GRACE)
        return worker

    def _replace(self, worker: WorkerHandle) -> WorkerHandle:
        worker.close()
        self._workers.remove(worker)
        self._have(len(self._workers) + 1)
        return self._workers[-1]


class SandboxReward(Fallible):
    """What rewards have in common that judge every episode in a `Sandbox`.

    Attributes:
        sandbox: where; set by the constructor.
    """

    sandbox: Sandbox

    def judged(self, episodes: Sequence[Episode], items: Sequence[Any]) -> NDArray[np.float32]:
        """`[B] float32`, what the sandbox makes of `items`, one an episode, or the fallback."""
        values = []
        for episode, outcome in zip(episodes, self.sandbox.map(items), strict=True):
            if not isinstance(outcome, Failed):
                outcome = self.checked(outcome)
            if isinstance(outcome, Failed):
                outcome = self.failed(episode, outcome.reason)
            values.append(outcome)
        return np.array(values, np.float32)

    def checked(self, value: float) -> float | Failed:
        """`value`, or why it cannot be paid."""
        return value

    def close(self) -> None:
        """End its processes; the next call starts new ones."""
        self.sandbox.close()


def where_is(function: str | Callable[[Any], Any]) -> str:
    """``module:function`` or ``/absolute/path.py:function``, by which another process finds it.

    Raises:
        ValueError: where no other process could.

    Example:
        >>> where_is(max)
        'builtins:max'
    """
    if isinstance(function, str):
        place, _, name = function.rpartition(":")
        if not place or not name:
            raise ValueError(
                "expected `package.module:function` or `path/to/file.py:function`, "
                f"got {function!r}."
            )
        if not place.endswith(".py"):
            return function
        if not Path(place).is_file():
            raise ValueError(f"no such file: {place}")
        return f"{Path(place).resolve()}:{name}"
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    if (
        not name.isidentifier()
        or getattr(sys.modules.get(module or ""), name, None) is not function
    ):
        raise ValueError(f"{function!r} is not a function at the top of a module. Make it one.")
    if module == "__main__":
        raise ValueError(
            f"`{name}` stands in the script that is run, which other processes must not run again. "
            f'Put it in a file of its own and give "path/to/file.py:{name}".'
        )
    return f"{module}:{name}"


def _close_all(workers: list[WorkerHandle], owner: int) -> None:
    if os.getpid() == owner:
        while workers:
            workers.pop().close()


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
