"""`ScoringPool`: threads that judge episodes while something else goes on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards import Reward
from textgym.rewards.terms import RewardTerm, evaluate

# How long a wait may be deaf to Ctrl-C, where the system lets it be.
_PATIENCE = 1.0


class _Call:
    """One call of a reward."""

    def __init__(self, reward: Reward, episodes: Sequence[Episode]) -> None:
        self.reward = reward
        self.episodes = episodes
        self.values: NDArray[np.float64] | None = None  # None also after a failure
        self.began: float | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Judge; what goes wrong here is found again, and told, where the scores are asked for."""
        self.began = time.monotonic()
        try:
            values, error = evaluate(self.reward, self.reward.name, self.episodes)
            self.values = values if error is None else None
        except BaseException:  # a reward may raise anything, and must not end the thread
            self.values = None
        finally:
            self.done.set()

    def in_time(self) -> bool:
        """Wait for its end; False once it has taken longer than the reward's `timeout`."""
        limit = self.reward.timeout
        while not self.done.is_set():
            wait = _PATIENCE
            if limit is not None and self.began is not None:
                left = self.began + limit - time.monotonic()
                if left <= 0:
                    return False
                wait = min(wait, left)
            self.done.wait(wait)
        return True


class Scores:
    """Scores of some episodes by one reward, once they are there.

    Args:
        term: the reward.
        episodes: whom it judges.
        calls: how the work is shared out, in the order of the episodes.
    """

    def __init__(
        self, term: RewardTerm, episodes: Sequence[Episode], calls: Sequence[_Call]
    ) -> None:
        self.term = term
        self.episodes = episodes
        self.calls = calls

    def values(self) -> NDArray[np.float64]:
        """`[n] float64`, unweighted; call `ScoringPool.wait` first.

        Where a call failed or was given up, all are judged here and now, as they would have been
        without threads.

        Raises:
            RewardError: and so does that; its `row` is the position among the episodes.
        """
        found = [call.values for call in self.calls if call.done.is_set()]
        known = [values for values in found if values is not None]
        if len(known) == len(self.calls):
            return np.concatenate(known)
        values, error = evaluate(self.term.reward, self.term.name, self.episodes)
        if error is not None:
            raise error
        return values


class ScoringPool:
    """Threads that judge episodes.

    A reward that is `thread_safe` is asked by all of them, each about a share of the episodes. All
    others have one thread together, which makes the very calls, in the very order, that would be
    made without threads.

    The threads are daemons: a call that hangs keeps nobody from leaving.

    Args:
        workers: how many threads share the rewards that are safe.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._begin()

    def _begin(self) -> None:
        self._shared = _Threads(self.workers)
        self._single = _Threads(1)

    def submit(self, term: RewardTerm, episodes: Sequence[Episode]) -> Scores:
        """Have `episodes`, at least one, judged by `term`, which must not be per-token."""
        threads, size = self._single, len(episodes)
        if term.reward.thread_safe:
            threads, size = self._shared, -(-len(episodes) // self.workers)
        calls = [
            _Call(term.reward, episodes[first : first + size])
            for first in range(0, len(episodes), size)
        ]
        for call in calls:
            threads.put(call)
        return Scores(term, episodes, calls)

    def wait(self, scores: Iterable[Scores]) -> None:
        """Wait for `scores`, in the order in which they were submitted.

        After a call that takes longer than its reward's `timeout`, the rest is not waited for: new
        threads take the place of those that may hang.
        """
        if not all(call.in_time() for some in scores for call in some.calls):
            self.close()
            self._begin()

    def close(self) -> None:
        """Let the threads end; calls that have not begun are never made."""
        self._shared.close()
        self._single.close()


class _Threads:
    """Daemon threads that make the calls put to them, oldest first; started when needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()

    def put(self, call: _Call) -> None:
        """Make `call` when its turn comes."""
        if not self._threads:
            for number in range(self._count):
                thread = threading.Thread(
                    target=_work, args=(self._calls,), name=f"textgym-scoring-{number}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
        self._calls.put(call)

    def close(self) -> None:
        """End the threads, each after the call it is making."""
        try:
            while True:
                self._calls.get_nowait()
        except queue.Empty:
            pass
        for _ in self._threads:
            self._calls.put(None)
        self._threads = []


def _work(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()
