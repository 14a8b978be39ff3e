"""`Task`: what is asked, who answers, how it is scored, and an oracle that answers perfectly."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode, Instance, Turn
from textgym.seeding import Split, split_of

TokenCounter = Callable[[str], int]


@dataclass(frozen=True)
class Reply:
    """What a task answers when the agent ends its turn.

    Args:
        text: appended to the context, role markers included; never the agent's action.
        reward: paid in this step, on top of the score at the end.
        terminated: True ends the episode, with ``finish_reason == "task"``.
    """

    text: str
    reward: float = 0.0
    terminated: bool = False


class Task(abc.ABC):
    """Base class of every task. Subclasses are one file each in `textgym/tasks/`.

    A task holds no state of an episode: everything it needs to reply and to score is in the
    `Instance` it drew and the turns so far, so one object serves any number of rows.

    Attributes:
        max_new_tokens: the default budget of the agent's own tokens, all turns together.
        max_turns: the most turns the agent can have.
        scored: False for a task without a score of its own (all reward from wrappers).
        has_oracle: False where no `solve` exists.
    """

    max_new_tokens: int = 64
    max_turns: int = 1
    scored: ClassVar[bool] = True
    has_oracle: ClassVar[bool] = True

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance, from `rng` alone."""

    @abc.abstractmethod
    def score(self, episode: Episode) -> float:
        """How well `episode` did, in [0, 1]. Any text at all is valid input."""

    @abc.abstractmethod
    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound, in tokens, on the length of any prompt of either split.

        Args:
            count_tokens: the number of tokens of a text under the environment's tokenizer,
                special tokens included.
        """

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw an instance of `split`. The splits are disjoint: a prompt belongs to one of them."""
        while True:
            instance = self.sample(rng)
            if split_of(instance.prompt) == split:
                return instance

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for; `ValueError` where the task cannot tell."""
        raise ValueError(
            f"{type(self).__name__} cannot build an instance from a prompt alone. "
            'Pass `options={"instance": Instance(...)}` or `options={"index": n}`.'
        )

    def reply(self, instance: Instance, turns: Sequence[Turn]) -> Reply | None:
        """Answer the agent's latest turn, or None to end the episode with it (the default)."""
        return None

    def reply_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound, in tokens, on all replies of one episode together."""
        return 0

    def score_batch(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        """`[B] float64`, the scores of `episodes`."""
        return np.array([self.score(episode) for episode in episodes], dtype=np.float64)

    def solve(self, instance: Instance) -> str:
        """A completion that scores 1.0."""
        raise NotImplementedError(f"{type(self).__name__} has no oracle")
