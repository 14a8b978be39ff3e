"""`Reward`: a judgement of finished episodes, batched, with a name and a range."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.arguments import parse_arguments
from textgym.tokenization import Tokenizer

RewardFunction = Callable[[Sequence[Episode]], "NDArray[np.floating] | Sequence[float]"]
ScoreFunction = Callable[[Sequence[Episode]], NDArray[np.float64]]


class Reward(abc.ABC):
    """Scores a batch of finished episodes.

    Holds no state of a row, so that one object serves a single env, a vector env and another
    trainer's reward function. Any function from episodes to floats will do instead, see
    `FunctionReward`.

    A per-token reward also defines `per_token_rewards` and sets `per_token`. Each step then pays
    what the sum of an episode's token rewards has grown by since the step before, so that over an
    episode they add up to the sum of those of the finished episode, and `__call__` is that sum.

    A reward that changes as it is used (a running mean, a multiplier) keeps what it has learnt in
    `own_state`, which checkpoints save, and leaves it alone where `learning` is False.

    Attributes:
        name: the key under which the component appears in `info["rewards"]`.
        range: the least and the greatest value it can give.
        per_token: True for a reward that `per_token_rewards` pays at every step.
        parts: the rewards it is made of.
        timeout: seconds that one call may take before it counts as failed; None is no limit. Only
            kept in the main thread, and not on Windows.
        learning: whether it may change as it is used; False while held-out texts are judged.
        thread_safe: whether several threads may call it at the same time, each about some of the
            episodes: no episode's reward may depend on which others are asked about.
    """

    name: str = "reward"
    range: tuple[float, float] = (-float("inf"), float("inf"))
    per_token: bool = False
    parts: tuple[Reward, ...] = ()
    timeout: float | None = None
    learning: bool = True
    thread_safe: bool = False

    @abc.abstractmethod
    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, one reward for each of `episodes`."""

    def per_token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """One `[N] float32` an episode: a reward for each of its completion tokens so far.

        Only called where `per_token` is True. Unfinished episodes have no `finish_reason`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no per-token rewards")

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """What a specification ``name:text`` makes, see `from_spec`.

        By default `text` is read as comma-separated arguments of the constructor, by position or
        as ``key=value``.
        """
        return cls(**parse_arguments(cls, text))

    # ------------------------------------------------------------------ with an environment
    @property
    def keeps_time(self) -> bool:
        """Whether it, or a part of it, has limits of its own to the time that it takes."""
        return any(part.keeps_time for part in self.parts)

    @property
    def learns(self) -> bool:
        """Whether it, or a part of it, has something to keep in `own_state`."""
        own = type(self).own_state is not Reward.own_state
        return own or any(part.learns for part in self.parts)

    def bind(self, tokenizer: Tokenizer, score: ScoreFunction) -> None:
        """Get to know an environment that will pay this reward; called once by each.

        Args:
            tokenizer: the one its token ids belong to.
            score: its task's score, `[B] float64` of any episodes, finished or not.

        Raises:
            ValueError: where this reward cannot serve such an environment.
        """
        for part in self.parts:
            part.bind(tokenizer, score)

    def set_learning(self, learning: bool) -> None:
        """Let it, and all it is made of, change as it is used, or not."""
        self.learning = learning
        for part in self.parts:
            part.set_learning(learning)

    def figures(self) -> dict[str, float]:
        """What is worth a curve besides the reward itself, by name: failures, a multiplier."""
        found: dict[str, float] = {}
        for part in self.parts:
            found |= {f"{part.name}/{key}": value for key, value in part.figures().items()}
        return found

    # ------------------------------------------------------------------ snapshots
    def own_state(self) -> dict[str, Any]:
        """What it has learnt so far, its parts excepted, as plain data that can be pickled."""
        return {}

    def set_own_state(self, state: dict[str, Any]) -> None:  # noqa: B027  # nothing learnt
        """Return to what `own_state` gave."""

    def get_state(self) -> dict[str, Any]:
        """What it and its parts have learnt so far."""
        return {"own": self.own_state(), "parts": [part.get_state() for part in self.parts]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave."""
        self.set_own_state(state["own"])
        for part, of_part in zip(self.parts, state["parts"], strict=True):
            part.set_state(of_part)
