"""`EpisodeBuffer`: whole episodes, one a row, for learners without a critic."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym import Episode
from textgym_agents.lm import pack_support
from textgym_agents.lm.episodes import Step
from textgym_agents.sb3.packed import PackedBatch
from textgym_agents.sb3.rollout_buffer import TokenRolloutBuffer, _Segment


class EpisodeSamples(NamedTuple):
    """A minibatch: n tokens of E whole episodes.

    Args:
        observations: the states the tokens were chosen in, for `LMPolicy.evaluate_actions`.
        actions: `[n] int64`, the tokens.
        old_log_prob: `[n] float32`, nats, at rollout.
        ref_log_prob: `[n] float32` under the frozen reference; None without one.
        advantages: `[n] float32`.
        counts: `[E] int64`, the tokens of each episode.
    """

    observations: PackedBatch
    actions: Tensor
    old_log_prob: Tensor
    ref_log_prob: Tensor | None
    advantages: Tensor
    counts: Tensor


class EpisodeBuffer(TokenRolloutBuffer):
    """One episode a row. Until `finish` arrays are `[N, B]`, steps by rows, as in SB3's buffers.

    From then on they are flat, `[n]`: the tokens that were written, one episode after another, and
    `finish` makes these:

    Attributes:
        rewards: `[n] float32`, paid for each token; see `pay_for_kl`.
        log_probs, ref_log_probs: `[n] float32`, nats; the latter None without a reference.
        positions: `[n] int64`, how many tokens of its own came before each.
        counts: `[B] int64`, the tokens of each episode.
        advantages: `[n] float32`, for the learner to fill in.

    Args:
        buffer_size: N, the tokens an episode can have.
        observation_space, action_space, device, gae_lambda, gamma, n_envs: as in `RolloutBuffer`.
    """

    ref_log_probs: NDArray[np.float32] | None
    positions: NDArray[np.int64]
    counts: NDArray[np.int64]

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self.ref_log_probs = None
        self.counts = np.zeros(self.n_envs, np.int64)
        self._records: dict[int, Episode] = {}

    def add_step(self, step: Step) -> None:
        """Add what the rows still writing did."""
        t, rows = self.pos, step.rows
        self._context[rows] = step.observation["input_ids"]
        self.lengths[t, rows] = step.observation["attention_mask"].sum(axis=1, dtype=np.int64)
        self.actions[t, rows] = step.tokens
        self.rewards[t, rows] = step.rewards[rows]
        self.log_probs[t, rows] = step.log_probs
        self.counts[rows] += 1
        self.support.append(None)
        if step.support is not None:
            packed = pack_support(step.support).cpu().numpy()
            bits = np.full((self.n_envs, packed.shape[1]), 255, np.uint8)
            bits[rows] = packed
            self.support[t] = bits
        for row, info in step.infos.items():
            self._records[row] = info["episode_record"]
        self.pos += 1

    def finish(self, policy: Any) -> None:
        """Flatten, and look up the log-probs of the reference where `policy` keeps one."""
        written = np.arange(self.buffer_size)[:, None] < self.counts  # [N, B]
        # Transposed: episode after episode.
        steps = np.tile(np.arange(self.buffer_size)[:, None], (1, self.n_envs))
        self.positions = steps.T[written.T]
        if any(bits is not None for bits in self.support):
            where = np.flatnonzero(written[: self.pos].T)
            rows, at = np.divmod(where, self.pos)
            self._bits = self._packed_support(at * self.n_envs + rows)
        else:
            self._bits = None
        for name in ("lengths", "actions", "rewards", "log_probs"):
            setattr(self, name, getattr(self, name).T[written.T])
        ends = np.cumsum(self.counts)
        self.segments = [
            _Segment(row, int(end - count), int(end), self._context[row, : self.lengths[end - 1]])
            for row, (end, count) in enumerate(zip(ends, self.counts, strict=True))
        ]
        self.advantages = np.zeros(len(self.rewards), np.float32)
        self.full = True
        if policy.reference is not None:
            batch, _ = self._pack(list(range(self.n_envs)))
            ref = policy.packed_log_probs(batch.to(self.device), reference=True)
            self.ref_log_probs = ref.cpu().numpy()

    # ------------------------------------------------------------------ figures
    def pay_for_kl(self, coef: float) -> None:
        """Take ``coef * (log pi - log p_ref)`` off the reward of each token (estimator k1)."""
        if self.ref_log_probs is not None:
            self.rewards = self.rewards - np.float32(coef) * (self.log_probs - self.ref_log_probs)

    def kl_stats(self, coef: float) -> dict[str, float]:
        """KL(policy, reference), nats, as `LMPolicy.kl_stats` has it; empty without a reference."""
        if self.ref_log_probs is None:
            return {}
        log_ratio = (self.log_probs - self.ref_log_probs).astype(np.float64)
        return {
            "per_token": float(log_ratio.mean()),
            "per_sequence": float(log_ratio.sum()) / self.n_envs,
            "k3_per_token": float((np.expm1(-log_ratio) + log_ratio).mean()),
            "coef": coef,
        }

    def episode_returns(self) -> NDArray[np.float64]:
        """`[B] float64`, the sum of each episode's rewards."""
        rows = np.repeat(np.arange(self.n_envs), self.counts)
        return np.bincount(rows, self.rewards, minlength=self.n_envs)

    def returns_to_go(self) -> NDArray[np.float64]:
        """`[n] float64`, the rewards from each token on."""
        total = np.cumsum(self.rewards, dtype=np.float64)
        before = total - self.rewards
        ends = np.cumsum(self.counts)
        return np.repeat(total[ends - 1], self.counts) - before

    def episode(self, row: int) -> Episode | None:
        """The record of the episode in `row`; None where an outside limit cut it."""
        return self._records.get(row)

    # ------------------------------------------------------------------ minibatches
    def get(self, batch_size: int | None = None) -> Generator[EpisodeSamples, None, None]:
        """Minibatches of whole episodes, about `batch_size` tokens each, in random order.

        All tokens come once: the episodes are spread evenly over ``round(total / batch_size)``
        minibatches. None yields a single one.
        """
        total = len(self.actions)
        count = 1 if batch_size is None else max(1, round(total / batch_size))
        for chosen in self._spread(min(count, len(self.segments))):
            batch, where = self._pack(chosen)
            batch = batch.to(self.device)
            ref = self.ref_log_probs
            yield EpisodeSamples(
                observations=batch,
                actions=batch.actions,
                old_log_prob=self.to_torch(self.log_probs[where]),
                ref_log_prob=None if ref is None else self.to_torch(ref[where]),
                advantages=self.to_torch(self.advantages[where]),
                counts=self.to_torch(self.counts[chosen]),
            )

    def _pack(self, chosen: list[int]) -> tuple[PackedBatch, NDArray[np.int64]]:
        """The episodes `chosen`, and where their tokens lie in the flat arrays."""
        segments = [self.segments[i] for i in chosen]
        width = max(len(s.ids) for s in segments)
        input_ids = np.zeros((len(segments), width), np.int64)
        for i, s in enumerate(segments):
            input_ids[i, : len(s.ids)] = s.ids
        where = np.concatenate([np.arange(s.first, s.end) for s in segments])
        first = np.repeat(np.arange(len(segments)) * width, self.counts[chosen])
        return PackedBatch(
            torch.from_numpy(input_ids),
            torch.from_numpy(first + self.lengths[where] - 1),
            torch.from_numpy(self.actions[where]),
            self.counts[chosen].tolist(),
            None if self._bits is None else self._bits[where],
        ), where
