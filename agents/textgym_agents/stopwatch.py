"""`Stopwatch`: where time goes, from the outside: functions are wrapped while it runs."""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

# What belongs to no section.
OTHER = "other"

_MISSING = object()


class Stopwatch:
    """Shares out the time of one thread among sections; their sum is the time it ran.

    A section that begins within another takes the time from it until it ends. A *whole* one keeps
    what happens in it, sections included.

    Args:
        clock: seconds; give one that waits for an accelerator where there is one.

    Attributes:
        seconds: of each section so far.

    Example:
        >>> ticks = iter(range(10))
        >>> class Oven:
        ...     def bake(self): self.heat()
        ...     def heat(self): pass
        >>> watch = Stopwatch(lambda: next(ticks))
        >>> watch.wrap(Oven, "bake", "baking")
        >>> watch.wrap(Oven, "heat", "heating")
        >>> watch.start(); Oven().bake(); watch.stop()
        >>> dict(watch.seconds)
        {'other': 2.0, 'baking': 2.0, 'heating': 1.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [OTHER]
        self._whole = False
        self._last: float | None = None
        self._thread = threading.get_ident()
        self._wrapped: list[tuple[Any, str, Any]] = []

    def wrap(self, owner: Any, name: str, section: str, *, whole: bool = False) -> None:
        """Count the time of `owner.name` to `section`, until `stop`.

        Args:
            owner: an object, for it alone; a class, for all of its objects; or a module.
            name: of a function or method there.
            section: what its time is counted to.
            whole: with all that happens in it.
        """
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._last is None or self._whole or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            self._switch()
            self._open.append(section)
            self._whole = whole
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()
                self._whole = False

        self._wrapped.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, timed)

    def start(self) -> None:
        """Begin to count."""
        self._last = self.clock()

    def stop(self) -> None:
        """Stop counting, and unwrap everything."""
        if self._last is not None:
            self._switch()
            self._last = None
        while self._wrapped:
            owner, name, before = self._wrapped.pop()
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

    def _switch(self) -> None:
        now = self.clock()
        if self._last is not None:  # stopped from within a section
            self.seconds[self._open[-1]] += now - self._last
            self._last = now
