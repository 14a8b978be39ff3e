"""`Redistribute`: a score of the whole text, spread over its tokens."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import near_matches
from textgym.rewards.base import Reward, ScoreFunction
from textgym.rewards.combine import Parts, WeightedSum, as_part, exactly, part_values
from textgym.rewards.function import load_attribute
from textgym.rewards.partial import PartialScores
from textgym.tokenization import Tokenizer

Attribution = Callable[[Episode], Any]  # [N] weights, at least 0

WAYS = ("last", "uniform", "turn", "gain")

# Records remembered, so that a learner can ask again what each token was paid; more where more
# are asked about at a time.
_REMEMBERED = 1024


class Redistribute(Reward):
    """What a reward says of a finished text, given to the tokens that earned it; per token.

    Ways of dividing it:

    - ``"last"``: all to the last token.
    - ``"uniform"``: the same to every token.
    - ``"turn"``: the same to the last token of each of the agent's turns. (A turn ends where a
      reply of at least one token begins.)
    - ``"gain"``: to each token what a score of the text so far has grown by with it; `partial` is
      that score, by default the reward itself.
    - a function from an episode to a weight of at least 0 for each of its N tokens: in proportion
      to these.

    Whatever is left, by rounding or because gains or weights do not add up, goes to the last
    token. An episode's rewards add up to the reward exactly, in float32 or float64 and in any order
    but for ``"gain"``: there the sum, in float64, is off by half a unit in the last place of the
    last token's reward at most. A text without tokens is paid nothing.

    An environment can only pay what is known. Gains are paid as they come; all the rest with the
    last token, and rewards of unfinished episodes are 0. A learner with a buffer can move what was
    paid late to where it belongs, see `paid_late` and SB3's `HindsightRewards`. With a discount of
    1 an episode is worth the same either way. Maximised as the reward is; the range holds for
    unfinished texts too.

    Written ``redistribute(keywords:fox; over=uniform)``, ``redistribute(REWARD; PARTIAL;
    over=gain)`` or ``redistribute(REWARD; over=python:path/to/file.py:function)``.

    Args:
        reward: judges finished texts; asked once for each record.
        over: one of the above.
        partial: for ``"gain"``: judges unfinished texts; must not change as it is used.
        every: for ``"gain"``: tokens from one text judged to the next, for a costly score; those
            between gain nothing. Beyond 2,048 times as many it stands still until the end.
        tokenizer: for ``"gain"``: the one token ids belong to; an environment brings its own.
        name: its name in `info["rewards"]`.

    Example:
        >>> from textgym.episode import Instance
        >>> ids = np.arange(5)
        >>> episode = Episode(Instance("p"), ids, ids > 0, "a fox", (), "stop")
        >>> from textgym.rewards import Keywords
        >>> Redistribute(Keywords(["fox"]), "uniform").per_token_rewards([episode])[0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """

    per_token = True

    def __init__(
        self,
        reward: Any,
        over: str | Attribution = "uniform",
        *,
        partial: Any = None,
        every: int = 1,
        tokenizer: Tokenizer | None = None,
        name: str = "redistribute",
    ) -> None:
        self.over = _way(over)
        if (partial is not None or every != 1) and self.over != "gain":
            raise ValueError(f"`partial` and `every` go with `over='gain'`, got over={over!r}.")
        self.reward = as_part(reward)
        self.partial = self.reward if partial is None else as_part(partial)
        self.parts = (self.reward,) if partial is None else (self.reward, self.partial)
        self.name = name
        self._scores: PartialScores | None = None
        if self.over == "gain":
            self._scores = PartialScores(self.partial, every=every, tokenizer=tokenizer)
        self._paid: OrderedDict[int, tuple[Episode, NDArray[np.float32]]] = OrderedDict()
        unfinished = (0.0, 0.0)
        if self.over == "gain":
            low, high = self.partial.range
            unfinished = (low - high, high - low)
        low, high = self.reward.range
        self.range = (min(low, unfinished[0]), max(high, unfinished[1]))

    @classmethod
    def from_parts(
        cls, parts: Parts, *, over: str = "uniform", every: int = 1, name: str = "redistribute"
    ) -> Self:
        """``redistribute(REWARD; over=uniform)``, ``redistribute(REWARD; PARTIAL; over=gain)``."""
        if len(parts) == 2 and over == "gain":
            return cls(parts[0], over, partial=parts[1], every=every, name=name)
        (reward,) = exactly(parts, 1, "redistribute(REWARD; over=uniform)")
        return cls(reward, over, every=every, name=name)

    def bind(self, tokenizer: Tokenizer, score: ScoreFunction) -> None:
        """Learn the tokenizer; `ValueError` where gains are of another one already."""
        super().bind(tokenizer, score)
        if self._scores is not None:
            self._scores.bind(tokenizer)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`: the reward; of unfinished episodes, what is known of it."""
        arrays = self.per_token_rewards(episodes)
        sums = np.array([array.sum(dtype=np.float64) for array in arrays], np.float32)
        return np.clip(sums, *self.range)

    def per_token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """`[N] float32` an episode: the share of each token."""
        known = {id(e): array for e in episodes if (array := self._known(e)) is not None}
        new = [e for e in {id(e): e for e in episodes}.values() if id(e) not in known]
        arrays = self._shares(new) if self._scores is None else self._gains(new, self._scores(new))
        for episode, array in zip(new, arrays, strict=True):
            known[id(episode)] = array
            # Only what is over is asked about again, and a record that is over stays what it is.
            if episode.finish_reason is not None:
                array.flags.writeable = False
                self._paid[id(episode)] = (episode, array)
        while len(self._paid) > max(_REMEMBERED, len(episodes)):
            self._paid.popitem(last=False)
        return [known[id(e)] for e in episodes]

    def _known(self, episode: Episode) -> NDArray[np.float32] | None:
        remembered = self._paid.get(id(episode))
        return remembered[1] if remembered and remembered[0] is episode else None

    def _gains(
        self, episodes: Sequence[Episode], scores: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float32]]:
        gains = [np.diff(one).astype(np.float32) for one in scores]
        ended = [i for i, e in enumerate(episodes) if e.finish_reason is not None]
        if self.partial is self.reward:
            finals = [float(scores[i][-1]) for i in ended]
        else:
            finals = self._finals([episodes[i] for i in ended])
        for i, final in zip(ended, finals, strict=True):
            gains[i][-1:] = final - gains[i][:-1].sum(dtype=np.float64)
        return gains

    def _shares(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        arrays = [np.zeros(int(e.completion_mask.sum()), np.float32) for e in episodes]
        ended = [i for i, e in enumerate(episodes) if e.finish_reason is not None]
        finals = self._finals([episodes[i] for i in ended])
        for i, final in zip(ended, finals, strict=True):
            if len(arrays[i]):
                arrays[i] = _divide(final, self._weights(episodes[i], len(arrays[i])))
        return arrays

    def _finals(self, episodes: Sequence[Episode]) -> list[float]:
        if not episodes:
            return []
        values: list[float] = part_values(self.reward, episodes).tolist()
        return values

    def _weights(self, episode: Episode, count: int) -> NDArray[np.float64]:
        if callable(self.over):
            weights = np.asarray(self.over(episode), np.float64)
            if weights.shape != (count,) or not (np.isfinite(weights) & (weights >= 0)).all():
                raise ValueError(
                    f"`over` returned weights {weights!r} of shape {weights.shape}, expected "
                    f"({count},): a finite number of at least 0 for each token."
                )
            return weights
        if self.over == "uniform":
            return np.ones(count)
        if self.over == "turn":
            positions = np.flatnonzero(episode.completion_mask)
            return np.append(np.diff(positions) > 1, True).astype(np.float64)
        return np.zeros(count)  # all of it is left for the last token


def paid_late(reward: Reward, episodes: Sequence[Episode]) -> list[NDArray[np.float64]] | None:
    """What an environment paid with the last token of each episode, though it belongs elsewhere.

    Args:
        reward: any; looked for are `Redistribute` and sums of it.
        episodes: finished ones, the very records that the environment made, so that nothing is
            judged twice.

    Returns:
        One `[N] float64` an episode, of each token what belongs to it; None where `reward` pays
        nothing late.
    """
    if isinstance(reward, Redistribute) and reward.over not in ("gain", "last"):
        return [array.astype(np.float64) for array in reward.per_token_rewards(episodes)]
    if not isinstance(reward, WeightedSum):
        return None
    found = None
    for part, weight in zip(reward.parts, reward.weights, strict=True):
        arrays = paid_late(part, episodes)
        if arrays is not None:
            added = [weight * array for array in arrays]
            found = added if found is None else [a + b for a, b in zip(found, added, strict=True)]
    return found


def _way(over: str | Attribution) -> str | Attribution:
    if isinstance(over, str) and over.startswith("python:"):
        over = load_attribute(over.removeprefix("python:"))
    if callable(over) or over in WAYS:
        return over
    raise ValueError(
        "`over` must be a function of an episode, `python:file.py:function` or the name of a way, "
        f"got {over!r}; {near_matches(str(over), WAYS)}"
    )


def _divide(final: float, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """`final`, a float32 number, in proportion to `weights`, exactly; what is left goes last.

    All are whole multiples of the unit in the last place of `final`, at most 2^24 of them, so that
    no sum of them is ever rounded.
    """
    if not math.isfinite(final):  # to be reported as what it is
        return np.append(np.zeros(len(weights) - 1), final).astype(np.float32)
    unit = math.ldexp(1.0, max(math.frexp(final)[1] - 24, -149))
    units = final / unit
    greatest = weights.max()
    if greatest > 0:
        weights = weights / greatest  # else the sum might overflow
        weights = weights / weights.sum()
    shares: NDArray[np.float64] = np.trunc(units * weights)
    shares[-1] += units - shares.sum()
    return (shares * unit).astype(np.float32)
