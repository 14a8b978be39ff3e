"""Data-parallel training: SB3's own PPO and A2C in several processes that learn as one.

Each process writes texts in environments of its own; all take the step that one process would take
on what they wrote together. Made for `torchrun`, on the CPU (gloo) or with a GPU each (NCCL):

    with setup() as processes:
        agent = PPO(LMPolicy, envs, rollout_buffer_class=TokenRolloutBuffer,
                    seed=processes.seed(0), device=processes.device, **ppo_defaults(envs))
        distribute(agent, processes)
        agent.learn(tokens // processes.count)

A wrapper such as torch's `DistributedDataParallel` hears of a model's `forward` only, and SB3 calls
`evaluate_actions`. So gradients are summed where a backward pass ends, between SB3's
``loss.backward()`` and its clipping.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.rollout_buffer import TokenRolloutBuffer

# Numbers sent at a time: a message for each parameter takes several times as long, and all at
# once would be a copy of all gradients.
_BUCKET = 2**23


@dataclass(frozen=True)
class Processes:
    """The processes that learn together, as one of them sees it; made by `setup`.

    Args:
        rank: which of them this is, from 0.
        count: how many they are.
        device: where this one's model belongs.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one is to save and to print; all hold the same weights."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A seed of this process's own; that of the first is `seed` itself.

        Not ``seed + rank``: then runs with seeds 0 and 1 would share most of their data.
        """
        if self.first:
            return seed
        return int(np.random.SeedSequence((seed, self.rank)).generate_state(1)[0])

    def gather(self, row: NDArray[Any]) -> NDArray[np.float64]:
        """`[count, n] float64`, the `row [n]` of every process; all must call it."""
        if self.count == 1:
            return np.asarray(row, dtype=np.float64)[None]
        # A sum of rows that are zero elsewhere: the one collective that all backends have.
        rows = torch.zeros(self.count, len(row), dtype=torch.float64)
        rows[self.rank] = torch.from_numpy(np.asarray(row, dtype=np.float64))
        rows = rows.to(self.device)
        dist.all_reduce(rows)
        return rows.cpu().numpy()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1:
            dist.destroy_process_group()


def setup(*, device: str | None = None, timeout: float = 1800.0) -> Processes:
    """Join the processes that `torchrun` started; without it, this process is alone.

    Args:
        device: ``"cpu"`` or ``"cuda"``; None takes a GPU for each process where there are enough.
        timeout: seconds to wait for the others before an error.

    Raises:
        ValueError: there are fewer GPUs than processes on this machine.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f'`device` must be "cpu", "cuda" or None, got {device!r}.')
    if device == "cuda" and gpus < here:
        raise ValueError(
            f"{here} processes need a GPU each, and this machine has {gpus}. Start fewer, or pass "
            '`device="cpu"`.'
        )
    place = torch.device("cpu")
    if device != "cpu" and gpus >= here:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    if count > 1:
        backend = "nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    return Processes(rank, count, place)


def distribute(agent: OnPolicyAlgorithm, processes: Processes) -> None:
    """Let `agent` learn with those of the other processes; call it before `learn`, in each.

    From then on all hold the weights of the first, and keep them equal: gradients are averaged over
    the transitions of all minibatches before they are clipped, advantages are whitened over all
    rollouts, and the adaptive KL coefficient follows the KL of all. `batch_size`, `n_steps` and
    `total_timesteps` are those of one process. Only the first writes logs, of its own episodes.

    A callback that stops the training, or calls `compute_returns_and_advantage`, must do so in
    every process: the others would wait for it until the timeout of `setup`.

    Raises:
        ValueError: the agent cannot be distributed, or those of the processes differ where they
            must not, or share a seed.
    """
    if processes.count == 1:
        return
    # Refusals are exchanged, so that no process is left waiting for one that refused.
    _agree(agent, _refusal(agent, processes))
    state = agent.policy.state_dict()
    for value in state.values():
        if isinstance(value, Tensor):
            dist.broadcast(value, 0)
    agent.policy.load_state_dict(state)  # they are in place; this drops what caches hold of them
    agent.rollout_buffer.gather = processes.gather
    groups = agent.policy.optimizer.param_groups
    _MeanGradients([p for group in groups for p in group["params"]], agent.rollout_buffer)
    if not processes.first:
        agent.verbose, agent.tensorboard_log = 0, None


