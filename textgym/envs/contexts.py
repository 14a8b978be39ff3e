"""`Contexts`: what every row has read and written so far, as arrays that grow by one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Observation = dict[str, NDArray[Any]]

# What fills a row beyond its context. `attention_mask` is 0 there; the id itself means nothing.
PAD_ID = 0


class Contexts:
    """Token ids of `B` rows, right-padded to `C`, and each row's budget.

    The arrays of `observation` are written in place, one token a row and step. With `alternate`
    there are two sets of them, used in turn, so that the observation before the last one stays as
    it was; the set that comes back into use is brought up to date by what changed meanwhile.

    Args:
        num_envs: B.
        capacity: C, the longest context, in tokens.
        budget: the agent's own tokens per episode.
        alternate: keep two sets of arrays.
    """

    def __init__(self, num_envs: int, capacity: int, budget: int, *, alternate: bool) -> None:
        self.capacity = capacity
        self.budget = budget
        self._sets = [self._empty(num_envs, capacity) for _ in range(2 if alternate else 1)]
        self.observation = self._sets[0]
        self.lengths = np.zeros(num_envs, np.int64)
        self.prompt_lengths = np.zeros(num_envs, np.int64)
        # Where each row's unfinished turn began, and the spans [start, end) of replies before it.
        self.turn_starts = np.zeros(num_envs, np.int64)
        self.reply_spans: list[tuple[tuple[int, int], ...]] = [()] * num_envs
        self._ones = np.ones(capacity, np.bool_)
        # Rows, positions and tokens of the step before, and the rows that changed otherwise.
        self._written: tuple[NDArray[np.int64], ...] | None = None
        self._rewritten: list[int] = []

    @staticmethod
    def _empty(num_envs: int, capacity: int) -> Observation:
        return {
            "input_ids": np.full((num_envs, capacity), PAD_ID, np.int64),
            "attention_mask": np.zeros((num_envs, capacity), np.int8),
            "remaining": np.zeros((num_envs, 1), np.int64),
        }

    def advance(self) -> None:
        """Begin a step: with `alternate`, continue in the other set of arrays."""
        if len(self._sets) == 1:
            return
        current, other = self._sets
        if self._written is not None:
            rows, positions, tokens = self._written
            other["input_ids"][rows, positions] = tokens
            other["attention_mask"][rows, positions] = 1
        if self._rewritten:
            for key in ("input_ids", "attention_mask"):
                other[key][self._rewritten] = current[key][self._rewritten]
        np.copyto(other["remaining"], current["remaining"])
        self._written, self._rewritten = None, []
        self._sets = [other, current]
        self.observation = other

    def append(self, rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Append one of the agent's own tokens to each of `rows`; return whose budget ended."""
        observation = self.observation
        positions = self.lengths[rows]
        observation["input_ids"][rows, positions] = tokens
        observation["attention_mask"][rows, positions] = 1
        self.lengths[rows] = positions + 1
        left = observation["remaining"][rows, 0] - 1
        observation["remaining"][rows, 0] = left
        if len(self._sets) == 2:
            self._written = (rows, positions, tokens)
        exhausted: NDArray[np.bool_] = left == 0
        return exhausted

    def load(self, row: int, prompt_ids: NDArray[np.int64]) -> None:
        """Start `row` anew with a prompt."""
        count = len(prompt_ids)
        observation = self.observation
        ids, mask = observation["input_ids"][row], observation["attention_mask"][row]
        ids[:count] = prompt_ids
        ids[count:] = PAD_ID
        mask[:count] = 1
        mask[count:] = 0
        observation["remaining"][row, 0] = self.budget
        self.lengths[row] = self.prompt_lengths[row] = self.turn_starts[row] = count
        self.reply_spans[row] = ()
        self._rewrote(row)

    def extend(self, row: int, reply_ids: Sequence[int]) -> None:
        """Append a reply to `row` and begin the agent's next turn behind it."""
        start = int(self.lengths[row])
        end = start + len(reply_ids)
        self.observation["input_ids"][row, start:end] = reply_ids
        self.observation["attention_mask"][row, start:end] = 1
        self.reply_spans[row] = (*self.reply_spans[row], (start, end))
        self.lengths[row] = self.turn_starts[row] = end
        self._rewrote(row)

    def _rewrote(self, row: int) -> None:
        if len(self._sets) == 2:
            self._rewritten.append(row)

    def input_ids(self, row: int) -> NDArray[np.int64]:
        """`[T] int64`, a read-only copy of the context of `row`."""
        ids: NDArray[np.int64] = self.observation["input_ids"][row, : self.lengths[row]].copy()
        ids.flags.writeable = False
        return ids

    def completion_mask(self, row: int) -> NDArray[np.bool_]:
        """`[T] bool`, read-only, True at the agent's own tokens of `row`."""
        mask = self._ones[: self.lengths[row]].copy()
        mask[: self.prompt_lengths[row]] = False
        for start, end in self.reply_spans[row]:
            mask[start:end] = False
        mask.flags.writeable = False
        return mask

    def turn_ids(self, row: int) -> list[int]:
        """The agent's tokens of its unfinished turn."""
        ids: list[int] = self.observation["input_ids"][
            row, self.turn_starts[row] : self.lengths[row]
        ].tolist()
        return ids

    def generated(self) -> NDArray[np.int64]:
        """`[B] int64`, how many tokens of its own each row holds."""
        count: NDArray[np.int64] = self.budget - self.observation["remaining"][:, 0]
        return count

    def copied(self) -> Observation:
        """The observation of every row, in arrays of its own."""
        return {key: value.copy() for key, value in self.observation.items()}

    def copied_rows(self, rows: Sequence[int]) -> list[Observation]:
        """The observations of `rows`, one dict each, in arrays of their own."""
        blocks = {key: value[list(rows)] for key, value in self.observation.items()}
        return [{key: block[i] for key, block in blocks.items()} for i in range(len(rows))]

    _ARRAYS = ("lengths", "prompt_lengths", "turn_starts")

    def get_state(self) -> dict[str, Any]:
        """Everything, in arrays of its own."""
        state: dict[str, Any] = {name: getattr(self, name).copy() for name in self._ARRAYS}
        return {**state, **self.copied(), "reply_spans": list(self.reply_spans)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave; observations handed out before stay as they are."""
        self._sets = [self._empty(len(self.lengths), self.capacity) for _ in self._sets]
        for observation in self._sets:
            for key, value in observation.items():
                np.copyto(value, state[key])
        self.observation = self._sets[0]
        for name in self._ARRAYS:
            np.copyto(getattr(self, name), state[name])
        self.reply_spans = list(state["reply_spans"])
        self._written, self._rewritten = None, []
