"""What action masks cost in memory: MaskablePPO against PPO without masks, at 50,257 actions.

    python benchmarks/masks.py --out benchmarks/results/masks.json

Each trains for one rollout of `--steps` steps in `--rows` rows and its update, in a process of its
own, with a tiny random model (`n_embd` 16) on GPT-2's tokenizer. Keys of the JSON:

- peak_ratio: peak resident memory of the process over that of unmasked PPO; the target is 1.3.
- growth_ratio: the same of what resident memory grew by, from the finished agent on.
- peak_mb, growth_mb: by agent: `ppo`, `maskable` (with `MaskableTokenRolloutBuffer`) and, with
  `--own-buffer`, `own_buffer` (sb3-contrib's, which keeps V float32 a token; no ratio of these).

Needs `pip install "textgym[recipes]"`, Linux (/proc), and a folder with a tokenizer of so many
tokens (`--tokenizer`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ROOT / ".." / "shared" / "models" / "gpt2-tokenizer"
PACKAGES = ("textgym", "torch", "stable-baselines3", "sb3-contrib", "numpy")
TARGET = 1.3
BUDGET = 16


def make_agent(kind: str, options: argparse.Namespace) -> Any:
    """PPO or MaskablePPO of the same size."""
    import torch
    from sb3_contrib import MaskablePPO
    from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
    from stable_baselines3 import PPO
    from transformers import GPT2Config, GPT2LMHeadModel

    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults
    from textgym_agents.sb3.maskable import MaskableLMPolicy, MaskableTokenRolloutBuffer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=options.rows,
        tokenizer=options.tokenizer,
        prompts=["Once upon a time"],
        max_new_tokens=BUDGET,
        **({} if kind == "ppo" else {"min_new_tokens": BUDGET // 2}),
    )
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=int(envs.action_space.n)))
    batch = options.steps * options.rows // 4
    keywords = ppo_defaults(envs) | {"n_steps": options.steps, "batch_size": batch}
    cls, policy, buffer = {
        "ppo": (PPO, LMPolicy, TokenRolloutBuffer),
        "maskable": (MaskablePPO, MaskableLMPolicy, MaskableTokenRolloutBuffer),
        "own_buffer": (MaskablePPO, MaskableLMPolicy, MaskableDictRolloutBuffer),
    }[kind]
    if kind == "own_buffer":
        del keywords["rollout_buffer_kwargs"]
    return cls(
        policy,
        envs,
        rollout_buffer_class=buffer,
        policy_kwargs={"model": model, "kl_coef": 0.0},
        seed=0,
        device="cpu",
        **keywords,
    )


def measure_here(kind: str, options: argparse.Namespace) -> None:
    """Print the peak of resident memory, and what it grew by, in bytes."""
    agent = make_agent(kind, options)
    before, peak, stop = resident(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    agent.learn(options.steps * options.rows)
    stop.set()
    watcher.join()
    print(json.dumps({"peak": peak[0], "growth": peak[0] - before}))


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def measure(kind: str, options: argparse.Namespace) -> dict[str, int]:
    """`measure_here` in a process of its own."""
    command = [sys.executable, __file__, "--kind", kind, "--tokenizer", str(options.tokenizer)]
    command += ["--steps", str(options.steps), "--rows", str(options.rows)]
    # glibc raises its threshold for mapping memory as large blocks are freed, and then keeps
    # them: a fixed one lets resident memory tell what is in use.
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(found: dict[str, dict[str, int]], options: argparse.Namespace) -> dict[str, Any]:
    """The figures, and what they were measured with."""
    figures: dict[str, Any] = {
        f"{what}_ratio": round(found["maskable"][what] / found["ppo"][what], 3)
        for what in ("peak", "growth")
    }
    for what in ("peak", "growth"):
        figures[f"{what}_mb"] = {kind: round(of[what] / 1e6, 1) for kind, of in found.items()}
    return figures | {
        "target": TARGET,
        "rows": options.rows,
        "steps": options.steps,
        "command": " ".join(["python", "benchmarks/masks.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def main() -> int:
    """Measure and report; returns 1 where the peak is above the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="folder of 50,257 tokens")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=128, help="of a rollout, in each row")
    parser.add_argument("--own-buffer", action="store_true", help="sb3-contrib's own buffer too")
    parser.add_argument("--out", type=Path, help="write the figures to this file")
    parser.add_argument("--kind", choices=("ppo", "maskable", "own_buffer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        measure_here(options.kind, options)
        return 0
    if not options.tokenizer.is_dir():
        parser.error(f"no tokenizer in {options.tokenizer}; give another with --tokenizer")
    kinds = ("ppo", "maskable", *(("own_buffer",) if options.own_buffer else ()))
    figures = report({kind: measure(kind, options) for kind in kinds}, options)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if figures["peak_ratio"] < TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
