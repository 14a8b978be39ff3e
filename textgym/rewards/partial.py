"""Scores of unfinished texts: the prefixes of an episode, and what a reward says of each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode, Turn
from textgym.errors import check_positive_int
from textgym.rewards.base import Reward
from textgym.rewards.combine import part_values
from textgym.tokenization import Tokenizer

# Of one text; more would stall on what a model may write.
_MOST_PREFIXES = 2048


def prefix_episodes(
    episode: Episode, tokenizer: Tokenizer, counts: Sequence[int] | None = None
) -> list[Episode]:
    """What `episode` was after each of the agent's own tokens, and before the first.

    Of N tokens there are N + 1 prefixes. That of n < N is the unfinished record an environment
    has when n tokens are written: `finish_reason` is None, and a reply made in the step of the nth
    token is there, later ones are not. The last one is `episode` itself.

    Args:
        episode: finished or not.
        tokenizer: the one its token ids belong to.
        counts: the n wanted, in [0, N]; None is all of them.

    Example:
        >>> from textgym.episode import Instance
        >>> tokenizer = Tokenizer.load()
        >>> ids = np.array(tokenizer.encode("Once upon a time"))
        >>> mask = np.arange(len(ids)) >= 2
        >>> turn = Turn("agent", " a time")
        >>> episode = Episode(Instance("Once upon"), ids, mask, turn.text, (turn,), "length")
        >>> [prefix.completion_text for prefix in prefix_episodes(episode, tokenizer)]
        ['', ' a', ' a time']
    """
    positions = np.flatnonzero(episode.completion_mask)
    total = len(positions)
    wanted = range(total + 1) if counts is None else counts
    if any(not 0 <= n <= total for n in wanted):
        raise ValueError(f"`counts` must be in [0, {total}], got {list(wanted)}.")
    own = episode.input_ids[positions]
    # How many tokens were written when each turn had ended: only end-of-sequence ends a turn
    # that is not the last.
    ends = np.flatnonzero(own == tokenizer.eos_token_id) + 1
    over = np.searchsorted(ends, wanted, side="right")  # turns that had ended by then
    starts = [int(ends[k - 1]) if k else 0 for k in over]
    unended = [own[start:n].tolist() for start, n in zip(starts, wanted, strict=True)]
    texts = tokenizer.decode_completions(unended)
    found: list[Episode] = []
    for n, k, ids, text in zip(wanted, over, unended, texts, strict=True):
        if n == total:
            found.append(episode)
            continue
        turns = _first_turns(episode.turns, int(k))
        turns = (*turns, Turn("agent", text)) if ids else turns
        end = int(positions[n])  # where the next token would be written
        found.append(
            Episode(
                instance=episode.instance,
                input_ids=episode.input_ids[:end],
                completion_mask=episode.completion_mask[:end],
                completion_text="\n".join(turn.text for turn in turns if turn.role == "agent"),
                turns=turns,
                finish_reason=None,
            )
        )
    return found


def _first_turns(turns: Sequence[Turn], count: int) -> tuple[Turn, ...]:
    """The first `count` turns of the agent, and the replies to them."""
    spoken = np.cumsum([turn.role == "agent" for turn in turns])
    return tuple(turn for turn, so_far in zip(turns, spoken, strict=True) if so_far <= count)


class PartialScores:
    """What a reward says of every prefix of an episode.

    Scores are remembered by instance and token ids: an environment that asks at every step about
    texts that have grown by a token has one prefix a row judged, all rows in one call. A text seen
    for the first time has all of its prefixes decoded and judged, work that grows with the square
    of its length; `every` divides it. At most 2,048 prefixes of a text are judged: beyond
    ``2048 * every`` tokens the score stands still until the episode is finished.

    Args:
        reward: judges prefixes as if they were finished texts.
        every: tokens from one prefix judged to the next; those between have the score of the one
            before them. A finished text is always judged itself.
        tokenizer: the one that token ids belong to; `bind` may give it later.
        memory: the most texts remembered; more where more are asked about at a time.

    Raises:
        ValueError: for a reward that changes as it is used, such as `normalize`.
    """

    def __init__(
        self,
        reward: Reward,
        *,
        every: int = 1,
        tokenizer: Tokenizer | None = None,
        memory: int = 16_384,
    ) -> None:
        changing = _changing(reward)
        if changing is not None:
            raise ValueError(
                f"`{changing.name}` changes as it is used, and so cannot judge texts token by "
                "token: what was advanced could not be taken back. Use it around this reward."
            )
        self.reward = reward
        self.every = check_positive_int("every", every)
        self.tokenizer = tokenizer
        self.memory = check_positive_int("memory", memory)
        # Of each text the scores of its prefixes that were judged, its own the last.
        self._known: OrderedDict[Any, NDArray[np.float64]] = OrderedDict()

    def bind(self, tokenizer: Tokenizer) -> None:
        """Learn the tokenizer; `ValueError` where it is another than before."""
        if self.tokenizer is not None and self.tokenizer != tokenizer:
            raise ValueError(
                f"`{self.reward.name}` judges texts of {self.tokenizer} token by token, and "
                f"cannot judge those of {tokenizer} too. Make one reward for each."
            )
        self.tokenizer = tokenizer

    def __call__(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """One `[N + 1] float64` an episode, the scores of its prefixes, shortest first.

        Raises:
            ValueError: where no tokenizer is known.
        """
        if self.tokenizer is None:
            raise ValueError(
                f"to judge texts token by token with `{self.reward.name}`, a tokenizer is needed. "
                "Give `tokenizer=Tokenizer.load(...)`, or use the reward in an environment."
            )
        pending: dict[Any, int] = {}  # where the score of a prefix will be in `values`
        asked: list[Episode] = []
        plans = []
        for episode in episodes:
            text = _Text(episode, self.every)
            known = self._longest(text)
            missing = [n for n in text.points[len(known) :] if text.key(n) not in pending]
            prefixes = prefix_episodes(episode, self.tokenizer, missing)
            for n, prefix in zip(missing, prefixes, strict=True):
                pending[text.key(n)] = len(asked)
                asked.append(prefix)
            plans.append((text, known))
        values = part_values(self.reward, asked) if asked else np.zeros(0)
        found = []
        for text, known in plans:
            new = [pending[text.key(n)] for n in text.points[len(known) :]]
            scores = np.concatenate([known, values[new]]) if new else known
            if np.isfinite(scores).all():
                self._known[text.key(text.points[-1])] = scores
            found.append(scores[text.places()])
        while len(self._known) > max(self.memory, 2 * len(episodes)):
            self._known.popitem(last=False)
        return found

    def _longest(self, text: _Text) -> NDArray[np.float64]:
        """The scores of the longest prefix that is known, and of those before it."""
        for n in reversed(text.points):
            known = self._known.get(text.key(n))
            if known is not None:
                self._known.move_to_end(text.key(n))
                return known
        return np.zeros(0)


class _Text:
    """Which prefixes of an episode are judged, and what they are remembered by."""

    def __init__(self, episode: Episode, every: int) -> None:
        self._episode, self._every = episode, every
        self._positions = np.flatnonzero(episode.completion_mask)
        self._total = len(self._positions)
        self._keys: dict[int, Any] = {}
        finished = episode.finish_reason is not None
        last = self._total - finished  # a finished text is there once, as it is
        self.points = list(range(0, min(last, _MOST_PREFIXES * every) + 1, every))
        self._judged = len(self.points)
        if finished:
            self.points.append(self._total)

    def key(self, n: int) -> Any:
        """What the prefix of n tokens is remembered by."""
        if n not in self._keys:
            episode, last = self._episode, n == self._total
            end = len(episode.input_ids) if last else self._positions[n]
            ids = episode.input_ids[:end].tobytes()
            self._keys[n] = (episode.instance, n, ids, episode.finish_reason if last else None)
        return self._keys[n]

    def places(self) -> NDArray[np.int64]:
        """`[N + 1]`, for each prefix, which of `points` has its score."""
        places = np.minimum(np.arange(self._total + 1) // self._every, max(self._judged - 1, 0))
        if len(self.points) > self._judged:
            places[-1] = self._judged
        return places


def _changing(reward: Reward) -> Reward | None:
    """The first of `reward` and its parts that learns as it is used."""
    if reward.own_state():
        return reward
    return next(filter(None, map(_changing, reward.parts)), None)
