"""Rewards as an environment applies them: named, weighted, checked, and paid step by step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import RewardError, short
from textgym.rewards.base import Reward
from textgym.rewards.function import FunctionReward
from textgym.rewards.specs import from_spec

# Components that the environment itself reports.
RESERVED_NAMES = ("score", "replies")


@dataclass(frozen=True)
class RewardTerm:
    """One reward with the name it is reported under and the weight it is paid with."""

    reward: Reward
    name: str
    weight: float

    @classmethod
    def of(cls, reward: Any, *, name: str | None = None, weight: float = 1.0) -> RewardTerm:
        """A term from a `Reward`, a function of episodes, or a spec such as ``"length:max=40"``.

        Raises:
            TypeError: for anything else.
            ValueError: for a bad spec, a weight that is not finite, or a reserved name.
        """
        if isinstance(reward, str):
            reward, own_weight = from_spec(reward)
            weight *= own_weight
        reward = reward if isinstance(reward, Reward) else FunctionReward(reward)
        name = name or reward.name
        if name in RESERVED_NAMES:
            raise ValueError(
                f"a reward cannot be named {name!r}, which the environment reports itself. "
                "Give another `name`."
            )
        if not np.isfinite(weight):
            raise ValueError(f"`weight` must be a finite number, got {weight!r}.")
        return cls(reward, name, float(weight))


def reward_terms(rewards: Iterable[Any]) -> tuple[RewardTerm, ...]:
    """Terms from what `rewards=` of an environment takes.

    Args:
        rewards: each a `Reward`, a function of episodes, a spec such as ``"length:max=40"``, or a
            pair of one of these and a weight.

    Raises:
        ValueError: where two have the same name.
    """
    if isinstance(rewards, str | Reward) or callable(rewards):
        raise TypeError(f"`rewards` must be a list, got {rewards!r}. Use `rewards=[...]`.")
    terms: list[RewardTerm] = []
    for item in rewards:
        reward, weight = item if isinstance(item, tuple) else (item, 1.0)
        term = RewardTerm.of(reward, weight=weight)
        if any(term.name == other.name for other in terms):
            raise ValueError(
                f"two rewards are named {term.name!r}. Give one another name: "
                "`FunctionReward(function, name=...)`."
            )
        terms.append(term)
    return tuple(terms)


class TermPayer:
    """Pays one term, and remembers what a per-token reward has paid each row so far.

    Args:
        term: the reward.
        num_envs: B.

    Attributes:
        deferred: True while somebody else judges the episodes that end, and pays for them later:
            then nothing is paid here, and totals are NaN, for they are not known yet. Per-token
            rewards cannot be deferred.
    """

    def __init__(self, term: RewardTerm, num_envs: int) -> None:
        self.term = term
        self.deferred = False
        self.paid = np.zeros(num_envs, np.float64)

    def pay(
        self,
        rewards: NDArray[np.float64],
        ended: tuple[Sequence[int], Sequence[Episode]],
        unfinished: Callable[[], tuple[Sequence[int], Sequence[Episode]]],
    ) -> tuple[NDArray[np.float64], RewardError | None]:
        """Add this step's payment to `rewards` in place.

        Args:
            rewards: `[B] float64`.
            ended: rows whose episodes ended, and their records.
            unfinished: gives the rows still writing and their records so far.

        Returns:
            The weighted total of each ended episode, `[len(ended)] float64`, and what went wrong:
            a faulty row is paid nothing, the others what is theirs.
        """
        rows, episodes = list(ended[0]), list(ended[1])
        count = len(rows)
        term = self.term
        if not term.reward.per_token:
            if not rows:
                return np.zeros(0), None
            if self.deferred:
                return np.full(count, np.nan), None
            values, error = evaluate(term.reward, term.name, episodes)
            totals = term.weight * values
            rewards[rows] += totals
            return totals, _located(error, rows)
        running_rows, running = unfinished()
        rows += running_rows
        if not rows:
            return np.zeros(0), None
        values, error = evaluate(term.reward, term.name, [*episodes, *running])
        totals = term.weight * values
        rewards[rows] += totals - self.paid[rows]
        self.paid[rows] = totals
        return totals[:count], _located(error, rows)

    def forget(self, rows: Any) -> None:
        """Episodes of `rows` (indices or a mask) are over or begin anew."""
        self.paid[rows] = 0.0

    def get_state(self) -> dict[str, Any]:
        """What it has paid, and what its reward has learnt, as plain data."""
        return {"paid": self.paid.copy(), "reward": self.term.reward.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave."""
        np.copyto(self.paid, state["paid"])
        self.term.reward.set_state(state["reward"])


