"""`textgym evaluate`: a model's figures on held-out prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from textgym_agents.cli.building import build_agent, build_envs
from textgym_agents.cli.heldout import HeldOut
from textgym_agents.cli.options import TrainOptions


def evaluate(options: TrainOptions, *, greedy: bool) -> dict[str, Any]:
    """The figures of `options.eval_episodes` held-out episodes.

    Returns:
        `id`, `model`, `episodes`, `seed`, `greedy`, `score` (None for a task without one),
        `reward`, its standard error `reward_error`, and `rewards` by name.
    """
    torch.set_num_threads(options.threads or 1)
    envs = build_envs(options.env, options.model, n_envs=1, seed=options.seed, split="test")
    try:
        agent = build_agent(options, envs)
    finally:
        envs.close()
    held_out = HeldOut(options.env, options.model, seed=options.seed)
    result = held_out(agent.policy, options.eval_episodes, greedy=greedy)
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
    }
