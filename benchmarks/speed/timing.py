"""Clocks, medians and what a figure was measured with."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "stable-baselines3", "gymnasium", "numpy", "tokenizers")

Times = dict[str, list[float]]


class Clock:
    """Times functions: by the processor's clock for one thread, by the wall's for more.

    What else the machine does is not in the first, but for what it does to caches.

    Args:
        threads: of torch.
    """

    def __init__(self, threads: int = 1) -> None:
        self.now = time.process_time if threads == 1 else time.perf_counter

    def seconds(self, function: Callable[[], object]) -> float:
        """Of one call."""
        start = self.now()
        function()
        return self.now() - start

    def interleaved(self, functions: Mapping[str, Callable[[], object]], repeats: int) -> Times:
        """Each function in turn, `repeats` times after a first round that warms up."""
        rounds = [
            {name: self.seconds(function) for name, function in functions.items()}
            for _ in range(repeats + 1)
        ]
        return {name: [one[name] for one in rounds[1:]] for name in functions}

    def median(self, function: Callable[[], object], repeats: int) -> float:
        """Seconds of a call, at the median, after one that warms up."""
        return statistics.median(self.interleaved({"it": function}, repeats)["it"])


def ratio(times: Times, above: str, below: str) -> float:
    """The median over the rounds of one time over the other."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def about(threads: int, repeats: int, packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """What the figures of this process were measured with."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "threads": threads,
        "repeats": repeats,
        "clock": "processor" if threads == 1 else "wall",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[1], 2),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
