"""Memory of an update at a large vocabulary, and how soon a fresh process is there."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from stable_baselines3 import PPO
from transformers import GPT2Config, GPT2LMHeadModel

from speed.subjects import GPT2_TOKENIZER
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults


def memory_of_update(tokens: int) -> None:
    """Print the growth of resident memory in one update, and its allowance, in bytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=50_257)
    rows = tokens // 32
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=rows,
        tokenizer=GPT2_TOKENIZER,
        prompts=["Once upon a time"],
        max_new_tokens=32,
    )
    keywords = ppo_defaults(envs) | {"n_steps": 32, "n_epochs": 1, "batch_size": tokens}
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": GPT2LMHeadModel(config), "chunk_tokens": 128, "kl_coef": 0.0},
        device="cpu",
        **keywords,
    )
    _, callback = agent._setup_learn(10**9)
    agent.collect_rollouts(envs, callback, agent.rollout_buffer, agent.n_steps)
    agent.policy._pools.clear()
    _give_back_freed_memory()
    before, peak, stop = _resident(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    agent.train()
    stop.set()
    watcher.join()
    parameters = sum(p.numel() * p.element_size() for p in agent.policy.parameters())
    allowance = 8 * 128 * 50_257 * 4 + 5 * parameters + 100e6
    print(json.dumps({"growth": peak[0] - before, "allowance": allowance}))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _give_back_freed_memory() -> None:
    """Return what malloc holds, so that the update's growth is not hidden in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def memory_figures(script: str) -> dict[str, float]:
    """Memory of updates, each in a process of its own: `script --memory-of-update TOKENS`."""
    found: dict[tuple[int, bool], dict[str, float]] = {}
    for tokens, fixed in itertools.product((8192, 16384), (True, False)):
        command = [sys.executable, script, "--memory-of-update", str(tokens)]
        # glibc raises its threshold for mapping memory as large blocks are freed, and then keeps
        # them: a fixed one lets resident memory tell what is in use.
        settings = os.environ | ({"MALLOC_MMAP_THRESHOLD_": str(2**20)} if fixed else {})
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
        found[tokens, fixed] = json.loads(out.stdout.splitlines()[-1])
    figures = {}
    for fixed, suffix in ((True, ""), (False, "_default_malloc")):
        small, large = found[8192, fixed], found[16384, fixed]
        figures |= {
            f"memory_growth_50k{suffix}": small["growth"] / small["allowance"],
            f"memory_growth_50k_mb{suffix}": small["growth"] / 1e6,
            f"memory_doubling_50k{suffix}": large["growth"] / small["growth"] - 1.0,
        }
    return figures


def start_up_figures(repeats: int) -> dict[str, float]:
    """Fresh processes."""

    def median(command: list[str]) -> float:
        def run() -> float:
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start

        run()
        return statistics.median(run() for _ in range(repeats))

    python = sys.executable
    bare = median([python, "-c", "pass"])
    listing = [python, "-m", "textgym_agents.cli", "list"]
    return {
        "import_textgym_s": median([python, "-c", "import textgym"]) - bare,
        "textgym_list_s": median(listing),
    }
