"""Evaluation of a policy: whole episodes, their scores, rewards, texts and KL to the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.utils import obs_as_tensor

from textgym import Episode
from textgym_agents.sb3.packed import PackedBatch
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.vec_env import TextVecEnv


@dataclass(frozen=True)
class EvaluationResult:
    """Means over the episodes played.

    Args:
        mean_score: the task's score in [0, 1]; None for a task without one.
        mean_reward: return of an episode.
        rewards: mean of each reward component by name.
        metrics: mean of each of the task's metrics by name.
        mean_kl_per_token: KL(policy, reference) by the k1 estimator, nats a token; 0 without a
            reference or when greedy.
        episodes: what was written.
        returns: `[n]`, the return of each episode.
    """

    mean_score: float | None
    mean_reward: float
    rewards: dict[str, float]
    metrics: dict[str, float]
    mean_kl_per_token: float
    episodes: list[Episode]
    returns: NDArray[np.float64] = field(repr=False)


@torch.no_grad()
def evaluate(
    policy: LMPolicy,
    envs: TextVecEnv,
    episodes: int,
    *,
    deterministic: bool = False,
    seed: int | None = None,
) -> EvaluationResult:
    """Play `episodes` episodes of `envs`.

    Every row plays the same number (the last round partly), so that short episodes are not
    over-represented, as they would be among the first to end.

    Args:
        policy: the policy; it is left in evaluation mode. One that takes action masks gets those
            of `envs`.
        envs: the environments; reset first.
        episodes: how many, at least 1.
        deterministic: the most probable token always, instead of sampling.
        seed: of the environments' instances and, with `torch.manual_seed` inside a fork of the
            global generator, of the sampling; None draws on both as they are.
    """
    if episodes < 1:
        raise ValueError(f"`episodes` must be a positive int, got {episodes}.")
    policy.set_training_mode(False)
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=seed is not None):
        if seed is not None:
            envs.seed(seed)
            torch.manual_seed(seed)
        played = _play(policy, envs, episodes, deterministic)
    infos = [info for info, _, _ in played]
    ended = [p for p in played if "episode_record" in p[0]]
    scores = [p[0]["score"] for p in ended if "score" in p[0]]
    returns = np.array([info["episode"]["r"] for info in infos])
    scored = getattr(getattr(envs.envs.unwrapped, "task", None), "scored", True)
    return EvaluationResult(
        mean_score=float(np.mean(scores)) if scores and scored else None,
        mean_reward=float(returns.mean()),
        rewards=_means([p[0]["rewards"] for p in ended]),
        metrics=_means([p[0]["metrics"] for p in ended if "metrics" in p[0]]),
        mean_kl_per_token=0.0 if deterministic else _kl_per_token(policy, ended),
        episodes=[p[0]["episode_record"] for p in ended],
        returns=returns,
    )


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure by name, 0 where an episode has none (nobody replied to it, say)."""
    names = sorted({name for one in figures for name in one})
    return {name: float(np.mean([one.get(name, 0.0) for one in figures])) for name in names}


_Played = tuple[dict[str, Any], list[float], list[NDArray[np.uint8]]]


def _play(policy: LMPolicy, envs: TextVecEnv, episodes: int, deterministic: bool) -> list[_Played]:
    """(info at the end, log-prob of each token, packed support of each token) an episode."""
    quota = [len(range(row, episodes, envs.num_envs)) for row in range(envs.num_envs)]
    log_probs: list[list[float]] = [[] for _ in quota]
    supports: list[list[NDArray[np.uint8]]] = [[] for _ in quota]
    played: list[list[_Played]] = [[] for _ in quota]
    observation = envs.reset()
    masked = policy.takes_action_masks and envs.has_attr("action_masks")
    while any(len(p) < q for p, q in zip(played, quota, strict=True)):
        if masked:  # where `MaskObservation` puts it, too
            observation = {**observation, "action_mask": np.stack(envs.env_method("action_masks"))}
        tensors = obs_as_tensor(observation, policy.device)
        actions, _, log_prob = policy.act(tensors, deterministic, caller="evaluate")
        support = getattr(log_prob, "support", None)
        support = None if support is None else support.cpu().numpy()
        observation, _, dones, infos = envs.step(actions.cpu().numpy())
        for row, value in enumerate(log_prob.tolist()):
            log_probs[row].append(value)
            if support is not None:
                supports[row].append(support[row])
        for row in np.flatnonzero(dones):
            if len(played[row]) < quota[row]:
                played[row].append((infos[row], log_probs[row], supports[row]))
            log_probs[row], supports[row] = [], []
    # Round by round: the first texts are the first of every row.
    rounds = max(quota)
    return [p[i] for i in range(rounds) for p in played if i < len(p)]


def _kl_per_token(policy: LMPolicy, played: list[_Played]) -> float:
    if policy.reference is None or not played:
        return 0.0
    total, count = 0.0, 0
    for i in range(0, len(played), 32):
        part = played[i : i + 32]
        batch = _packed([p[0]["episode_record"] for p in part], [p[2] for p in part])
        ref = policy.packed_log_probs(batch.to(policy.device), reference=True).cpu().numpy()
        old = np.concatenate([p[1] for p in part])
        total += float((old - ref).sum())
        count += len(old)
    return total / count


def _packed(records: list[Episode], supports: list[list[NDArray[np.uint8]]]) -> PackedBatch:
    width = max(len(r.input_ids) for r in records)
    input_ids = np.zeros((len(records), width), dtype=np.int64)
    index, actions = [], []
    for i, record in enumerate(records):
        input_ids[i, : len(record.input_ids)] = record.input_ids
        at = np.flatnonzero(record.completion_mask)
        index.append(i * width + at - 1)  # the state a token was chosen in ends before it
        actions.append(record.input_ids[at])
    bits = [b for support in supports for b in support]
    return PackedBatch(
        torch.from_numpy(input_ids),
        torch.from_numpy(np.concatenate(index)),
        torch.from_numpy(np.concatenate(actions)),
        [len(a) for a in actions],
        torch.from_numpy(np.stack(bits)) if bits else None,
    )
