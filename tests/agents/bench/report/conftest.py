"""Made-up results that look like true ones, and a real browser to look at their page with."""

import base64
import json
import os
import select
import shutil
import subprocess

import numpy as np
import pytest

TASKS = {  # tokens, random, oracle
    "story": (100_000, 0.02, 1.0),
    "summarization": (100_000, 0.10, 1.0),
    "datatotext": (100_000, 0.0, 1.0),
    "translation": (100_000, 0.03, 0.95),
    "arithmetic": (60_000, 0.0, 1.0),
    "dialogue": (60_000, 0.05, 1.0),
    "recommendation": (40_000, 0.12, 1.0),
    "wordle": (40_000, -0.05, 0.9),
}
AGENTS = {  # how good, how fast
    "ppo": (0.80, 3.0),
    "grpo": (0.83, 2.4),
    "rloo": (0.77, 2.4),
    "reinforce": (0.60, 1.8),
    "a2c": (0.55, 3.5),
    "expert-iteration": (0.70, 1.2),
}
HOSTILE = (
    "<script>window.hacked = 1</script> </script> <img src=x onerror='window.hacked=2'> "
    "\u202eevil\u202c \x1b[31m \ud800 &lt;b&gt; {{7*7}} " + "long" * 200
)
STORY = (
    "Once upon a time there was a little fox . She found a red ball and shared it with a friend ."
)
PROVENANCE = {
    "command": "textgym bench run --suite core --agent ppo --agent grpo --seeds 3 --out results/",
    "started": "2026-11-25T08:00:00+00:00",
    "versions": {"textgym": "0.1.0", "torch": "2.9.1", "numpy": "2.3.5"},
    "python": "3.11.9",
    "machine": "x86_64",
    "cpu": "Example CPU @ 2.50GHz",
    "cores": 2,
    "threads": 1,
}
UNKNOWN = ("tokens", "train_seconds", "cpu_seconds", "eval_seconds", "peak_mb", "returns", "curve")
UNKNOWN += ("samples", "pictures", "greedy_returns", "deterministic")


def make_record(task, agent, seed, *, good=0.8, fast=3.0, episodes=64, exact=None, **changes):
    """The record of a cell that ended well, but for `changes`."""
    rng = np.random.default_rng([*f"{task}/{agent}".encode(), seed])
    tokens, random, oracle = TASKS.get(task, (50_000, 0.02, 1.0))
    anchor = {"random": random, "oracle": oracle}.get(agent)
    spread = 0.0 if anchor is not None else 0.06
    level = anchor if anchor is not None else random + good * (oracle - random)
    level += spread * rng.standard_normal()
    seconds = tokens / 2_500 * (4.0 - fast)
    return {
        "schema": 1,
        "suite": "core",
        "suite_hash": "0123456789abcdef",
        "task": task,
        "env_id": f"textgym/{task.title()}-v0",
        "kwargs": {},
        "agent": agent,
        "agent_import": None,
        "seed": seed,
        "status": "ok",
        "error": None,
        "attempts": 1,
        "budget": tokens,
        "tokens": 0 if anchor is not None else tokens + 960,
        "train_seconds": round(seconds, 2),
        "cpu_seconds": round(seconds * 0.97, 2),
        "eval_seconds": 3.1,
        "peak_mb": 410.5 + 10 * seed,
        "returns": (level + 0.1 * (rng.permutation(episodes) / (episodes - 1) - 0.5)).tolist(),
        "greedy_returns": None if anchor is not None else [level + 0.02] * 4,
        "exact": exact,
        "curve": [] if anchor is not None else _curve(rng, tokens, seconds, random, level, fast),
        "samples": [] if anchor is not None else _samples(rng, tokens, level),
        "pictures": [_picture(rng, level) for _ in range(2)] if seed == 0 else [],
        "deterministic": {"expected": True, "why_not": None},
        "provenance": PROVENANCE,
        **changes,
    }


def failed(record, status, error):
    """The same cell, had it not ended well."""
    return record | dict.fromkeys(UNKNOWN) | {"status": status, "error": error, "attempts": 2}


def make_records(agents=AGENTS, tasks=TASKS, seeds=(0, 1, 2), **changes):
    """Every cell of a run, anchors first."""
    records = [make_record(task, a, 0, **changes) for task in tasks for a in ("random", "oracle")]
    for seed in seeds:
        for place, task in enumerate(tasks):
            for agent, (good, fast) in agents.items():
                easier = good * (1.0 - 0.05 * (place % 4))
                record = make_record(task, agent, seed, good=easier, fast=fast, **changes)
                records.append(record)
    return records


def _curve(rng, tokens, seconds, random, level, fast):
    share = np.arange(1, 33) / 32
    means = random + (level - random) * (1 - np.exp(-fast * share)) / (1 - np.exp(-fast))
    means = means + 0.03 * rng.standard_normal(32)
    return [
        {"tokens": int(s * tokens), "seconds": s * seconds, "episodes": 32, "mean_return": float(m)}
        for s, m in zip(share, means, strict=True)
    ]


