"""What the runner starts in place of a cell: quick, and it fails in the way its agent is called.

python fake_cell.py NOTES RECORD < description
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path


def record_of(cell, status="ok"):
    ok = status == "ok"
    name = f"{cell['task']['name']}/{cell['agent']}/{cell['seed']}"
    value = (zlib.crc32(name.encode()) % 100) / 200 + 0.25
    value = {"random": 0.0, "oracle": 1.0}.get(cell["agent"], value)
    return {
        "schema": 1,
        "suite": cell["suite"],
        "suite_hash": cell["suite_hash"],
        "task": cell["task"]["name"],
        "env_id": cell["task"]["env_id"],
        "kwargs": cell["task"]["kwargs"],
        "agent": cell["agent"],
        "agent_import": None,
        "seed": cell["seed"],
        "status": status,
        "error": None if ok else "chose a token that is masked",
        "attempts": 1,
        "budget": cell["task"]["tokens"],
        "tokens": 100,
        "train_seconds": time.perf_counter() % 1,
        "cpu_seconds": 0.5,
        "eval_seconds": 0.25,
        "peak_mb": 10.0,
        "returns": [value] * cell["task"]["episodes"] if ok else None,
        "greedy_returns": None,
        "exact": None,
        "curve": [],
        "samples": [],
        "pictures": [],
        "deterministic": {"expected": True, "why_not": None},
        "provenance": {"command": cell["command"], "started": time.ctime(), "versions": {}},
    }


def note(folder, text):
    with open(Path(folder) / "notes.txt", "a") as stream:
        stream.write(f"{text}\n")


def main(folder, record):
    cell = json.load(sys.stdin)
    agent = cell["agent"]
    note(folder, f"start {time.monotonic()} {os.getpid()}")
    if agent == "flaky":
        marker = Path(folder) / "flaky"
        if not marker.exists():
            marker.touch()
            raise SystemExit("not this time")
    if agent == "crashes":
        print("some warning", file=sys.stderr)
        raise ValueError("no such\x1b[31m luck")
    if agent == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if agent == "aborts":
        os.kill(os.getpid(), signal.SIGABRT)
    if agent == "nothing":
        return print("almost done")
    if agent in ("hangs", "daemon"):
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        note(folder, f"child 0 {child.pid}")
        time.sleep(60 if agent == "hangs" else 0.6)  # so that it is seen once
    if agent == "eats":
        eaten = bytearray(os.urandom(1024)) * (200 * 1024)
        time.sleep(60 + len(eaten) % 2)
    if agent == "waits":
        with contextlib.suppress(ChildProcessError):
            os.wait()  # hangs where there is a child that it did not start
    if agent == "slow":
        time.sleep(0.6)
    if agent == "some time":
        time.sleep(0.08)
    text = json.dumps(record_of(cell, "invalid_action" if agent == "invalid" else "ok"))
    if agent == "garbage":
        text = text[: len(text) // 2]
    if agent == "nan":
        text = text.replace('"returns": [', '"returns": [NaN, ')
    if agent == "another":
        text = text.replace('"agent": "another"', '"agent": "ok"')
    Path(record).write_text(text)
    note(folder, f"end {time.monotonic()} {os.getpid()}")
    return 3 if agent == "ok, but fails" else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
