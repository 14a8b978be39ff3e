"""`Code`: your own function as a reward, in processes of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.sandbox import Sandbox, SandboxReward
from textgym.rewards.sandbox_handle import Failed

_MOST = float(np.finfo(np.float32).max)


class Code(SandboxReward):
    """What your function of one episode returns, wherever it does so in time.

    The function is called in other processes, under limits: one that hangs, crashes, raises,
    takes too much memory or returns no number costs that one episode its reward, for which
    `fallback` is paid, with a `RewardWarning` that says why. So does a value outside `range`: it is
    not clipped, since the function then is not what it was declared to be. Unlike ``python:``
    rewards it cannot stop the training; in return a call takes milliseconds, and the function sees
    nothing of the training process. See `Sandbox` for what a call may do (it is no protection
    against hostile code), and for why slow things are to be loaded at the top of the file.

    What maximises it is up to the function. Failing must not pay: choose `fallback` at the lower
    end of what the function gives.

    Args:
        where: ``"path/to/file.py:function"`` or ``"package.module:function"``, or a function at the
            top of an importable module; it takes an `Episode` and returns a number.
        timeout: seconds it may take for an episode.
        memory_mb: MiB it may take for an episode, beyond those it has once loaded.
        file_mb: MiB that a file it writes may have, and all that it prints.
        processes: how many episodes are judged at the same time.
        fallback: what an episode is paid that could not be judged; in `range`.
        range: the least and the greatest value it may give; in a specification ``range=-1|1``.
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: where there is no such function, or it cannot be loaded.

    Example:
        >>> from textgym.episode import Instance
        >>> words = Code("textgym.rewards.code:example", range=(0, 100), processes=1)
        >>> ids = np.arange(2)
        >>> float(words([Episode(Instance("Say"), ids, ids > 0, "hi there", (), "stop")])[0])
        2.0
        >>> words.close()
    """

    def __init__(
        self,
        where: str | Callable[[Episode], Any],
        *,
        timeout: float = 5.0,
        memory_mb: int = 512,
        file_mb: int = 1,
        processes: int = 4,
        fallback: float = 0.0,
        range: tuple[float, float] = (0.0, 1.0),
        name: str = "code",
    ) -> None:
        if len(range) != 2 or not range[0] <= range[1]:
            raise ValueError(f"`range` must be the least and the greatest value, got {range!r}.")
        if not (math.isfinite(fallback) and range[0] <= fallback <= range[1]):
            raise ValueError(f"`fallback` must be a number in {range!r}, got {fallback!r}.")
        self.sandbox = Sandbox(
            where, timeout=timeout, memory_mb=memory_mb, file_mb=file_mb, processes=processes
        )
        self.fallback = float(fallback)
        # As float32 has them, so that no value it is paid as lies outside.
        self.range = (float(np.float32(range[0])), float(np.float32(range[1])))
        self.name = name
        self.sandbox.start()  # tells at once if the function cannot be loaded

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in `range`."""
        return self.judged(episodes, episodes)

    def checked(self, value: float) -> float | Failed:
        """`value`, if it is in `range` and float32 can hold it."""
        number = np.float64(value).astype(np.float32) if abs(value) < _MOST else math.inf
        # The bounds are float32, too: a bound that was missed by rounding is not missed.
        if math.isfinite(number) and self.range[0] <= number <= self.range[1]:
            return value
        low, high = self.range
        return Failed(
            f"it returned {value:g}, which is not in its range {low:g} to {high:g}. Declare that "
            'as it is: `range=(-1, 1)`, or "range=-1|1" in a specification'
        )


def example(episode: Episode) -> int:
    """The number of words: the function of the example above."""
    return len(episode.completion_text.split())