def _samples(rng, tokens, level):
    stages = {"start": 0.1, "middle": 0.6, "end": 0.9, "held-out": 1.0}
    words = STORY.split()
    return [
        {
            "stage": stage,
            "tokens": int(tokens * share),
            "prompt": "Write a story with the words fox, ball and friend.",
            "completion": " ".join(words[: 4 + int(share * rng.integers(8, len(words)))]),
            "return": level * share,
        }
        for stage, share in stages.items()
        for _ in range(2)
    ]


def _picture(rng, level):
    tokens = [word if word == "." else f" {word}" for word in STORY.split()] + ["\n", "<|end|>"]
    count = len(tokens)
    advantages = 0.3 * rng.standard_normal(count)
    own = -np.abs(rng.standard_normal(count))
    return {
        "prompt": "Write a story with the words fox, ball and friend.",
        "tokens": tokens,
        "rewards": [0.0] * (count - 1) + [level],
        "values": (level + 0.1 * rng.standard_normal(count)).tolist(),
        "advantages": advantages.tolist(),
        "log_probs": own.tolist(),
        "ref_log_probs": (own * np.exp(0.3 * rng.standard_normal(count))).tolist(),
    }


def full_results():
    """Several agents on eight tasks, with all that can go wrong."""
    records = make_records()
    at = {(r["agent"], r["task"], r["seed"]): place for place, r in enumerate(records)}

    def change(agent, task, seed, make):
        place = at[agent, task, seed]
        records[place] = make(records[place])

    change("a2c", "story", 1, lambda r: failed(r, "timeout", "stopped after 600 s"))
    change("a2c", "wordle", 2, lambda r: failed(r, "crashed", f"ValueError: {HOSTILE}"))
    for seed in range(3):
        change("reinforce", "translation", seed, lambda r: failed(r, "memory", "over 2048 MB"))
    hostile = [s | {"prompt": HOSTILE, "completion": HOSTILE} for s in records[-1]["samples"]]
    picture = {"prompt": HOSTILE, "tokens": [HOSTILE, "", "</script>"], "rewards": [0.0, 0.0, 1.0]}
    nulls = dict.fromkeys(("values", "advantages", "log_probs", "ref_log_probs"))
    pictures = [picture | nulls, records[at["ppo", "story", 0]]["pictures"][0]]
    change("ppo", "story", 0, lambda r: r | {"samples": hostile, "pictures": pictures})
    change("rloo", "dialogue", 1, lambda r: r | {"peak_mb": None, "greedy_returns": None})
    gpu = {"expected": False, "why_not": "GPU kernels add in any order"}
    for seed in range(3):
        for task in TASKS:
            change("grpo", task, seed, lambda r: r | {"deterministic": gpu})
    gone = {("rloo", "arithmetic", 2), ("expert-iteration", "dialogue", 0)}
    records = [r for r in records if (r["agent"], r["task"], r["seed"]) not in gone]
    stranger = "my.module:make_<script>window.hacked=3</script>"
    mine = make_records({stranger: (0.72, 2.0)}, agent_import=stranger)
    return [*records, *(r for r in mine if r["agent"] == stranger)]


def save(records, folder):
    """Write records as `textgym bench run` does; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def results():
    """How results are made: a namespace of the functions above."""
    return {
        "record": make_record,
        "records": make_records,
        "failed": failed,
        "full": full_results,
        "save": save,
        "hostile": HOSTILE,
    }


# ---------------------------------------------------------------- the browser
class Browser:
    """A headless Chromium, spoken to over a pair of pipes (its DevTools protocol)."""

    def __init__(self, program, profile):
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # Chromium reads from 3 and writes to 4, which these may be themselves.
        there = [os.dup(fd) for fd in (read_there, write_there)]

        def join():
            os.dup2(there[0], 3)
            os.dup2(there[1], 4)

        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        self.process = subprocess.Popen(
            [program, *options, "--no-first-run", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=join,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (read_there, write_there, *there):
            os.close(fd)
        self.reader, self.writer, self.buffer = read_here, os.fdopen(write_here, "wb"), b""
        self.count, self.session, self.events = 0, None, []
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=page, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        """The answer to a command; what happens meanwhile is kept in `events`."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        self.writer.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _read(self):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], 60)
            found = os.read(self.reader, 1 << 16) if ready else b""
            assert found, "the browser has gone, or says nothing"
            self.buffer += found
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path, *, width=1280, height=900, dark=False):
        """Show a file, and wait until it is loaded."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, script):
        """The value of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self):
        """Errors, warnings and messages of the page since it was opened."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def picture(self, path, whole=True):
        """Save what is seen as a PNG: all of the page, or what fits on the screen."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self):
        try:
            self.session = None
            self.ask("Browser.close")
        except (AssertionError, BrokenPipeError):
            pass  # it went before it answered
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.reader)
        self.writer.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser: install one of {', '.join(names)} to check the page in it")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()