def evaluate(
    reward: Reward, name: str, episodes: Sequence[Episode]
) -> tuple[NDArray[np.float64], RewardError | None]:
    """`[B] float64`, the rewards of `episodes`, and an error naming the first faulty one.

    Should the batch fail, the episodes are tried one at a time: the faulty ones get 0, and all
    others the reward they deserve. After one that takes too long the rest is not tried.
    """
    try:
        with _deadline(reward.timeout):
            return _values(reward, episodes), None
    except Exception as error:  # a user's code: whatever it raises is reported as a RewardError
        whole = error
    values = np.zeros(len(episodes))
    first: tuple[int, Exception] | None = None
    for i, episode in enumerate(episodes):
        try:
            with _deadline(reward.timeout):
                values[i] = _values(reward, [episode])[0]
        except Exception as error:
            first = first or (i, error)
            if isinstance(error, _TooLongError):
                break
    position, cause = first or (0, whole)
    episode = episodes[position]
    where = (
        f"for the completion {short(episode.completion_text)} of the prompt {short(episode.prompt)}"
        if first
        else f"for {len(episodes)} episodes together, though not for each alone"
    )
    problem = (
        str(cause) if isinstance(cause, _BadValueError) else f"{type(cause).__name__}: {cause}"
    )
    failure = RewardError(f"reward `{name}` failed {where}: {problem}")
    failure.reward_name, failure.episode, failure.row = name, episode, position
    failure.__cause__ = cause
    return values, failure


class _BadValueError(Exception):
    """A reward returned something that is not a reward."""


class _TooLongError(_BadValueError):
    """A reward returned nothing in time."""


@contextmanager
def _deadline(seconds: float | None) -> Iterator[None]:
    """Raise in the code within once `seconds` have passed, where the system can do that."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not able:
        yield
        return

    def stop(*_: Any) -> None:
        raise _TooLongError(f"it took longer than {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _values(reward: Reward, episodes: Sequence[Episode]) -> NDArray[np.float64]:
    if reward.per_token:
        arrays = reward.per_token_rewards(episodes)
        if len(arrays) != len(episodes):
            raise _BadValueError(f"it returned {len(arrays)} arrays for {len(episodes)} episodes.")
        for array, episode in zip(arrays, episodes, strict=True):
            expected = (int(episode.completion_mask.sum()),)
            if np.shape(array) != expected:
                raise _BadValueError(
                    f"it returned an array of shape {np.shape(array)}, expected {expected}: one "
                    "reward a completion token."
                )
        returned: Any = [float(np.sum(array, dtype=np.float64)) for array in arrays]
    else:
        returned = reward(episodes)
    try:
        values = np.asarray(returned, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _BadValueError(f"it returned {returned!r}, expected numbers.") from error
    if values.shape != (len(episodes),):
        raise _BadValueError(
            f"it returned values of shape {values.shape} for {len(episodes)} episodes, expected "
            f"({len(episodes)},): one number each."
        )
    if not np.isfinite(values).all():
        bad = values[~np.isfinite(values)][0]
        raise _BadValueError(f"it returned {bad}, expected a finite number.")
    return values


def _located(error: RewardError | None, rows: Sequence[int]) -> RewardError | None:
    if error is not None and error.row is not None:
        error.row = rows[error.row]
    return error
