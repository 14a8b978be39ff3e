"""How soon an unmodified agent reaches a reward, against a dedicated trainer and an older loop.

    python benchmarks/peers.py                     # all of it; goes on where it stopped
    python benchmarks/peers.py --only 'ppo/*'      # some runs
    python benchmarks/peers.py --summary           # from the file alone

Three sides write stories with the bundled model, for the environment's own score (0 to 1):

- ppo: Stable-Baselines3's PPO, as it is, with `ppo_defaults`; grpo: ours.
- trl: TRL's `GRPOTrainer`, with the environment's prompts and its scores of the very tokens.
- prefixes: PPO as RL4LMs ran it, made again in `prefix_loop.py`: each transition holds its whole
  context, every update reads it again, and policy, critic and reference are three models. Its speed
  alone is measured: a run would take hours.

A run is ``side/learning rate/seed`` and ends when the mean reward of the last 256 episodes is at
least `--target`, or after `--most` tokens. It counts if its KL to the untrained model, measured
afterwards by the same code on held-out prompts, is at most `--kl-limit` nats a token. Each side
runs at four learning rates with `--search` seeds, and with all `--seeds` at the one whose median is
the least. Groups, episodes an update and the coefficient of the KL are the same for both GRPO; what
else differs is each side's default. PPO learns once from a rollout of one budget of tokens a row.

Times are of one thread and leave out loading: `seconds` by the clock; `cpu_seconds` of the process,
which is what is compared, since it does not depend on what else the machine does.
Needs `pip install "textgym[trl]"`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "peers.json"
ENV = "textgym/Story-v0"
SIDES = ("ppo", "grpo", "trl")
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
PROMPTS, GROUP = 8, 8
ROWS = PROMPTS * GROUP
WINDOW = 256
BETA = 0.02
PACKAGES = ("textgym", "trl", "transformers", "torch", "stable-baselines3", "numpy")
GOAL_TRL, GOAL_PREFIXES = 1.3, 50.0


class Watch:
    """Takes the rewards of episodes as they end, and says when it is enough.

    Args:
        target: of the mean of the last `WINDOW`.
        most: tokens.
    """

    def __init__(self, target: float, most: int) -> None:
        self.target, self.most = target, most
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.episodes = self.tokens = 0
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def add(self, rewards: Sequence[float], tokens: int) -> None:
        """Rewards of episodes that ended, and how many tokens have been written since."""
        self.recent.extend(rewards)
        self.episodes += len(rewards)
        self.tokens += tokens

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return len(self.recent) == WINDOW and statistics.mean(self.recent) >= self.target

    @property
    def over(self) -> bool:
        """Whether to stop."""
        return self.reached or self.tokens >= self.most

    def figures(self) -> dict[str, Any]:
        """What it came to, when training has ended."""
        return {
            "reached": self.reached,
            "mean_reward": round(statistics.mean(self.recent), 4),
            "seconds": round(time.perf_counter() - self.wall, 2),
            "cpu_seconds": round(time.process_time() - self.cpu, 2),
            "episodes": self.episodes,
            "tokens": self.tokens,
        }


# ---------------------------------------------------------------- the sides
def train_here(side: str, rate: float, seed: int, options: Any, folder: str) -> dict[str, Any]:
    """PPO or GRPO on Stable-Baselines3; leaves the model in `folder`."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    from textgym_agents.sb3 import GRPO, LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

    class Stop(BaseCallback):
        """Reads the episodes that ended; stops after an update, as TRL does."""

        def __init__(self) -> None:
            super().__init__()
            self.written, self.stopping = 0, False

        def _on_rollout_end(self) -> None:
            self.stopping = watch.over

        def _on_step(self) -> bool:
            if self.stopping:
                return False
            ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            watch.add(ended, self.num_timesteps - self.written)
            self.written = self.num_timesteps
            return True

    envs = make_vec_env(ENV, n_envs=ROWS, seed=seed)
    cls, keywords = GRPO, {"learning_rate": rate, "group_size": GROUP}
    if side == "ppo":
        cls = PPO
        # A constant rate, as for the others: a warm-up is a share of training, which has no end.
        keywords = ppo_defaults(envs) | {
            "learning_rate": rate,
            "n_steps": envs.envs.unwrapped.max_new_tokens,
        }
        keywords |= {"n_epochs": 1, "rollout_buffer_class": TokenRolloutBuffer}
    policy = {"model": "bundled", "kl_coef": BETA}
    agent = cls(LMPolicy, envs, policy_kwargs=policy, seed=seed, device="cpu", **keywords)
    watch = Watch(options.target, options.most)
    agent.learn(sys.maxsize, callback=Stop())
    found = watch.figures()
    agent.policy.save_pretrained(folder)
    return found