class _MeanGradients:
    """Replaces gradients by their means over the transitions of all processes' minibatches.

    SB3's losses are means over a minibatch, and minibatches of whole episodes differ in size: so
    each process's gradient counts by its transitions.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], buffer: TokenRolloutBuffer) -> None:
        self.parameters = parameters
        self.buffer = buffer
        self._last = False
        # The first hook runs before the last gradient of a backward pass is stored, the second
        # after each: together they find the end of the pass, whichever parameters took part. All
        # at once and in a fixed order, since the order of a pass may differ between processes.
        register_multi_grad_hook(parameters, self._computed)
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._stored)

    def _computed(self, _: Sequence[Tensor | None]) -> None:
        self._last = True

    def _stored(self, _: Tensor) -> None:
        if self._last:
            self._last = False
            if self.buffer.minibatch_size:  # else a pass outside of updates: nobody's concern
                self._reduce(self.buffer.minibatch_size)

    @torch.no_grad()
    def _reduce(self, transitions: int) -> None:
        has = [p.grad is not None for p in self.parameters]
        device = self.parameters[0].device
        counts = torch.tensor([transitions, *has], dtype=torch.float64, device=device)
        dist.all_reduce(counts)
        total, *holders = counts.tolist()
        gradients = []
        for parameter, held in zip(self.parameters, holders, strict=True):
            if not held:
                continue  # None everywhere, as it would be in one process
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat.mul_(transitions / total))
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`tensors` in order, in lists of one dtype that are worth a message and small to copy."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(t.numel() for t in bucket) + tensor.numel()
        if bucket and (size > _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


# ---------------------------------------------------------------------- what must hold
def _refusal(agent: OnPolicyAlgorithm, processes: Processes) -> str | None:
    """Why `agent` cannot be distributed, or None."""
    kinds = type(agent).__name__, type(agent.policy).__name__, type(agent.rollout_buffer).__name__
    if not (
        isinstance(agent, PPO | A2C)
        and isinstance(agent.policy, LMPolicy)
        and isinstance(agent.rollout_buffer, TokenRolloutBuffer)
    ):
        return (
            "only PPO and A2C with LMPolicy and TokenRolloutBuffer learn in several processes, got "
            f"{', '.join(kinds)}. Use one process, or those."
        )
    if getattr(agent, "target_kl", None) is not None:
        return (
            "`target_kl` stops an update by the KL of one process's minibatch, and the others "
            "would wait for ever. Leave it None and use fewer `n_epochs` or a `kl_coef`."
        )
    if agent.normalize_advantage:
        return (
            "`normalize_advantage` whitens by one process's minibatch. Set it False and "
            '`rollout_buffer_kwargs={"whiten_advantages": True}`, as `ppo_defaults(envs)` does.'
        )
    if agent.seed is None:
        return "each process needs a seed of its own: pass `seed=processes.seed(0)` to the agent."
    if agent.device.type != processes.device.type:
        return (
            f"the agent is on {agent.device}, this process on {processes.device}. Pass "
            "`device=processes.device` to the agent."
        )
    return None


def _settings(agent: OnPolicyAlgorithm) -> dict[str, Any]:
    """What must be equal in all processes."""
    policy, buffer = agent.policy, agent.rollout_buffer
    shapes = [tuple(p.shape) for p in policy.parameters()]
    return {
        "algorithm": type(agent).__name__,
        "model (shapes of its parameters)": shapes,
        "num_timesteps (resume all from the same checkpoint)": agent.num_timesteps,
        "number of environments": agent.n_envs,
        "n_steps": agent.n_steps,
        "batch_size": getattr(agent, "batch_size", None),
        "n_epochs": getattr(agent, "n_epochs", None),
        "learning_rate": agent.lr_schedule(1.0),
        "max_grad_norm": agent.max_grad_norm,
        "ent_coef, vf_coef": (agent.ent_coef, agent.vf_coef),
        "gamma, gae_lambda": (buffer.gamma, buffer.gae_lambda),
        "whiten_advantages": buffer.whiten_advantages,
        "critic_threshold": buffer.critic_threshold,
        "kl_target": policy.kl_target,
        "reference": policy.reference is not None,
    }


def _agree(agent: OnPolicyAlgorithm, refusal: str | None) -> None:
    """Raise `ValueError` in all processes where one refuses, or where they differ."""
    own = {} if refusal else _settings(agent)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (refusal, agent.seed, own))
    for rank, (reason, _, _) in enumerate(everyone):
        if reason:
            raise ValueError(f"process {rank}: {reason}")
    seeds = [seed for _, seed, _ in everyone]
    if len(set(seeds)) < len(seeds):
        raise ValueError(
            f"processes with the same seed write the same texts, got {seeds}. Pass "
            "`seed=processes.seed(0)` to the agent."
        )
    for name in everyone[0][2]:
        values = [settings[name] for _, _, settings in everyone]
        if any(value != values[0] for value in values):
            raise ValueError(f"processes must agree on the {name}, got {values}.")
