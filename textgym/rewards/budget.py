"""`Budget`: a penalty for every token beyond a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.length import count_tokens


class Budget(Reward):
    """0 up to a budget of tokens, then minus `cost` for each token beyond, down to -1.

    The "soft overlong punishment" of DAPO, with its L_max - L_cache as the budget and 1 / L_cache
    as the cost. Tokens are the agent's own in all its turns, the end-of-sequence tokens left out.

    Every completion within the budget earns 0, an empty one too: add it to a reward that pays for
    content. Where the environment's `max_new_tokens` is no greater than the budget, it is always 0.

    Args:
        tokens: the budget.
        cost: the penalty for each token beyond it; by default 1 / `tokens`, so that it is -1 from
            twice the budget on.
        name: its name in `info["rewards"]`.

    Source: Yu et al., DAPO: an open-source LLM reinforcement learning system at scale, 2025,
    section 3.4.

    Example:
        >>> [Budget(100).value(length) for length in (0, 100, 150, 200, 1000)]
        [0.0, 0.0, -0.5, -1.0, -1.0]
        >>> Budget(100, cost=0.25).value(102)
        -0.5
    """

    range = (-1.0, 0.0)

    def __init__(self, tokens: int, *, cost: float | None = None, name: str = "budget") -> None:
        self.tokens = check_positive_int("tokens", tokens, "Use `Budget(200)`, for instance.")
        self.cost = 1.0 / self.tokens if cost is None else float(cost)
        if not (math.isfinite(self.cost) and self.cost > 0):
            raise ValueError(
                f"`cost` must be a finite number above 0, got {cost!r}. The reward is minus the "
                "cost of each token beyond the budget."
            )
        self.name = name

    def value(self, length: int) -> float:
        """The reward of a completion of `length` tokens."""
        beyond = length - self.tokens
        return -min(1.0, beyond * self.cost) if beyond > 0 else 0.0

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [-1, 0]."""
        return np.array([self.value(count_tokens(e)) for e in episodes], np.float32)
