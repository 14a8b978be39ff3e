"""What an agent whose policy is a language model makes of an episode, token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textgym import Episode
from textgym_agents.bench.evaluation import Played
from textgym_agents.lm import pack_support
from textgym_agents.sb3 import LMPolicy
from textgym_agents.sb3.critic_free import CriticFree
from textgym_agents.sb3.packed import PackedBatch


@torch.no_grad()
def policy_figures(agent: Any, played: Played) -> dict[str, list[float]]:
    """Values, advantages and log-probs of the tokens of an episode, by the policy's own methods.

    Args:
        agent: figures are of its `policy`, where that is an `LMPolicy`; else there are none.
        played: one whole episode.

    Returns:
        `log_probs`, nats; `ref_log_probs` where the policy keeps a reference; `values` and
        `advantages` where the agent learns values. Advantages are generalised, of the agent's own
        gamma and lambda, and of the environment's rewards alone.
    """
    policy = getattr(agent, "policy", None)
    if not isinstance(policy, LMPolicy) or played.episode is None:
        return {}
    policy.set_training_mode(False)
    batch = _packed(played.episode, played.masks).to(policy.device)
    values, log_probs, _ = policy.evaluate_actions(batch, batch.actions)
    found = {"log_probs": log_probs.double().tolist()}
    if policy.reference is not None:
        found["ref_log_probs"] = policy.packed_log_probs(batch, reference=True).double().tolist()
    if hasattr(agent, "gae_lambda") and not isinstance(agent, CriticFree):
        own = values.flatten().double().cpu().numpy()
        rewards = np.array(played.rewards)
        found["values"] = own.tolist()
        found["advantages"] = generalised_advantages(
            rewards, own, agent.gamma, agent.gae_lambda
        ).tolist()
    return found


def generalised_advantages(
    rewards: NDArray[np.float64], values: NDArray[np.float64], gamma: float, lam: float
) -> NDArray[np.float64]:
    """`[n]`, of the tokens of one whole episode.

    Args:
        rewards, values: `[n]`, of each token, and of the state it was chosen in.
        gamma: discount.
        lam: lambda.

    Source: Schulman et al. 2016, https://arxiv.org/abs/1506.02438.

    >>> generalised_advantages(np.array([0.0, 1.0]), np.array([0.5, 0.5]), 1.0, 1.0).tolist()
    [0.5, 0.5]
    """
    errors = rewards + gamma * np.append(values[1:], 0.0) - values
    found, last = np.zeros(len(errors)), 0.0
    for i in reversed(range(len(errors))):
        found[i] = last = errors[i] + gamma * lam * last
    return found


def _packed(episode: Episode, masks: list[NDArray[np.bool_]]) -> PackedBatch:
    at = np.flatnonzero(episode.completion_mask)
    return PackedBatch(
        torch.from_numpy(episode.input_ids[None].copy()),
        torch.from_numpy(at - 1),  # the state a token was chosen in ends before it
        torch.from_numpy(episode.input_ids[at]),
        [len(at)],
        pack_support(torch.from_numpy(np.stack(masks))) if masks else None,
    )
