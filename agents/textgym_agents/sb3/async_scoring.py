"""`AsyncScoring`: rewards of ended episodes are judged while the next ones are written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from textgym.errors import RewardError, check_positive_int
from textgym.rewards.terms import TermPayer
from textgym.wrappers import reward_payers_of
from textgym_agents.sb3.rollout_buffer import TokenRolloutBuffer
from textgym_agents.sb3.scoring_pool import Scores, ScoringPool
from textgym_agents.sb3.vec_env import TextVecEnv


@dataclass(frozen=True)
class _Ended:
    """Episodes that ended in one step, and are not paid all that is theirs.

    Args:
        buffer: `[steps, B]`, the rewards of the rollout; if it is broken off, of nobody any more.
        step: of the rollout.
        rows: `[n]`, theirs.
        paid: `[n] float64`, what the step has paid.
        before: `[n] float64`, what their episodes had earned before that step.
        infos: theirs.
        scores: what is to come.
    """

    buffer: NDArray[np.float32]
    step: int
    rows: NDArray[np.int64]
    paid: NDArray[np.float64]
    before: NDArray[np.float64]
    infos: Sequence[dict[str, Any]]
    scores: Sequence[Scores]


class AsyncScoring(BaseCallback):
    """Judges the episodes that have ended in other threads, while the agent goes on writing.

    For rewards that wait: services, other processes, models on another device. The environment
    then pays nothing for them when an episode ends. Before `TokenRolloutBuffer` computes advantages
    it waits for what is outstanding, and puts the rewards where they belong: in the buffer, in the
    `episode` dicts that `rollout/ep_rew_mean` is made of, in ``info["rewards"]`` (NaN until then).
    Buffer and agent are the same as without, bit for bit, as long as the rewards are deterministic
    and per-token ones stand before the others (else to a rounding in float64); what a reward does
    wrong is reported as without, but at the end of the rollout.

    Judged as without, and told of in a warning: rewards that are per-token, that learn as they are
    used (`Reward.learns`), that a wrapper of another package might change; and all of them where
    the agent has another buffer. So is the task's own score, which every info holds.

    Args:
        workers: threads for rewards that are `thread_safe`, such as services; all others share one.

    Example:
        >>> from textgym_agents.sb3 import make_vec_env
        >>> envs = make_vec_env(
        ...     "textgym/Story-v0", n_envs=2, rewards=["http:http://localhost:8000/judge"]
        ... )
        >>> agent.learn(10_000, callback=AsyncScoring(8))  # doctest: +SKIP
    """

    def __init__(self, workers: int = 8) -> None:
        super().__init__()
        self.workers = check_positive_int("workers", workers)
        self._payers: list[TermPayer] = []
        self._ended: list[_Ended] = []

    # ------------------------------------------------------------------ coming and going
    def _on_training_start(self) -> None:
        # Of trainings that exceptions have ended: this one's, and those of these environments.
        self._on_training_end()
        before = getattr(self.training_env, "late", None)
        if before is not None:
            before.finish()
        buffer = getattr(self.model, "rollout_buffer", None)
        reason = self._unfit(buffer)
        if reason is None:
            found = reward_payers_of(self.training_env.envs)
            reasons = {payer.term.name: _undeferrable(payer) for payer in found}
            self._payers = [payer for payer in found if reasons[payer.term.name] is None]
            left = [f"`{name}` {why}" for name, why in reasons.items() if why is not None]
            reason = "; ".join(left) or (None if found else "no reward is added to the score")
        if reason is not None:
            warnings.warn(
                f"scored when episodes end, and not asynchronously: {reason}.", stacklevel=2
            )
        if self._payers:
            self._pool = ScoringPool(self.workers)
            self.buffer, self.envs = buffer, self.training_env
            self.buffer.settle, self.envs.late = self.fill, self
            for payer in self._payers:
                payer.deferred = True

    def _unfit(self, buffer: Any) -> str | None:
        """Why this agent cannot have rewards filled in later, or None."""
        if not isinstance(buffer, TokenRolloutBuffer):
            kind = type(self.model if buffer is None else buffer).__name__
            return f"only `TokenRolloutBuffer` fills rewards in later, not {kind}"
        envs = self.training_env
        if not isinstance(envs, TextVecEnv):
            return f"{type(envs).__name__} would not see rewards that are filled in later"
        layer = envs.envs
        while layer is not layer.unwrapped:
            if type(layer).__module__.partition(".")[0] not in ("textgym", "textgym_agents"):
                return f"{type(layer).__name__} might change rewards, which it would not see"
            layer = layer.env
        return None

    def leave(self) -> None:
        """Let the environments pay for themselves again; what is outstanding is dropped."""
        if not self._payers:
            return
        for payer in self._payers:
            payer.deferred = False
        self._payers, self._ended = [], []
        self.buffer.settle, self.envs.late = None, None
        self._pool.close()

    def finish(self) -> None:
        """Pay for what is outstanding, then leave."""
        try:
            self.fill()
        finally:
            self.leave()

    def _on_training_end(self) -> None:
        if self._payers:
            self.finish()

    def _on_step(self) -> bool:
        return True

    # ------------------------------------------------------------------ in a rollout
    def take(
        self,
        infos: Sequence[dict[str, Any]],
        paid: NDArray[np.float64],
        before: NDArray[np.float64],
    ) -> None:
        """Have the episodes that ended in a step judged; `TextVecEnv` calls it.

        Args:
            infos: of all B rows.
            paid: `[B] float64`, what the step has paid.
            before: `[B] float64`, what the rows' episodes had earned before it.
        """
        rows = [row for row, info in enumerate(infos) if "episode_record" in info]
        if rows:
            episodes = [infos[row]["episode_record"] for row in rows]
            scores = [self._pool.submit(payer.term, episodes) for payer in self._payers]
            self._ended.append(
                _Ended(
                    self.buffer.rewards,
                    self.buffer.pos,
                    np.array(rows),
                    paid[rows],
                    before[rows],
                    [infos[row] for row in rows],
                    scores,
                )
            )

    def fill(self) -> None:
        """Wait for the scores that are outstanding, and pay; `TokenRolloutBuffer` calls it.

        Raises:
            RewardError: where a reward failed.
        """
        ended, self._ended = self._ended, []
        self._pool.wait(scores for one in ended for scores in one.scores)
        for one in ended:
            self._pay(one)

    def _pay(self, ended: _Ended) -> None:
        total = ended.paid.copy()
        for scores in ended.scores:
            try:
                values = scores.term.weight * scores.values()
            except RewardError as error:
                if error.row is not None:
                    error.row = int(ended.rows[error.row])
                raise
            total += values
            for info, value in zip(ended.infos, values.tolist(), strict=True):
                info["rewards"][scores.term.name] = value
        # Nothing has been, unless by another callback.
        moved = ended.buffer[ended.step, ended.rows] - ended.paid.astype(np.float32)
        ended.buffer[ended.step, ended.rows] = total.astype(np.float32) + moved
        for info, earned in zip(ended.infos, (ended.before + total).tolist(), strict=True):
            info["episode"]["r"] = earned


def _undeferrable(payer: TermPayer) -> str | None:
    """Why a reward is to be judged when episodes end, or None."""
    if payer.term.reward.per_token:
        return "is paid token by token"
    if payer.term.reward.learns:
        return "learns as it is used"
    return None
