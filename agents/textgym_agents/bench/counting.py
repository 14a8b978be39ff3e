"""`Counting`: counts the tokens that an agent learns from, and keeps what they were worth.

It is the innermost wrapper, and so sees what the environment pays and no price that an agent puts
on top.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym.wrappers import ended
from textgym.wrappers.vector import TokenVectorWrapper

# Points of a training curve are this share of the budget apart; 40 at most.
_POINTS, _MOST_POINTS = 32, 40
# An agent may overrun its budget by this factor and a rollout.
_MARGIN = 1.25
# Agents that collect more than an episode a row at a time collect about this many tokens.
_ROLLOUT = 2_048
SAMPLES = 2


class InvalidActionError(ValueError):
    """An agent chose what is no token, or one that is masked."""


class OverBudgetError(RuntimeError):
    """An agent took many more tokens to learn from than it was given."""


class Counting(TokenVectorWrapper):
    """Around the environment that an agent learns in.

    Every row's action counts as a token, but for those of parked rows. An agent that asks for one
    episode a row, ``reset(options={"instance": ...})``, waits for the last of them, and meanwhile
    has to give the rows that are over some token (`textgym_agents.lm.episodes.play` does so). So
    a row that began anew by itself after such a reset is parked for as long as it is given nothing
    but one and the same token.

    Args:
        env: a token vector environment in `SAME_STEP` mode.
        budget: tokens to learn from.

    Attributes:
        curve: points as in the record of a cell, at most 40.
        samples: texts from the start, the middle and the end, as in the record.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], budget: int) -> None:
        super().__init__(env)
        self.budget = budget
        self.rollout = max(_ROLLOUT, env.num_envs * int(env.unwrapped.max_new_tokens))
        self.curve: list[dict[str, Any]] = []
        self._taken = 0
        n = env.num_envs
        self._returns = np.zeros(n)
        self._lengths = np.zeros(n, np.int64)  # tokens of the episode in each row
        self._batch = False  # whether the agent said what episodes to begin
        self._again = np.zeros(n, np.bool_)  # whether it began by itself, after one of those
        self._first = np.zeros(n, np.int64)  # its first token
        self._same = np.ones(n, np.bool_)  # whether all are that one
        self._since: list[float] = []  # returns since the last point
        self._start: list[dict[str, Any]] = []
        self._middle: list[dict[str, Any]] = []
        self._end: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self._began = time.perf_counter()

    @property
    def tokens(self) -> int:
        """How many tokens the agent has learnt from so far."""
        return self._taken - int(self._lengths[self._parked()].sum())

    @property
    def limit(self) -> int:
        """With more, the agent is over its budget."""
        return int(_MARGIN * self.budget) + self.rollout

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The first, middle and last texts that were finished, two each at most."""
        stages = {"start": self._start, "middle": self._middle, "end": list(self._end)}
        return [{"stage": stage, **text} for stage, texts in stages.items() for text in texts]

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes; what was not finished counts, but for parked rows."""
        found = self.env.reset(seed=seed, options=options)
        asked = set(options or ())
        rows = np.ones(self.num_envs, np.bool_)
        if "reset_mask" in asked:
            rows = np.asarray(options["reset_mask"])
        self._batch = bool(asked - {"reset_mask"})
        self._taken -= int(self._lengths[self._parked() & rows].sum())
        self._begin(rows, again=False)
        return found

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step, and count.

        Raises:
            InvalidActionError: what is no token id, or a masked one; nothing has changed then.
            OverBudgetError: with this step, too many tokens were taken.
        """
        tokens = check_actions(self.env, actions)
        result = self.env.step(tokens)
        _, rewards, terminated, truncated, infos = result
        fresh = self._lengths == 0
        self._first[fresh] = tokens[fresh]
        self._same &= tokens == self._first
        self._lengths += 1
        self._returns += rewards
        self._taken += self.num_envs
        over = terminated | truncated
        if over.any():
            self._finish(np.flatnonzero(over), infos)
            self._begin(over, again=self._batch)
        if self._taken > self.limit and self.tokens > self.limit:
            raise OverBudgetError(
                f"{self.tokens:,} tokens were taken to learn from, of a budget of {self.budget:,}. "
                f"Stop at the budget: up to {self.limit:,} are let pass."
            )
        return result

    def close_curve(self) -> None:
        """Add the last point, of the episodes that ended since the one before."""
        if self._since:
            if len(self.curve) == _MOST_POINTS:  # no room: the last one grows
                last = self.curve.pop()
                self._since += [last["mean_return"]] * last["episodes"]
            self._put_point(self.tokens)

    # ------------------------------------------------------------------
    def _parked(self) -> NDArray[np.bool_]:
        return self._again & self._same

    def _begin(self, rows: NDArray[np.bool_], *, again: bool) -> None:
        self._returns[rows], self._lengths[rows] = 0.0, 0
        self._again[rows], self._same[rows] = again, True

    def _finish(self, rows: NDArray[np.int64], infos: dict[str, Any]) -> None:
        tokens = self.tokens
        self._since += self._returns[rows].tolist()
        where, closed = ended(infos, self.autoreset_mode)
        for row in closed:
            text = sample_of(where["episode_record"][row], float(self._returns[row]), tokens)
            if len(self._start) < SAMPLES:
                self._start.append(text)
            elif 2 * tokens >= self.budget and len(self._middle) < SAMPLES:
                self._middle.append(text)
            self._end.append(text)
        points = len(self.curve)
        if points < _MOST_POINTS and tokens * _POINTS >= self.budget * (points + 1):
            self._put_point(tokens)

    def _put_point(self, tokens: int) -> None:
        self.curve.append(
            {
                "tokens": tokens,
                "seconds": round(time.perf_counter() - self._began, 3),
                "episodes": len(self._since),
                "mean_return": float(np.mean(self._since)),
            }
        )
        self._since = []


def sample_of(episode: Any, total: float, tokens: int) -> dict[str, Any]:
    """A text as a record keeps it, but for its stage."""
    return {
        "tokens": tokens,
        "prompt": episode.prompt,
        "completion": episode.completion_text,
        "return": total,
    }


def check_actions(env: VectorEnv[Any, Any, Any], actions: Any) -> NDArray[np.int64]:
    """`actions` as `[B] int64`.

    Raises:
        InvalidActionError: another shape or kind, an id out of range or masked.
    """
    tokens, size = np.asarray(actions), int(env.single_action_space.n)
    if tokens.shape != (env.num_envs,) or tokens.dtype.kind not in "iu":
        raise InvalidActionError(
            f"actions must be {env.num_envs} integers, one a row, got shape {tokens.shape} and "
            f"dtype {tokens.dtype}."
        )
    wrong = np.flatnonzero((tokens < 0) | (tokens >= size))
    if wrong.size:
        raise InvalidActionError(
            f"actions must be from 0 to {size - 1}, got {tokens[wrong[0]]} in row {wrong[0]}."
        )
    masks = getattr(env.unwrapped, "action_masks", None)
    if masks is not None:
        masked = np.flatnonzero(~masks()[np.arange(len(tokens)), tokens])
        if masked.size:
            raise InvalidActionError(
                f"token {tokens[masked[0]]} in row {masked[0]} is masked there. Choose one that "
                "`action_masks()` allows."
            )
    return tokens.astype(np.int64)
