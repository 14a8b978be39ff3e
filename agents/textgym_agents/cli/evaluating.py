"""`textgym evaluate`: a model's figures on held-out prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from textgym_agents.cli.building import build_policy
from textgym_agents.cli.heldout import HeldOut
from textgym_agents.cli.options import TrainOptions


def evaluate(options: TrainOptions, *, greedy: bool) -> dict[str, Any]:
    """The figures of `options.eval_episodes` held-out episodes.

    Returns:
        `id`, `model`, `episodes`, `seed`, `greedy`, `score` (None for a task without one),
        `reward`, its standard error `reward_error` (None for a single episode), `rewards` and
        `metrics` by name.
    """
    torch.set_num_threads(options.threads or 1)
    policy = build_policy(options.env, options.model)
    held_out = HeldOut(options.env, options.model, seed=options.seed)
    result = held_out(policy, options.eval_episodes, greedy=greedy)
    count = len(result.returns)
    return {
        "id": options.env.id,
        "model": options.model.model,
        "episodes": count,
        "seed": options.seed,
        "greedy": greedy,
        "score": result.mean_score,
        "reward": result.mean_reward,
        "reward_error": float(np.std(result.returns, ddof=1) / count**0.5) if count > 1 else None,
        "rewards": result.rewards,
        "metrics": result.metrics,
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The report for a person."""
    how = "greedy" if report["greedy"] else f"sampled, seed {report['seed']}"
    error = "" if report["reward_error"] is None else f" ± {report['reward_error']:.4f}"
    result = [
        f"{report['model']} on {report['id']}: {report['episodes']} held-out texts, {how}",
    ]
    if report["score"] is not None:
        result.append(f"score   {report['score']:.4f}")
    result.append(f"reward  {report['reward']:.4f}{error}")
    result += [f"  {name}: {v:.4f}" for name, v in report["rewards"].items() if name != "score"]
    result += [f"  {name}: {value:.4f}" for name, value in report["metrics"].items()]
    return result
