"""`TokenRolloutBuffer`: SB3's rollout buffer, with each token stored once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import BaseBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import Tensor

from textgym_agents.sb3.packed import PackedBatch

_FEWEST_SEGMENTS = 16


@dataclass(frozen=True)
class _Segment:
    """Steps of one row in which each context extends the last."""

    row: int
    first: int  # step
    end: int  # step after the last
    ids: NDArray[np.int64]  # the context at the last step


class TokenRolloutBuffer(RolloutBuffer):
    """Stores a context once per episode segment and yields whole segments.

    `LMPolicy.evaluate_actions` then reads each segment once instead of every prefix of it: the same
    losses and gradients as SB3's own buffer for the same transitions, at a fraction of the work.

    Args:
        buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs: as in
            `RolloutBuffer`; `buffer_size` is the steps of one row.
        whiten_advantages: give the advantages mean 0 and standard deviation 1 over the rollout
            (SB3's `normalize_advantage` does so in each minibatch, which in text is a few
            episodes: turn it off there).
        critic_threshold: advantages are Monte Carlo (lambda 1) while the values explain no more
            than this share of the variance of the returns; 0 uses `gae_lambda` always.

    Attributes:
        gather: makes `[P, n]` of a row `[n]` of figures, one for each of P processes that learn
            together; a process on its own unless `distributed.distribute` sets it.
        minibatch_size: transitions of the minibatch being learnt from; 0 outside of updates.
        settle: fills in the rewards that are still to come, see `AsyncScoring`; None: there are
            none.
    """

    gather: Callable[[NDArray[Any]], NDArray[np.float64]]

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        gae_lambda: float = 1.0,
        gamma: float = 0.99,
        n_envs: int = 1,
        *,
        whiten_advantages: bool = False,
        critic_threshold: float = 0.0,
    ) -> None:
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.gae_lambda = gae_lambda
        self.gamma = gamma
        self.whiten_advantages = whiten_advantages
        self.critic_threshold = critic_threshold
        self.generator_ready = False
        self.gather = _alone
        self.minibatch_size = 0
        self.settle: Callable[[], None] | None = None
        self.context_size = int(observation_space["input_ids"].shape[0])
        remaining = observation_space.spaces.get("remaining")
        self.max_new_tokens = None if remaining is None else int(remaining.high.max())
        self._columns = np.arange(self.context_size)
        self._warned = False
        _warn_about_defaults(gamma, buffer_size, observation_space)
        self.reset()

    def reset(self) -> None:
        """Empty the buffer."""
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros(shape, dtype=np.int64)
        self.rewards = np.zeros(shape, dtype=np.float32)
        self.episode_starts = np.zeros(shape, dtype=np.float32)
        self.values = np.zeros(shape, dtype=np.float32)
        self.log_probs = np.zeros(shape, dtype=np.float32)
        self.advantages = np.zeros(shape, dtype=np.float32)
        self.returns = np.zeros(shape, dtype=np.float32)
        self.lengths = np.zeros(shape, dtype=np.int64)
        self.prompt_lengths = np.zeros(shape, dtype=np.int64)
        self.support: list[NDArray[np.uint8] | None] = []
        self.segments: list[_Segment] = []
        self._context = np.zeros((self.n_envs, self.context_size), dtype=np.int64)
        self._began = np.zeros(self.n_envs, dtype=np.int64)
        self.pos, self.full, self.generator_ready = 0, False, False

    # ------------------------------------------------------------------ filling
    def add(
        self,
        obs: dict[str, NDArray[Any]],
        action: NDArray[Any],
        reward: NDArray[Any],
        episode_start: NDArray[Any],
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Add one step of every row; a context that does not extend the last opens a segment."""
        ids = np.asarray(obs["input_ids"])
        lengths = np.asarray(obs["attention_mask"]).sum(axis=1, dtype=np.int64)
        step = self.pos
        if step:
            before = self.lengths[step - 1]
            differs = ((ids != self._context) & (self._columns < before[:, None])).any(axis=1)
            opens = differs | (lengths <= before) | np.asarray(episode_start, dtype=bool)
            for row in np.flatnonzero(opens):
                self._close(int(row), step)
        np.copyto(self._context, ids)
        self.lengths[step] = lengths
        if self.max_new_tokens is not None and "remaining" in obs:
            written = self.max_new_tokens - np.asarray(obs["remaining"]).reshape(self.n_envs)
            self.prompt_lengths[step] = lengths - written
        self.actions[step] = np.asarray(action).reshape(self.n_envs)
        self.rewards[step] = reward
        self.episode_starts[step] = episode_start
        self.values[step] = value.detach().cpu().numpy().reshape(self.n_envs)
        self.log_probs[step] = log_prob.detach().cpu().numpy().reshape(self.n_envs)
        support = getattr(log_prob, "support", None)
        self.support.append(None if support is None else support.cpu().numpy())
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            for row in range(self.n_envs):
                self._close(row, self.pos)

    def _close(self, row: int, end: int) -> None:
        first = int(self._began[row])
        ids = self._context[row, : self.lengths[end - 1, row]].copy()
        self.segments.append(_Segment(row, first, end, ids))
        self._began[row] = end

    # ------------------------------------------------------------------ advantages
    def compute_returns_and_advantage(self, last_values: Tensor, dones: NDArray[Any]) -> None:
        """As in SB3, after the reward for staying near the reference model was added."""
        policy = getattr(last_values, "lm_policy", None)
        # The reference model reads while scores may still be on their way.
        kl = None if policy is None else self._kl_rewards(policy)
        if self.settle is not None:
            self.settle()
        if kl is not None:
            where, paid = kl
            self.rewards.reshape(-1)[where] += paid
        wanted = self.gae_lambda
        if self.critic_threshold and wanted < 1.0:
            self.gae_lambda = 1.0
            super().compute_returns_and_advantage(last_values, dones)
            self.gae_lambda = wanted
            _, unexplained = self._moments(self.returns - self.values)
            _, variance = self._moments(self.returns)
            explained = 1.0 - unexplained / (variance + 1e-12)
            if explained > self.critic_threshold:
                super().compute_returns_and_advantage(last_values, dones)
        else:
            super().compute_returns_and_advantage(last_values, dones)
        if self.whiten_advantages:
            mean, variance = self._moments(self.advantages)
            self.advantages = (self.advantages - mean) / (variance**0.5 + 1e-8)

    def _moments(self, values: NDArray[np.float32]) -> tuple[float, float]:
        """Mean and variance of `values` and those of the other processes."""
        own = np.array([values.size, values.mean(dtype=np.float64), values.var(dtype=np.float64)])
        counts, means, variances = self.gather(own).T
        mean = np.average(means, weights=counts)
        # The variance within the processes, and that between them.
        return float(mean), float(np.average(variances + (means - mean) ** 2, weights=counts))

    def _kl_rewards(self, policy: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Transitions, flattened, and what each is paid for staying near the reference model."""
        if policy.reference is None:
            policy.kl_stats = {}
            return None
        order = list(range(len(self.segments)))
        batch, where = self._pack(order)
        device_batch = batch.to(self.device)
        ref = policy.packed_log_probs(device_batch, reference=True).cpu().numpy()
        old = self.log_probs.ravel()[where]
        log_ratio = (old - ref).astype(np.float64)
        coef = float(policy.kl_coef)
        # k3: always positive and of low variance; for the eye, not for the reward.
        k3 = np.expm1(-log_ratio) + log_ratio
        # Every episode start but those at step 0 ended another; rows still open count as one.
        episodes = int(self.episode_starts[1:].sum()) + self.n_envs
        own = np.array([log_ratio.sum(), k3.sum(), len(log_ratio), episodes])
        total, total_k3, tokens, sequences = self.gather(own).sum(axis=0).tolist()
        policy.kl_stats = {
            "per_token": total / tokens,
            "per_sequence": total / sequences,
            "k3_per_token": total_k3 / tokens,
            "coef": coef,
        }
        policy.adapt_kl(total / sequences)
        return where, -coef * log_ratio  # k1: exact in expectation

    # ------------------------------------------------------------------ minibatches
    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Minibatches of whole segments, about `batch_size` transitions each, in random order.

        All transitions come once: the segments are spread evenly over
        ``round(total / batch_size)`` minibatches. None yields a single one.
        """
        if not self.full:
            raise ValueError("the buffer is not full yet; collect a whole rollout first.")
        total = self.buffer_size * self.n_envs
        count = 1 if batch_size is None else max(1, round(total / batch_size))
        # Every process yields as many, and none of them empty.
        count = int(self.gather(np.array([min(count, len(self.segments))])).min())
        try:
            yield from self._minibatches(count, batch_size)
        finally:
            self.minibatch_size = 0

    def _minibatches(
        self, count: int, batch_size: int | None
    ) -> Generator[RolloutBufferSamples, None, None]:
        for chosen in self._spread(count):
            if len(chosen) < _FEWEST_SEGMENTS and batch_size is not None and not self._warned:
                self._warned = True
                warnings.warn(
                    f"a minibatch of {batch_size} transitions holds {len(chosen)} episode "
                    f"segments here; with fewer than {_FEWEST_SEGMENTS} the advantages say little. "
                    "Raise `batch_size`, or use `**ppo_defaults(envs)`.",
                    stacklevel=3,
                )
            batch, where = self._pack(chosen)
            batch = batch.to(self.device)
            self.minibatch_size = len(where)
            yield RolloutBufferSamples(
                observations=batch,
                actions=batch.actions,
                old_values=self._take(self.values, where),
                old_log_prob=self._take(self.log_probs, where),
                advantages=self._take(self.advantages, where),
                returns=self._take(self.returns, where),
            )

    def _take(self, array: NDArray[np.float32], where: NDArray[np.int64]) -> Tensor:
        return self.to_torch(array.ravel()[where])

    def _spread(self, count: int) -> list[list[int]]:
        """Segments in `count` groups of nearly equal numbers of transitions, at random."""
        # SB3's convention: the agent's `seed` governs numpy's global generator.
        shuffled = np.random.permutation(len(self.segments))  # noqa: NPY002
        sizes = np.array([s.end - s.first for s in self.segments])
        groups: list[list[int]] = [[] for _ in range(count)]
        filled = np.zeros(count)
        # Longest first, each to the emptiest group; ties stay in random order.
        for i in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            least = int(filled.argmin())
            groups[least].append(int(i))
            filled[least] += sizes[i]
        return groups

    def _pack(self, chosen: list[int]) -> tuple[PackedBatch, NDArray[np.int64]]:
        """The segments `chosen`, and where their transitions lie in flattened `[steps * rows]`."""
        segments = [self.segments[i] for i in chosen]
        width = max(len(s.ids) for s in segments)
        input_ids = np.zeros((len(segments), width), dtype=np.int64)
        index, where = [], []
        for i, s in enumerate(segments):
            input_ids[i, : len(s.ids)] = s.ids
            index.append(i * width + self.lengths[s.first : s.end, s.row] - 1)
            where.append(np.arange(s.first, s.end) * self.n_envs + s.row)
        at = np.concatenate(where)
        return PackedBatch(
            torch.from_numpy(input_ids),
            torch.from_numpy(np.concatenate(index)),
            torch.from_numpy(self.actions.ravel()[at]),
            [s.end - s.first for s in segments],
            self._packed_support(at),
            self._packed_prompts(segments),
        ), at

    def _packed_prompts(self, segments: list[_Segment]) -> Tensor | None:
        """`[S] int64`, where prompts end; a rollout begins in the middle of episodes."""
        if self.max_new_tokens is None:
            return None
        lengths = [self.prompt_lengths[s.first : s.end, s.row] for s in segments]
        return torch.tensor([int(n[0]) if (n == n[0]).all() else 0 for n in lengths])

    def _packed_support(self, where: NDArray[np.int64]) -> Tensor | None:
        if all(s is None for s in self.support):
            return None
        known = next(s for s in self.support if s is not None)
        everything = np.full_like(known, 255)  # a step without a mask allowed all tokens
        stacked = np.concatenate([everything if s is None else s for s in self.support])
        return torch.from_numpy(stacked[where])


def _alone(row: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(row, dtype=np.float64)[None]


def _warn_about_defaults(gamma: float, buffer_size: int, space: spaces.Space) -> None:
    remaining = getattr(space, "spaces", {}).get("remaining")
    budget = None if remaining is None else int(remaining.high.max())
    if budget and (gamma**budget < 0.7 or buffer_size > 16 * budget):
        warnings.warn(
            f"gamma {gamma} and n_steps {buffer_size} do not suit text of up to {budget} tokens "
            f"(a reward after the last token counts {gamma**budget:.2f} at the first). "
            "Use `**ppo_defaults(envs)`.",
            stacklevel=4,
        )
