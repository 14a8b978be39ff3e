"""How fast TextGym is, each figure against a named reference measured in this process.

    python benchmarks/throughput.py --json out.json

Keys of the JSON:

- rollout_over_generate: tokens/s of SB3's `PPO.collect_rollouts` over Hugging Face `generate` on
  the same batch (sampling, `top_k=0`, no end-of-sequence), interleaved, median of the repeats.
- rollout_over_generate_32, _128, _512: the same with so many rows.
- rollout_over_generate_ragged: rows that end and begin anew by themselves, their texts 8 to 48
  tokens long, against the useful tokens of `generate`, whose batch runs until the longest is done.
- rollout_with_kl_over_generate: the same with the reference model's pass over what was written.
- update_over_bare: tokens/s of `PPO.train` over a bare forward, backward, clip and optimizer step
  of the same sequences.
- update_over_flat: over `PPO.train` on SB3's own buffer of flattened transitions.
- env_tokens_per_s, env_scored_tokens_per_s: `TokenVectorEnv.step` alone on random tokens, and on
  Story with its score.
- single_env_steps_per_s: `gym.make(...)` steps.
- memory_growth_50k: growth of resident memory in one update of 8,192 tokens at a 50,257-token
  vocabulary over (8 chunks of float32 logits + 5 times the parameter bytes + 100 MB);
  memory_doubling_50k: growth of 16,384 tokens over that of 8,192, minus 1. Both with glibc's
  mapping threshold fixed at 1 MB; *_default_malloc without.
- import_textgym_s, textgym_list_s: wall time of a fresh process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / ".." / "shared" / "models" / "stories260k"
GPT2_TOKENIZER = ROOT / ".." / "shared" / "models" / "gpt2-tokenizer"
PROMPT = "Once upon a time there was a"  # 8 tokens
NEW_TOKENS, ROWS, MINIBATCH = 48, 64, 2048
PACKAGES = ("torch", "transformers", "stable-baselines3", "gymnasium", "numpy", "tokenizers")


def seconds(function: Any) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def lockstep_agent(
    model_folder: Path,
    *,
    flat: bool = False,
    kl: bool = False,
    rows: int = ROWS,
    ragged: bool = False,
) -> Any:
    """SB3's PPO on rows that all write exactly `NEW_TOKENS` tokens, or, `ragged`, 8 to as many."""
    from stable_baselines3 import PPO

    from textgym import Tokenizer
    from textgym_agents.lm import load_model
    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

    # As in the pinned `generate`, nothing ends early: the token that would is never sampled.
    tokenizer = Tokenizer(Tokenizer.load(model_folder).backend, eos_token="<unk>", name="no end")
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=rows,
        tokenizer=tokenizer,
        prompts=[PROMPT],
        max_new_tokens=NEW_TOKENS,
    )
    keywords = ppo_defaults(envs) | {"n_epochs": 1, "batch_size": MINIBATCH}
    if flat:
        keywords |= {"rollout_buffer_kwargs": {}, "n_steps": NEW_TOKENS}
    else:
        keywords |= {"rollout_buffer_class": TokenRolloutBuffer, "n_steps": 2 * NEW_TOKENS}
    policy = {"model": load_model(model_folder), "kl_coef": 0.02 if kl else 0.0}
    kind = ragged_policy(LMPolicy, rows) if ragged else LMPolicy
    agent = PPO(kind, envs, policy_kwargs=policy, seed=0, device="cpu", **keywords)
    _, callback = agent._setup_learn(10**9)
    agent.rollout = lambda: agent.collect_rollouts(
        envs, callback, agent.rollout_buffer, agent.n_steps
    )
    return agent


