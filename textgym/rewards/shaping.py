"""`Shaped`: potential-based shaping, which pays progress and leaves the optimum where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward, ScoreFunction
from textgym.rewards.combine import Parts, as_float32, as_part, exactly, scaled_range
from textgym.rewards.partial import PartialScores, prefix_episodes
from textgym.tokenization import Tokenizer


class Shaped(Reward):
    """Pays each token the progress it makes, by a score of the text so far; per token.

    With potential phi(s), `scale` times the score of the unfinished text s, the token that takes s
    to s' is paid ``gamma * phi(s') - phi(s)``. The potential of every finished text is 0, so that
    what was advanced is taken back in the end: added to any other reward, with the agent's own
    `gamma`, it changes neither the best policy nor any advantage, only how soon a learner can tell.
    On its own it teaches nothing: with gamma 1 an episode's total is minus the score of the empty
    text. To be paid for the score as well, add the score. Rows that are only truncated keep what
    they were advanced, as their values are bootstrapped.

    The range holds for unfinished texts too. With `gamma` below 1 it is unbounded on one side or
    both, as an episode may have any number of tokens.

    Written ``shaped(keywords:fox,owl; gamma=1.0)`` or ``shaped(task-score)``.

    Args:
        partial_score: judges unfinished texts; must not change as it is used.
        gamma: the agent's discount, in (0, 1].
        scale: units of potential for each unit of `partial_score`.
        every: tokens from one text judged to the next, for a costly score; those between keep the
            potential of the one before them. Beyond 2,048 times as many it stands still.
        tokenizer: the one that token ids belong to; an environment brings its own.
        name: its name in `info["rewards"]`.

    Source: Ng, Harada, Russell 1999, "Policy invariance under reward transformations"; Grzes 2017,
    "Reward Shaping in Episodic Reinforcement Learning" (terminal potentials).

    Example:
        >>> from textgym.rewards import Keywords
        >>> Shaped(Keywords(["fox"])).range
        (-1.0, 1.0)
    """

    per_token = True

    def __init__(
        self,
        partial_score: Any,
        *,
        gamma: float = 1.0,
        scale: float = 1.0,
        every: int = 1,
        tokenizer: Tokenizer | None = None,
        name: str = "shaped",
    ) -> None:
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"`gamma` must be above 0 and at most 1, got {gamma!r}.")
        if not math.isfinite(scale):
            raise ValueError(f"`scale` must be a finite number, got {scale!r}.")
        self.partial_score = as_part(partial_score)
        self.parts = (self.partial_score,)
        self.gamma, self.scale, self.name = float(gamma), float(scale), name
        self._scores = PartialScores(self.partial_score, every=every, tokenizer=tokenizer)
        low, high = scaled_range((self.scale, self.scale), self.partial_score.range)
        # -phi of the empty text, then -(1 - gamma) phi of each text between, then the last one's.
        least, greatest = min(-high, self.gamma * low - high), max(-low, self.gamma * high - low)
        if gamma < 1.0:
            least = -math.inf if high > 0.0 else least
            greatest = math.inf if low < 0.0 else greatest
        self.range = as_float32(least, greatest)

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        gamma: float = 1.0,
        scale: float = 1.0,
        every: int = 1,
        name: str = "shaped",
    ) -> Self:
        """``shaped(SCORE; gamma=1.0)``."""
        (score,) = exactly(parts, 1, "shaped(SCORE; gamma=1.0)")
        return cls(score, gamma=gamma, scale=scale, every=every, name=name)

    def bind(self, tokenizer: Tokenizer, score: ScoreFunction) -> None:
        """Learn the tokenizer; `ValueError` where it is another than before."""
        super().bind(tokenizer, score)
        self._scores.bind(tokenizer)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, the sums of what each token is paid."""
        arrays = self.per_token_rewards(episodes)
        sums = np.array([array.sum(dtype=np.float64) for array in arrays], np.float32)
        return np.clip(sums, *self.range)

    def per_token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """`[N] float32` an episode: the progress of each token, discounted."""
        found = [np.zeros(0, np.float32)] * len(episodes)
        written = [i for i, e in enumerate(episodes) if e.completion_mask.any()]
        scored = self._scores([self._before_end(episodes[i]) for i in written])
        for i, scores in zip(written, scored, strict=True):
            potentials = self.scale * scores
            if episodes[i].finish_reason is not None:
                potentials = np.append(potentials, 0.0)
            found[i] = (self.gamma * potentials[1:] - potentials[:-1]).astype(np.float32)
        return found

    def _before_end(self, episode: Episode) -> Episode:
        """The longest prefix whose potential has to be asked for."""
        if episode.finish_reason is None or self._scores.tokenizer is None:
            return episode
        before = int(episode.completion_mask.sum()) - 1
        return prefix_episodes(episode, self._scores.tokenizer, [before])[0]
