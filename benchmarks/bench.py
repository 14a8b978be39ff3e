"""Measures all that `docs/performance.md` says, and writes it there.

    make bench                                     # or: python benchmarks/bench.py
    python benchmarks/bench.py --only growth masks
    python benchmarks/bench.py --report            # the page anew, from the results that are there

Each benchmark is a process of its own with one thread, one after the other, and leaves a file in
`benchmarks/results`; all of them together take under 15 minutes on two cores that do nothing else.
What is measured elsewhere (`peers.py` needs TRL and hours) is reported from its file. A benchmark
that fails is named, the others go on, and its results stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed.page import rewrite, sections

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Benchmark:
    """A script and its arguments; the last one takes the file to write.

    Args:
        arguments: of the command line.
        codes: with which it may end.
    """

    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0,)


BENCHMARKS = {
    "throughput": Benchmark(("throughput.py", "--repeats", "5", "--json")),
    "growth": Benchmark(("growth.py", "--json")),
    "masks": Benchmark(("masks.py", "--out"), codes=(0, 1)),  # 1: above its target
    "async_scoring": Benchmark(("async_scoring.py", "--json")),
}
ELSEWHERE = ("peers",)


def run(name: str, folder: Path) -> float | None:
    """Seconds that a benchmark took; None where it failed."""
    benchmark = BENCHMARKS[name]
    script, *arguments = benchmark.arguments
    out = folder / f"{name}.json"
    before = out.stat().st_mtime_ns if out.is_file() else None
    settings = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    start = time.perf_counter()
    # Paths from the root: results tell the command that made them.
    command = [sys.executable, f"benchmarks/{script}", *arguments, os.path.relpath(out, ROOT)]
    done = subprocess.run(command, env=settings, stdout=subprocess.DEVNULL, check=False, cwd=ROOT)
    written = out.is_file() and out.stat().st_mtime_ns != before
    if done.returncode not in benchmark.codes or not written:
        print(f"{name} failed with code {done.returncode}; its results are as before")
        return None
    return time.perf_counter() - start


def load(folder: Path) -> dict[str, Any]:
    """The results that are there, by the name of their file."""
    return {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in (*BENCHMARKS, *ELSEWHERE)
        if (folder / f"{name}.json").is_file()
    }


def report(results: dict[str, Any], page: Path) -> None:
    """Rewrite the page's tables, and its pictures beside it."""
    page.write_text(rewrite(page.read_text(encoding="utf-8"), sections(results)), encoding="utf-8")
    # Imported here: the tables need no matplotlib.
    from speed.plots import growth_picture, stages_picture

    if "growth" in results:
        growth_picture(results["growth"], page.parent / "images" / "growth.svg")
    if results.get("throughput", {}).get("stages"):
        stages_picture(results["throughput"]["stages"], page.parent / "images" / "stages.svg")


def main() -> int:
    """Run, then report; returns 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    failed = False
    for name in () if options.report else options.only:
        print(f"{name} ...", flush=True)
        seconds = run(name, options.results)
        failed |= seconds is None
        if seconds is not None:
            print(f"{name}: {seconds:.0f} s", flush=True)
    report(load(options.results), options.page)
    print(f"written: {options.page}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
