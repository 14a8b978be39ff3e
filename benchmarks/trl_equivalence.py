"""GRPO here and GRPO of TRL, side by side: the same model, prompts, loss and budget.

    python benchmarks/trl_equivalence.py --seeds 8            # all, one after another
    python benchmarks/trl_equivalence.py --seeds 1 --updates 5 --out /tmp/one.json

For each seed both learn from as many completions of the very same prompts (of one stream of
instances, in the same order), with the same loss, group scaling, KL, constant learning rate, AdamW
and gradient norm; what is left to chance is the sampling of the tokens. Both models are then scored
by the same code, sampled at temperature 1 on held-out prompts, and normalised by the reference
returns of `textgym.scoring`. Reports the difference of the means with its 95% interval (Welch), and
the speed of each: tokens written a second of processor time, in which they are learnt from too.
Needs `pip install "textgym[trl]"`; one torch thread. A run takes less than a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from trl import GRPOConfig, GRPOTrainer

from textgym.scoring import normalized
from textgym_agents.lm import BUNDLED
from textgym_agents.sb3 import LMPolicy, evaluate, make_vec_env
from textgym_agents.sb3.grpo import GRPO
from textgym_agents.trl import as_trl_tokenizer, prompts_dataset, reward_functions

RESULTS = Path(__file__).resolve().parent / "results" / "trl_equivalence.json"
# How the losses of tokens are averaged: our name, and TRL's.
LOSSES = {"sequence": "grpo", "token": "dapo", "budget": "dr_grpo"}
TARGET = 0.05
# 97.5% quantiles of Student's t by degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
T_975 += (2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)


class StopAfter(BaseCallback):
    """Stops after so many updates, and keeps how many tokens they took."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates
        self.tokens = 0

    def _on_step(self) -> bool:
        return self.model._n_updates < self.updates

    def _on_rollout_end(self) -> None:
        self.tokens = self.num_timesteps


def train_here(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, float]:
    """Our GRPO; leaves the model in `folder`."""
    envs = make_vec_env(options.env, n_envs=options.prompts * options.group, seed=seed)
    agent = GRPO(
        LMPolicy,
        envs,
        learning_rate=options.learning_rate,
        loss_average=options.loss,
        scale_by_std=True,
        clip_range=0.2,
        kl="loss",
        group_size=options.group,
        n_epochs=1,
        max_grad_norm=1.0,
        policy_kwargs={"model": "bundled", "kl_coef": options.beta},
        seed=seed,
        device="cpu",
    )
    stop, began = StopAfter(options.updates), time.process_time()
    agent.learn(sys.maxsize, callback=stop)
    seconds = time.process_time() - began
    agent.policy.save_pretrained(folder)
    return {"tokens": stop.tokens, "cpu_seconds": round(seconds, 2)}


def train_trl(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, float]:
    """TRL's GRPO; leaves the model in `folder`."""
    env = gym.make(options.env)
    batch = options.prompts * options.group
    config = GRPOConfig(
        output_dir=str(folder),
        max_steps=options.updates,
        per_device_train_batch_size=batch,
        num_generations=options.group,
        max_completion_length=env.unwrapped.max_new_tokens,
        temperature=1.0,
        shuffle_dataset=False,
        loss_type=LOSSES[options.loss],
        scale_rewards="group",
        epsilon=0.2,
        beta=options.beta,
        use_bias_correction_kl=False,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta2=0.99,  # LMPolicy's
        weight_decay=0.0,
        max_grad_norm=1.0,
        disable_dropout=True,
        seed=seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        log_level="error",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=str(BUNDLED),
        reward_funcs=reward_functions(env),
        args=config,
        train_dataset=prompts_dataset(env, options.updates * options.prompts, seed=seed),
        processing_class=as_trl_tokenizer(env),
    )
    trainer.log = _quietly(trainer)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    trainer.save_model(str(folder))
    lengths = [log["completions/mean_length"] for log in trainer.logged]
    return {"tokens": round(sum(lengths) * batch), "cpu_seconds": round(seconds, 2)}


