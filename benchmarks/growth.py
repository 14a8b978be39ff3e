"""How the cost of a generated token grows: with context, rows, vocabulary and width.

    python benchmarks/growth.py --json benchmarks/results/growth.json

Each step is `LMPolicy.forward` and a step of the environment, in which no row begins anew, by a
GPT-2 of two layers with random weights; one of four sizes grows and the others stay as in `BASE`.
Keys of the JSON, for each of the four:

- points: its value and microseconds a token, at the median.
- exponent: of the power law through all points; last_exponent: through the last two.

`python benchmarks/bench.py` draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed.subjects import PROMPT, made_up_tokenizer, random_gpt2
from speed.timing import Clock, about

from textgym_agents.sb3 import LMPolicy, make_vec_env

BASE = {"context": 128, "rows": 16, "vocabulary": 2048, "width": 128}
SWEEPS = {
    "context": (64, 128, 256, 512, 1024),
    "rows": (1, 4, 16, 64, 256, 1024),
    "vocabulary": (512, 2048, 8192, 50_257),
    "width": (64, 128, 256, 512, 768),
}
LAYERS = 2
STEPS = 16


class Writer:
    """Rows that write `STEPS` tokens, up to so many tokens of context."""

    def __init__(self, *, context: int, rows: int, vocabulary: int, width: int) -> None:
        self.rows = rows
        prompt = PROMPT.split()
        prompt += ["w100"] * (context - STEPS - len(prompt))
        self.envs = make_vec_env(
            "textgym/Continuation-v0",
            n_envs=rows,
            tokenizer=made_up_tokenizer(vocabulary),
            prompts=[" ".join(prompt)],
            max_new_tokens=STEPS,
        )
        self.policy = LMPolicy(
            self.envs.observation_space,
            self.envs.action_space,
            lambda _: 1e-4,
            model=random_gpt2(width=width, layers=LAYERS, vocab=vocabulary),
            kl_coef=0.0,
        )
        self.policy.set_training_mode(False)

    @torch.no_grad()
    def seconds_per_token(self, clock: Clock) -> list[float]:
        """Of each step of an episode, but the first, which reads the prompt, and the last."""
        observation = self.envs.reset()
        found = []
        for _ in range(STEPS - 1):
            start = clock.now()
            tensors = {key: torch.as_tensor(value) for key, value in observation.items()}
            actions = self.policy.forward(tensors)[0].numpy()
            actions[actions == 0] = 1  # nothing ends early
            observation, *_ = self.envs.step(actions)
            found.append((clock.now() - start) / self.rows)
        return found[1:]


def sweep(name: str, clock: Clock, repeats: int) -> dict[str, Any]:
    """The cost by one size, its values in turn."""
    writers = {value: Writer(**BASE | {name: value}) for value in SWEEPS[name]}
    found: dict[int, list[float]] = {value: [] for value in writers}
    for round_ in range(repeats + 1):
        for value, writer in writers.items():
            spent = writer.seconds_per_token(clock)
            found[value] += spent if round_ else []  # the first warms up
    costs = {value: 1e6 * statistics.median(spent) for value, spent in found.items()}
    return {
        "points": [[value, cost] for value, cost in costs.items()],
        "exponent": exponent(list(costs.items())),
        "last_exponent": exponent(list(costs.items())[-2:]),
    }


def exponent(points: list[tuple[int, float]]) -> float:
    """Of the power law through `points`, by least squares of the logarithms."""
    x, y = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SWEEPS, default=list(SWEEPS), metavar="SIZE")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"base": BASE, "layers": LAYERS, "sweeps": {}}
    for name in options.only:
        found = report["sweeps"][name] = sweep(name, Clock(options.threads), options.repeats)
        costs = "  ".join(f"{value}: {cost:.1f}" for value, cost in found["points"])
        print(f"{name}: exponent {found['exponent']:.2f}, at last {found['last_exponent']:.2f}")
        print(f"  us a token by {name}: {costs}", flush=True)
    report["about"] = about(options.threads, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
