"""`Length`: reward a completion for how long it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_choice, check_positive_int
from textgym.rewards.base import Reward

LengthUnit = Literal["words", "characters", "tokens"]


class Length(Reward):
    """1 for a completion of the length asked for, falling linearly to 0.

    Below `min` the reward is length / min; above `max` it is 0 from twice `max` on; `target` asks
    for both. Only the length is judged: gibberish of the right length earns 1, and so does an empty
    completion where there is no `min`.

    Args:
        target: the length to have.
        min: the least length that earns 1.
        max: the greatest length that earns 1.
        unit: what lengths are counted in: ``"words"`` are runs of non-blank characters,
            ``"characters"`` are all from the first to the last that is not blank, ``"tokens"`` are
            the agent's own in all its turns, the end-of-sequence tokens left out.
        name: its name in `info["rewards"]`.

    Example:
        >>> [Length(max=4).value(n) for n in (0, 4, 5, 8)]
        [1.0, 1.0, 0.75, 0.0]
        >>> [Length(target=4).value(n) for n in (0, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.5]
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        target: int | None = None,
        *,
        min: int | None = None,
        max: int | None = None,
        unit: LengthUnit = "words",
        name: str = "length",
    ) -> None:
        if (target is None) == (min is None and max is None):
            raise ValueError(
                "`Length` takes either `target` or `min` and/or `max`, got "
                f"target={target}, min={min}, max={max}. Use `Length(max=40)`, for instance."
            )
        bounds = {"target": target, "min": min, "max": max}
        for key, bound in bounds.items():
            if bound is not None:
                check_positive_int(key, bound)
        self.min = target if target is not None else min
        self.max = target if target is not None else max
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` must be at most `max`, got min={min}, max={max}.")
        check_choice("unit", unit, get_args(LengthUnit))
        self.unit = unit
        self.name = name

    def value(self, length: int) -> float:
        """The reward of a completion of `length`, in the reward's unit."""
        if self.min is not None and length < self.min:
            return length / self.min
        if self.max is not None and length > self.max:
            return max(0.0, 2.0 - length / self.max)
        return 1.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(self._length(e)) for e in episodes], np.float32)

    def _length(self, episode: Episode) -> int:
        if self.unit == "tokens":
            return count_tokens(episode)
        text = episode.completion_text
        return len(text.split() if self.unit == "words" else text.strip())


def count_tokens(episode: Episode) -> int:
    """The agent's own tokens in `episode`, those that ended its turns left out."""
    turns = episode.turns
    ended = sum(turn.role == "agent" for turn in turns)
    # A last turn that the task did not answer, and the agent did not end, is cut or unfinished.
    if ended and turns[-1].role == "agent" and episode.finish_reason != "stop":
        ended -= 1
    return max(int(np.count_nonzero(episode.completion_mask)) - ended, 0)
