"""`Task`: what is asked, who answers, how it is scored, and an oracle that answers perfectly."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode, Instance, Turn
from textgym.errors import check_positive_int
from textgym.seeding import Split, split_of
from textgym.tokenization import Tokenizer

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
        has_oracle: False where `solve` is missing, or does not always score 1.0.
        levels: the number of difficulty levels; a task with several takes `level`, from 1 on.
        metric_names: the keys of what `metrics` returns.
        tokenizer: the task's own, for a vocabulary smaller than text needs; None is the embedded.
        dense: True where `token_rewards` pay the score step by step.
    """

    max_new_tokens: int = 64
    max_turns: int = 1
    scored: ClassVar[bool] = True
    has_oracle: ClassVar[bool] = True
    levels: ClassVar[int] = 1
    metric_names: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None
    dense: bool = False

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

    def split_key(self, instance: Instance) -> str:
        """What tells instances apart, for the splits: the prompt, unless all share theirs.

        A task that hides what it asks about (a word to guess) gives that instead.
        """
        return instance.prompt

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw an instance of `split`; the splits are disjoint: each `split_key` is of one."""
        while True:
            instance = self.sample(rng)
            if split_of(self.split_key(instance)) == split:
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

    def token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """One `[N] float32` an episode: what each of the agent's tokens so far has earned.

        Only called where `dense` is True; paid, as they come, in place of the score at the end.
        Unfinished episodes have no `finish_reason`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no token rewards")

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """Figures besides the score, one for each of `metric_names`; reported, never paid."""
        return {}

    def solve(self, instance: Instance) -> str:
        """A completion that scores 1.0; in a dialogue, the oracle's first turn."""
        raise NotImplementedError(f"{type(self).__name__} has no oracle")

    def solve_turn(self, instance: Instance, turns: Sequence[Turn]) -> str:
        """The oracle's next turn after `turns`, in which it spoke all of the agent's.

        A task with replies overrides this one too. An oracle of a dialogue may use what
        `instance` hides from the agent.
        """
        return self.solve(instance)


class TextTask(Task):
    """A task whose score reads nothing but the text, and whether the agent ended it."""

    @abc.abstractmethod
    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion` as it would be if the agent wrote it.

        Args:
            instance: what was asked for.
            completion: any text.
            ended: whether the agent ended the text itself.
        """

    def score(self, episode: Episode) -> float:
        """The score of what the agent wrote; see `score_text`."""
        return self.score_text(
            episode.instance, episode.completion_text, ended=episode.finish_reason == "stop"
        )


def check_level(task: Task, level: object) -> int:
    """Return `level` if `task` has it, else raise naming the levels there are."""
    number = check_positive_int("level", level)
    if number > task.levels:
        raise ValueError(
            f"`level` of {type(task).__name__} must be 1 to {task.levels}, got {number}."
        )
    return number