def _quietly(trainer: GRPOTrainer) -> Any:
    """Keeps what TRL would print."""
    trainer.logged = []

    def log(logs: dict[str, float], start_time: float | None = None) -> None:
        means = {key: float(np.mean(values)) for key, values in trainer._metrics["train"].items()}
        if "completions/mean_length" in means:
            trainer.logged.append(means)
        trainer._metrics["train"].clear()

    return log


def score(options: argparse.Namespace, model: str) -> float:
    """Mean normalised return of the model in a folder, sampled, on held-out prompts."""
    envs = make_vec_env(options.env, n_envs=64, split="test")
    agent = GRPO(
        LMPolicy,
        envs,
        policy_kwargs={"model": model, "kl_coef": 0.0},
        device="cpu",
    )
    result = evaluate(agent.policy, envs, options.episodes, seed=12_345)
    return float(normalized(result.mean_reward, options.env))


def difference(ours: list[float], theirs: list[float]) -> dict[str, float] | None:
    """Mean of `ours` less that of `theirs` and its 95% interval; None of a single seed.

    Source: Welch 1947, The generalization of Student's problem.
    """
    a, b = np.array(ours), np.array(theirs)
    if len(a) < 2:
        return None
    parts = [values.var(ddof=1) / len(values) for values in (a, b)]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(a) - 1) for p in parts) if any(parts) else 1.0
    t = T_975[min(math.floor(freedom), len(T_975)) - 1]
    mean, half = float(a.mean() - b.mean()), t * math.sqrt(sum(parts))
    return {
        "mean": round(mean, 4),
        "low": round(mean - half, 4),
        "high": round(mean + half, 4),
        "within_target": abs(mean) <= TARGET,
        "interval_within_target": abs(mean) + half <= TARGET,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="textgym/Story-v0")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=8, help="an update")
    parser.add_argument("--group", type=int, default=8, help="completions a prompt")
    parser.add_argument("--loss", choices=LOSSES, default="token", help="average of the loss")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--beta", type=float, default=0.02, help="of the KL (k3) in the loss")
    parser.add_argument("--episodes", type=int, default=256, help="held out, to score a model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """Train, score, compare, write; a seed that is in the file already is not run again."""
    options = arguments()
    torch.set_num_threads(1)
    settings = {k: v for k, v in vars(options).items() if k not in ("seeds", "out")}
    record: dict[str, Any] = {"settings": settings, "seeds": {}}
    if options.out.is_file():
        found = json.loads(options.out.read_text(encoding="utf-8"))
        record = found if found["settings"] == settings else record
    record |= {
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {
            name: version(name)
            for name in ("textgym", "trl", "transformers", "torch", "stable-baselines3", "numpy")
        },
        "machine": f"{platform.machine()}, Python {platform.python_version()}, 1 thread, CPU",
    }
    record.setdefault("before", score(options, "bundled"))
    for seed in range(options.seeds):
        if str(seed) in record["seeds"]:
            continue
        row: dict[str, Any] = {}
        for name, train in (("textgym", train_here), ("trl", train_trl)):
            with tempfile.TemporaryDirectory() as folder:
                row[name] = train(options, seed, Path(folder))
                row[name]["normalized_return"] = round(score(options, folder), 4)
        record["seeds"][str(seed)] = row
        print(seed, row, flush=True)
        _summarise(record)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["summary"], indent=1))


def _summarise(record: dict[str, Any]) -> None:
    rows = list(record["seeds"].values())
    returns = {n: [row[n]["normalized_return"] for row in rows] for n in ("textgym", "trl")}
    record["summary"] = {
        "seeds": len(rows),
        **{name: round(float(np.mean(values)), 4) for name, values in returns.items()},
        "difference": difference(returns["textgym"], returns["trl"]),
        "target": TARGET,
        "tokens_per_cpu_second": {
            name: round(
                sum(row[name]["tokens"] for row in rows)
                / sum(row[name]["cpu_seconds"] for row in rows)
            )
            for name in returns
        },
    }


if __name__ == "__main__":
    main()