def ragged_policy(policy: type, rows: int) -> type:
    """`policy`, but that each text ends after 8 to `NEW_TOKENS` tokens, drawn for each anew."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    lengths = rng.integers(8, NEW_TOKENS + 1, rows)

    class Ragged(policy):
        def forward(self, obs: Any, deterministic: bool = False) -> Any:
            actions, values, log_probs = super().forward(obs, deterministic)
            written = NEW_TOKENS - obs["remaining"][:, 0].numpy() + 1
            ends = written >= lengths
            actions[torch.from_numpy(ends)] = self.action_space.eos_token_id
            lengths[ends] = rng.integers(8, NEW_TOKENS + 1, int(ends.sum()))
            return actions, values, log_probs

    return Ragged


def scaling_figures(model_folder: Path, repeats: int) -> dict[str, float]:
    """Rollouts against `generate` by the number of rows, in lockstep and ragged."""
    import torch

    from textgym_agents.lm import load_model

    model = load_model(model_folder).eval()
    useful = (8 + NEW_TOKENS) / 2 / NEW_TOKENS
    found = {}
    for name, rows, ragged in (
        ("32", 32, False),
        ("128", 128, False),
        ("512", 512, False),
        ("ragged", ROWS, True),
    ):
        agent = lockstep_agent(model_folder, rows=rows, ragged=ragged)
        ids = torch.tensor([agent.env.tokenizer.encode(PROMPT)] * rows)
        mask = torch.ones_like(ids)

        def generate(ids: Any = ids, mask: Any = mask) -> None:
            for _ in range(2):
                with torch.no_grad():
                    model.generate(
                        ids,
                        attention_mask=mask,
                        do_sample=True,
                        top_k=0,
                        max_new_tokens=NEW_TOKENS,
                        eos_token_id=None,
                        pad_token_id=0,
                    )

        def rollout(agent: Any = agent) -> None:
            agent.policy.invalidate_cache()
            agent.rollout()

        pairs = [(seconds(generate), seconds(rollout)) for _ in range(repeats + 1)][1:]
        ratio = statistics.median(g / r for g, r in pairs)
        found[f"rollout_over_generate_{name}"] = ratio / (useful if ragged else 1.0)
    return found


def rollout_figures(model_folder: Path, repeats: int) -> dict[str, float]:
    """Rollouts against `generate`."""
    import torch

    from textgym_agents.lm import load_model

    agent, agent_kl = lockstep_agent(model_folder), lockstep_agent(model_folder, kl=True)
    model = load_model(model_folder).eval()
    prompt = agent.env.tokenizer.encode(PROMPT)
    input_ids = torch.tensor([prompt] * ROWS)
    mask = torch.ones_like(input_ids)

    def generate() -> None:
        for _ in range(2):  # a rollout is two episodes a row
            with torch.no_grad():
                out = model.generate(
                    input_ids,
                    attention_mask=mask,
                    do_sample=True,
                    top_k=0,
                    max_new_tokens=NEW_TOKENS,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            if out.shape[1] != len(prompt) + NEW_TOKENS:
                raise RuntimeError("`generate` stopped early; the comparison would be unfair")

    def rollout(a: Any) -> None:
        a.policy.invalidate_cache()  # as after an update
        a.rollout()

    tokens = 2 * ROWS * NEW_TOKENS
    rows = []
    for i in range(repeats + 1):
        row = [
            seconds(generate),
            seconds(lambda: rollout(agent)),
            seconds(lambda: rollout(agent_kl)),
        ]
        if i:  # the first warms up
            rows.append(row)
    return {
        "rollout_over_generate": statistics.median(r[0] / r[1] for r in rows),
        "rollout_with_kl_over_generate": statistics.median(r[0] / r[2] for r in rows),
        "rollout_tokens_per_s": tokens / statistics.median(r[1] for r in rows),
        "generate_tokens_per_s": tokens / statistics.median(r[0] for r in rows),
    }


def update_figures(model_folder: Path, repeats: int) -> dict[str, float]:
    """Updates against bare mathematics and against flattened transitions."""
    import torch

    from textgym_agents.lm import load_model

    agent = lockstep_agent(model_folder)
    agent.rollout()
    batches = [
        (b.observations.input_ids, b.observations.index, b.actions, b.advantages)
        for b in agent.rollout_buffer.get(MINIBATCH)
    ]
    model = load_model(model_folder).eval()
    keywords = agent.policy.optimizer_kwargs
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, **keywords)

    def bare() -> None:
        for input_ids, index, actions, advantages in batches:
            logits = model(input_ids=input_ids, use_cache=False).logits.flatten(0, 1)[index]
            log_probs = logits.log_softmax(dim=-1).gather(1, actions[:, None])[:, 0]
            optimizer.zero_grad()
            (-(advantages * log_probs).mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    rows = []
    for i in range(repeats + 1):
        row = [seconds(bare), seconds(agent.train)]
        if i:
            rows.append(row)
    tokens = 2 * ROWS * NEW_TOKENS
    speed = tokens / statistics.median(r[1] for r in rows)
    flat = lockstep_agent(model_folder, flat=True)
    flat.rollout()
    flat_seconds = statistics.median(seconds(flat.train) for _ in range(min(3, repeats)))
    return {
        "update_over_bare": statistics.median(r[0] / r[1] for r in rows),
        "update_over_flat": speed / (ROWS * NEW_TOKENS / flat_seconds),
        "update_tokens_per_s": speed,
    }


def vector_steps(env: Any, steps: int, repeats: int) -> float:
    """Tokens/s of `env.step` on random tokens, at the median."""
    import numpy as np

    rng = np.random.default_rng(0)
    size = env.single_action_space.n
    actions = rng.integers(0, size, (steps, env.num_envs))
    env.reset(seed=0)

    def run() -> None:
        for row in actions:
            env.step(row)

    run()
    return steps * env.num_envs / statistics.median(seconds(run) for _ in range(repeats))


def env_figures(repeats: int) -> dict[str, float]:
    """The environments alone, at about 64 tokens of context."""
    import gymnasium as gym
    import numpy as np

    import textgym
    from textgym import Tokenizer

    opening = "Once upon a time there was a little"
    tokenizer = Tokenizer.load()
    while len(tokenizer.encode(opening)) < 15:
        opening += " little"

    def vector(env_id: str, **keywords: Any) -> Any:
        return gym.make_vec(
            env_id,
            num_envs=1024,
            vectorization_mode="vector_entry_point",
            autoreset_mode="SAME_STEP",
            **keywords,
        )

    plain = vector("textgym/Continuation-v0", prompts=[opening], max_new_tokens=48, copy=False)
    figures = {"env_tokens_per_s": vector_steps(plain, 256, repeats)}
    scored = vector("textgym/Story-v0", copy=False)
    figures["env_scored_tokens_per_s"] = vector_steps(scored, 128, repeats)
    single = gym.make("textgym/Continuation-v0", prompts=[opening], max_new_tokens=48).unwrapped
    actions = np.random.default_rng(0).integers(0, single.action_space.n, 5000).tolist()
    single.reset(seed=0)

    def steps() -> None:
        for action in actions:
            if single.step(action)[2]:
                single.reset()

    spent = statistics.median(seconds(steps) for _ in range(repeats))
    figures["single_env_steps_per_s"] = len(actions) / spent
    del textgym
    return figures


def memory_of_update(tokens: int) -> None:
    """Print the growth of resident memory in one update, and its allowance, in bytes."""
    import torch
    from stable_baselines3 import PPO
    from transformers import GPT2Config, GPT2LMHeadModel

    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=50257)
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
    allowance = 8 * 128 * 50257 * 4 + 5 * parameters + 100e6
    print(json.dumps({"growth": peak[0] - before, "allowance": allowance}))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _give_back_freed_memory() -> None:
    """Return what malloc holds, so that the update's growth is not hidden in it."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def memory_figures() -> dict[str, float]:
    """Memory of updates, each in a process of its own."""
    found: dict[tuple[int, bool], dict[str, float]] = {}
    for tokens, fixed in itertools.product((8192, 16384), (True, False)):
        command = [sys.executable, __file__, "--memory-of-update", str(tokens)]
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
        def run() -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        run()
        return statistics.median(seconds(run) for _ in range(repeats))

    python = sys.executable
    bare = median([python, "-c", "pass"])
    listing = [python, "-m", "textgym_agents.cli", "list"]
    return {
        "import_textgym_s": median([python, "-c", "import textgym"]) - bare,
        "textgym_list_s": median(listing),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the model measured")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory-of-update", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    warnings.filterwarnings("ignore", category=UserWarning)
    if arguments.memory_of_update:
        return memory_of_update(arguments.memory_of_update)
    if not arguments.model.is_dir():
        parser.error(f"no model in {arguments.model}; give another with --model")
    figures = start_up_figures(arguments.repeats) | env_figures(arguments.repeats)
    import torch

    torch.set_num_threads(arguments.threads)
    figures |= rollout_figures(arguments.model, arguments.repeats)
    figures |= scaling_figures(arguments.model, arguments.repeats)
    figures |= update_figures(arguments.model, arguments.repeats)
    if GPT2_TOKENIZER.is_dir() and Path("/proc/self/statm").exists():
        figures |= memory_figures()
    else:
        print("memory not measured: it needs /proc and the GPT-2 tokenizer", file=sys.stderr)
    for name, value in figures.items():
        print(f"{name:32} {value:14,.3f}")
    report = figures | {
        "about": {
            "command": " ".join(["python", *sys.argv]),
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "model": arguments.model.name,
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in PACKAGES},
        }
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
