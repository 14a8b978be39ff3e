"""`Ledger`: scores the episodes that ended, pays the rewards and reports both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.envs.infos import Infos, mark, put_numbers, put_objects
from textgym.episode import Episode
from textgym.errors import RewardError
from textgym.rewards.base import Reward
from textgym.rewards.terms import RewardTerm, TermPayer
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer

Records = tuple[list[int], list[Episode]]


class Ledger:
    """What B rows have earned.

    Args:
        task: scores episodes.
        score_weight: weight of the score in the reward.
        terms: the added rewards.
        num_envs: B.
        tokenizer: the environment's.
    """

    def __init__(
        self,
        task: Task,
        score_weight: float,
        terms: Sequence[RewardTerm],
        num_envs: int,
        tokenizer: Tokenizer,
    ) -> None:
        self._task = task
        self._score_weight = score_weight
        self._num_envs = num_envs
        self._payers = [TermPayer(term, num_envs) for term in terms]
        for term in terms:
            term.reward.bind(tokenizer, task.score_batch)
        if task.dense:
            term = RewardTerm(_TaskTokenRewards(task), "score", score_weight)
            self._payers.insert(0, TermPayer(term, num_envs))
        # Score and finish reason of each row whose episode is closed.
        self.outcomes: list[tuple[float, str] | None] = [None] * num_envs

    @property
    def names(self) -> list[str]:
        """The names of the added rewards."""
        return [payer.term.name for payer in self._payers]

    @property
    def terms(self) -> list[RewardTerm]:
        """The added rewards."""
        return [payer.term for payer in self._payers]

    @property
    def payers(self) -> list[TermPayer]:
        """Those who pay the added rewards."""
        return self._payers

    def begin(self, rows: Sequence[int]) -> None:
        """Let `rows` start anew."""
        for row in rows:
            self.outcomes[row] = None
        for payer in self._payers:
            payer.forget(rows)

    def settle(
        self,
        ended: Records,
        unfinished: Callable[[], Records],
        replies: tuple[NDArray[np.bool_], NDArray[np.float64]],
        rewards: NDArray[np.float64],
        infos: Infos,
    ) -> RewardError | None:
        """Pay this step, and report the episodes that ended.

        Args:
            ended: rows whose episodes ended, and their records.
            unfinished: gives those of the other rows, for per-token rewards.
            replies: `[B] bool`, `[B] float64`: who had replies, and what these paid.
            rewards: `[B] float64`, added to in place.
            infos: where ended episodes are reported.

        Returns:
            What went wrong in an added reward, if anything.
        """
        done, episodes = ended
        n = self._num_envs
        components: Infos = {}
        if done:
            scores = self._scores(episodes)
            if self._task.scored and self._score_weight and not self._task.dense:
                rewards[done] += self._score_weight * scores
                put_numbers(components, "score", done, self._score_weight * scores, n)
            replied = [row for row in done if replies[0][row]]
            if replied:
                put_numbers(components, "replies", replied, replies[1][replied], n)
            self._report(done, episodes, scores, components, infos)
        error: RewardError | None = None
        for payer in self._payers:
            totals, problem = payer.pay(rewards, ended, unfinished)
            error = error or problem
            if done:
                put_numbers(components, payer.term.name, done, totals, n)
        return error

    def _scores(self, episodes: list[Episode]) -> NDArray[np.float64]:
        if not self._task.scored:
            return np.zeros(len(episodes))
        scores = np.asarray(self._task.score_batch(episodes), np.float64)
        if scores.shape != (len(episodes),) or not np.isfinite(scores).all():
            raise ValueError(
                f"{type(self._task).__name__}.score_batch must return {len(episodes)} finite "
                f"scores, got {scores!r}."
            )
        return scores

    def _report(
        self,
        done: list[int],
        episodes: list[Episode],
        scores: NDArray[np.float64],
        components: Infos,
        infos: Infos,
    ) -> None:
        n = self._num_envs
        reasons = [str(episode.finish_reason) for episode in episodes]
        for row, score, reason in zip(done, scores.tolist(), reasons, strict=True):
            self.outcomes[row] = (score, reason)
        put_objects(infos, "prompt", done, [e.prompt for e in episodes], n)
        put_objects(infos, "completion", done, [e.completion_text for e in episodes], n)
        put_objects(infos, "finish_reason", done, reasons, n)
        put_numbers(infos, "score", done, scores, n)
        if self._task.metric_names:
            infos["metrics"] = self._metrics(done, episodes)
            mark(infos, "metrics", done, n)
        infos["rewards"] = components
        mark(infos, "rewards", done, n)
        put_objects(infos, "episode_record", done, episodes, n)

    def _metrics(self, done: list[int], episodes: list[Episode]) -> Infos:
        found = [self._task.metrics(episode) for episode in episodes]
        metrics: Infos = {}
        for name in self._task.metric_names:
            values = np.array([float(one[name]) for one in found])
            put_numbers(metrics, name, done, values, self._num_envs)
        return metrics

    def get_state(self) -> dict[str, Any]:
        """Everything, as plain data."""
        payers = [payer.get_state() for payer in self._payers]
        return {"payers": payers, "outcomes": list(self.outcomes)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave."""
        self.outcomes = list(state["outcomes"])
        for payer, of_payer in zip(self._payers, state["payers"], strict=True):
            payer.set_state(of_payer)


class _TaskTokenRewards(Reward):
    """What a dense task pays its tokens, as a per-token reward."""

    name, per_token = "score", True

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        return np.array([rewards.sum() for rewards in self.per_token_rewards(episodes)], np.float32)

    def per_token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        return self._task.token_rewards(episodes)