def train_trl(rate: float, seed: int, options: Any, folder: str) -> dict[str, Any]:
    """TRL's GRPO; leaves the model in `folder`."""
    import gymnasium as gym
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from textgym_agents.lm import BUNDLED
    from textgym_agents.trl import as_trl_tokenizer, prompts_dataset, reward_functions

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = watch.over

    env = gym.make(ENV)
    (score,) = reward_functions(env)

    def watched(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> Any:
        rewards = score(prompts, completions, completion_ids=completion_ids, **columns)
        watch.add(rewards, sum(map(len, completion_ids)))
        return rewards

    updates = -(-options.most // ROWS)  # more than enough: an episode is more than one token
    config = GRPOConfig(
        output_dir=folder,
        max_steps=updates,
        per_device_train_batch_size=ROWS,
        num_generations=GROUP,
        max_completion_length=env.unwrapped.max_new_tokens,
        temperature=1.0,
        shuffle_dataset=False,
        beta=BETA,
        learning_rate=rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        max_grad_norm=1.0,
        disable_dropout=True,
        seed=seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        log_level="error",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=str(BUNDLED),
        reward_funcs=[watched],
        args=config,
        train_dataset=prompts_dataset(env, updates * PROMPTS, seed=seed),
        processing_class=as_trl_tokenizer(env),
        callbacks=[Stop()],
    )
    watch = Watch(options.target, options.most)
    trainer.train()
    found = watch.figures()
    trainer.save_model(folder)
    return found


def prefixes(options: Any) -> dict[str, Any]:
    """Tokens per second of the older loop, and of PPO here over the same rollouts and epochs."""
    from prefix_loop import compare

    return compare(ENV, tokens=options.prefix_tokens)


def held_out(folder: str, episodes: int) -> dict[str, float]:
    """Score and KL to the untrained model of the model in a folder, sampled."""
    from stable_baselines3 import PPO

    from textgym_agents.lm import load_model
    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, evaluate, make_vec_env

    envs = make_vec_env(ENV, n_envs=ROWS, split="test")
    policy = {"model": "bundled", "kl_coef": BETA}  # its reference is the untrained model
    agent = PPO(
        LMPolicy,
        envs,
        n_steps=64,
        batch_size=1024,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs=policy,
        device="cpu",
    )
    agent.policy.lm.model.load_state_dict(load_model(folder).state_dict())
    agent.policy.invalidate_cache()
    result = evaluate(agent.policy, envs, episodes, seed=12_345)
    return {
        "heldout_score": round(result.mean_reward, 4),
        "heldout_kl": round(result.mean_kl_per_token, 4),
    }


# ---------------------------------------------------------------- runs
def key_of(side: str, rate: float, seed: int) -> str:
    """The name of a run."""
    return f"{side}/{rate:g}/{seed}"


def run_here(key: str, options: argparse.Namespace) -> None:
    """Run one and print its figures as the last line."""
    import torch

    torch.set_num_threads(1)
    if key == "prefixes":
        print(json.dumps(prefixes(options)))
        return
    side, rate, seed = key.split("/")
    with tempfile.TemporaryDirectory() as folder:
        if side == "trl":
            found = train_trl(float(rate), int(seed), options, folder)
        else:
            found = train_here(side, float(rate), int(seed), options, folder)
        print(json.dumps(found | held_out(folder, options.episodes)))


def run_apart(key: str, options: argparse.Namespace) -> dict[str, Any]:
    """`run_here` in a process of its own."""
    command = [sys.executable, __file__, "--run", key]
    for name in ("target", "most", "episodes", "prefix_tokens"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        raise SystemExit(f"{key} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def counted(run: dict[str, Any], kl_limit: float) -> float:
    """The CPU seconds of a run; infinite where it did not reach the target within the KL."""
    good = run["reached"] and run["heldout_kl"] <= kl_limit
    return run["cpu_seconds"] if good else math.inf


def of(record: dict[str, Any], side: str, rate: float) -> list[dict[str, Any]]:
    """The runs of a side at a learning rate."""
    prefix = key_of(side, rate, 0)[:-1]
    return [run for key, run in record["runs"].items() if key.startswith(prefix)]


def best_rate(record: dict[str, Any], side: str, kl_limit: float) -> float | None:
    """The rate whose median time is the least; None where no rate reaches the target."""

    def median(rate: float) -> float:
        times = [counted(run, kl_limit) for run in of(record, side, rate)]
        return statistics.median_high(times) if times else math.inf

    found = min(RATES, key=median)
    return found if median(found) < math.inf else None


def summary(record: dict[str, Any], kl_limit: float) -> dict[str, Any]:
    """Medians over the seeds at each side's best rate, and the ratios that are asked for."""
    found: dict[str, Any] = {}
    for side in SIDES:
        rate = best_rate(record, side, kl_limit)
        if rate is None:
            continue
        runs = of(record, side, rate)
        found[side] = {
            "learning_rate": rate,
            "seeds": len(runs),
            "median_cpu_seconds": statistics.median_high(counted(r, kl_limit) for r in runs),
            "episodes_per_cpu_second": round(
                sum(r["episodes"] for r in runs) / sum(r["cpu_seconds"] for r in runs), 2
            ),
            "median_tokens": statistics.median_high(r["tokens"] for r in runs),
            "reached": sum(counted(r, kl_limit) < math.inf for r in runs),
        }
    for side in ("ppo", "grpo"):
        if side in found and "trl" in found:
            found[f"trl_over_{side}"] = round(
                found["trl"]["median_cpu_seconds"] / found[side]["median_cpu_seconds"], 2
            )
    found["goals"] = {
        "trl_over_ppo": GOAL_TRL,
        "trl_over_grpo": GOAL_TRL,
        "ppo_over_prefixes": GOAL_PREFIXES,
    }
    for key, value in record["runs"].get("prefixes", {}).items():
        if key.startswith("ppo_over_"):
            found[key] = value
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=float, default=0.75, help="mean reward to reach")
    parser.add_argument("--most", type=int, default=300_000, help="tokens of a run")
    parser.add_argument("--kl-limit", type=float, default=0.3, help="nats a token")
    parser.add_argument("--search", type=int, default=2, help="seeds at every learning rate")
    parser.add_argument("--seeds", type=int, default=5, help="at the best one")
    parser.add_argument("--episodes", type=int, default=256, help="held out, to score a model")
    parser.add_argument("--prefix-tokens", type=int, default=512, help="of the older loop")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="such as 'trl/*'")
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


def load(options: argparse.Namespace) -> dict[str, Any]:
    """The record in the file, or a new one."""
    settings = {k: getattr(options, k) for k in ("target", "most", "kl_limit", "episodes")}
    settings |= {"env": ENV, "rows": ROWS, "group": GROUP, "beta": BETA}
    if not options.out.is_file():
        return {"settings": settings, "runs": {}}
    record = json.loads(options.out.read_text(encoding="utf-8"))
    if record["settings"] != settings:
        raise SystemExit(f"{options.out} holds runs of {record['settings']}: give another --out")
    return record


def main() -> None:
    """Search, run, compare, write."""
    options = arguments()
    if options.run:
        run_here(options.run, options)
        return
    record = load(options)

    def ensure(keys: Sequence[str]) -> None:
        for key in keys:
            wanted = not options.only or any(fnmatch(key, p) for p in options.only)
            if options.summary or not wanted or key in record["runs"]:
                continue
            record["runs"][key] = run_apart(key, options)
            print(key, json.dumps(record["runs"][key]), flush=True)
            write(record, options)

    for side in SIDES:
        ensure([key_of(side, rate, seed) for rate in RATES for seed in range(options.search)])
        if (rate := best_rate(record, side, options.kl_limit)) is not None:
            ensure([key_of(side, rate, seed) for seed in range(options.seeds)])
    ensure(["prefixes"])
    write(record, options)
    print(json.dumps(record["summary"], indent=1))


def write(record: dict[str, Any], options: argparse.Namespace) -> None:
    """The record with its summary, all or nothing."""
    record["summary"] = summary(record, options.kl_limit)
    record["versions"] = {name: version(name) for name in PACKAGES}
    record["machine"] = f"{platform.machine()}, Python {platform.python_version()}, 1 thread, CPU"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    part = options.out.with_name(options.out.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(options.out)


if __name__ == "__main__":
    main()
