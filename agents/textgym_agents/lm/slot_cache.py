"""Incremental decoding for rows that reset at different times: one slot of keys and values a row.

`SlotCache.last_hidden(input_ids, lengths)` is a pure function of the contexts given to it. It keeps
what it computed for each row and, when the next context extends the last one, feeds the model only
what is new: one token as a rule, a whole prompt after a reset, a reply in a dialogue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from textgym_agents.lm.prompt_store import Known, PromptStore, tokens_of

# Slots grow by this many positions, so that a pool costs what its contexts need.
_BLOCK = 64
# A prefill of many long contexts goes in parts of about this many tokens, to bound its memory.
_PREFILL_TOKENS = 16_384


class _Write:
    """Where the forward under way writes, and how much of the cache it reads."""

    def __init__(
        self, rows: Tensor | None, positions: Tensor | None, start: int | None, length: int
    ) -> None:
        self.rows = rows  # [r] int64, or None for all rows
        self.positions = positions  # [r, q] int64, or None where all rows write from `start`
        self.start = start
        self.length = length  # attended positions, the new ones included
        self.grid: tuple[Tensor, Tensor] | None = None
        if positions is not None and rows is not None:
            self.grid = (rows[:, None], positions)  # [r, 1], [r, q]


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, `[B, H, capacity, D]`, each row at its own positions."""

    is_sliding = False

    def __init__(self, pool: SlotCache) -> None:
        super().__init__()
        self.pool = pool

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        capacity = self.pool.capacity
        self.keys = self._grown(self.keys, key_states, capacity)
        self.values = self._grown(self.values, value_states, capacity)
        self.is_initialized = True

    def _grown(self, old: Tensor | None, like: Tensor, capacity: int) -> Tensor:
        # Zeros, not empty: a masked NaN would still spread through the product with the values.
        shape = (self.pool.num_rows, like.shape[1], capacity, like.shape[3])
        new = torch.zeros(shape, dtype=like.dtype, device=like.device)
        if old is not None:
            new[:, :, : old.shape[2]] = old
        return new

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.keys.shape[2] < self.pool.capacity:
            self.lazy_initialization(key_states, value_states)
        write = self.pool.write
        keys, values, n = self.keys, self.values, key_states.shape[2]
        if write.positions is None:
            span = slice(write.start, write.start + n)
            if write.rows is None:
                keys[:, :, span] = key_states
                values[:, :, span] = value_states
                return keys[:, :, : write.length], values[:, :, : write.length]
            keys[write.rows, :, span] = key_states
            values[write.rows, :, span] = value_states
            if write.start == 0:  # nothing before them: they are all there is to attend to
                return key_states, value_states
        else:
            # Advanced indices around a slice come first in the result: [r, q, H, D].
            rows, positions = write.grid
            keys[rows, :, positions] = key_states.transpose(1, 2)
            values[rows, :, positions] = value_states.transpose(1, 2)
        if write.rows is self.pool.all_rows:
            return keys[:, :, : write.length], values[:, :, : write.length]
        return (
            keys[write.rows, :, : write.length],
            values[write.rows, :, : write.length],
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.pool.write.length, 0

    def get_seq_length(self) -> int:
        return self.pool.write.length

    def get_max_length(self) -> int:
        return -1


class SlotCache:
    """Keys and values of `num_rows` contexts, one slot each.

    Args:
        model: a `CausalLM` (the adapter of this package).
        num_rows: B.
        context_size: C, the longest context.
    """

    def __init__(self, model: Any, num_rows: int, context_size: int) -> None:
        if getattr(model, "needs_prompt_lengths", False):
            raise ValueError(
                "encoder-decoder models decode by `Seq2SeqSlots`, which must know where prompts "
                "end. Take a causal model, or SB3's PPO or A2C."
            )
        self.model = model
        self.num_rows = num_rows
        self.context_size = context_size
        self.capacity = min(_BLOCK, context_size) + 1
        self.device = model.device
        self.cache = Cache(layers=[_SlotLayer(self) for _ in range(model.num_layers)])
        self.all_rows = torch.arange(num_rows, device=self.device)
        self.write: Any = None
        self.lean = model.lean_body() if self.device.type == "cpu" else None
        self._changed = False
        self._prompts = PromptStore()
        self.cached_ids = np.zeros((num_rows, context_size), dtype=np.int64)
        self.cached_lengths = np.zeros(num_rows, dtype=np.int64)
        self._columns = np.arange(context_size)
        self._hidden = torch.zeros(0)

    def clear(self) -> None:
        """Forget every context, for the weights have changed; the memory is kept."""
        self.cached_lengths[:] = 0
        self._changed = True
        self._prompts.clear()

    @torch.no_grad()
    def last_hidden(self, input_ids: Tensor, lengths: NDArray[np.int64]) -> Tensor:
        """`[B, d]`, the last hidden state at the last token of each context.

        Args:
            input_ids: `[B, C] int64`, right-padded contexts.
            lengths: `[B] int64`, at least 1.
        """
        ids = input_ids.cpu().numpy()
        known = self.cached_lengths
        differs = ((ids != self.cached_ids) & (self._columns < known[:, None])).any(axis=1)
        # A context that became shorter is one that changed: its last token is not the cached one.
        known[differs | (lengths < known)] = 0
        new = lengths - known
        self._ensure(int(lengths.max()))
        if self._changed and self.lean is not None:
            self.lean.refresh()
        self._changed = False
        try:
            self._advance(input_ids, lengths, new)
        except BaseException:
            self.clear()  # slots may be half written
            raise
        np.copyto(self.cached_ids, ids)
        np.copyto(self.cached_lengths, lengths)
        return self._hidden.clone()

    def taken(self, rows: NDArray[np.int64]) -> SlotCache:
        """A cache whose row i goes on from what row ``rows[i]`` has read."""
        new = SlotCache(self.model, len(rows), self.context_size)
        new.capacity = self.capacity
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        for ours, theirs in zip(new.cache.layers, self.cache.layers, strict=True):
            if theirs.keys is not None:
                ours.keys, ours.values = theirs.keys[index], theirs.values[index]
                ours.is_initialized = True
        new.cached_ids[:] = self.cached_ids[rows]
        new.cached_lengths[:] = self.cached_lengths[rows]
        new._hidden = self._hidden[index]
        return new

    def _ensure(self, longest: int) -> None:
        # One spare position: a row with nothing new is fed a token there that nobody reads.
        if longest + 1 > self.capacity:
            blocks = -(-longest // _BLOCK) * _BLOCK
            self.capacity = min(blocks, self.context_size) + 1

    def _body(
        self, tokens: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        body = self.model.body if self.lean is None else self.lean
        return body(tokens, position_ids=position_ids, attention_mask=attention_mask, cache=cache)

    def _mask(self, positions: Tensor, length: int) -> Tensor:
        if self.lean is None:
            return self.model.decode_mask(positions, length)
        columns = torch.arange(length, device=self.device)
        return columns <= positions[:, None, :, None]

    def _advance(self, input_ids: Tensor, lengths: NDArray[np.int64], new: NDArray) -> None:
        known = self.cached_lengths
        one = (new == 1) & (known > 0)
        count = int(one.sum())
        if count * 2 > self.num_rows:
            # Rows with more to come, or nothing, ride along: what they write is overwritten or
            # masked, and indexing the whole cache by row would cost a copy of it.
            self._step(None, input_ids, known, keep=None if count == self.num_rows else one)
        elif count:
            self._extend(np.flatnonzero(one), input_ids, known, lengths)
        more = np.flatnonzero((new > 0) & ~one)
        fresh = more[known[more] == 0]
        longer = more[known[more] > 0]
        if fresh.size:
            self._begin(fresh, input_ids, lengths)
        for rows in _parts(longer, lengths):
            self._extend(rows, input_ids, known, lengths)

    def _step(
        self,
        rows: None,
        input_ids: Tensor,
        known: NDArray[np.int64],
        keep: NDArray[np.bool_] | None,
    ) -> None:
        """One token for every row."""
        low, high = int(known.min()), int(known.max())
        if low == high:  # rows in lockstep: a slice is written, and nothing need be masked
            tokens = input_ids[:, low : low + 1]
            position_ids = torch.full((1, 1), low, device=self.device)
            self.write = _Write(None, None, low, low + 1)
            mask = None
        else:
            positions = torch.from_numpy(known).to(self.device)[:, None]  # [B, 1]
            safe = positions.clamp(max=self.context_size - 1)
            tokens = input_ids.gather(1, safe)
            position_ids = safe
            self.write = _Write(self.all_rows, positions, None, high + 1)
            mask = self._mask(positions, high + 1)
        hidden = self._body(
            tokens, position_ids=position_ids, attention_mask=mask, cache=self.cache
        )[:, 0]
        if keep is None or len(self._hidden) != self.num_rows:
            self._hidden = hidden
        else:
            kept = torch.from_numpy(keep).to(self.device)[:, None]
            self._hidden = torch.where(kept, hidden, self._hidden)

    def _begin(
        self, rows: NDArray[np.int64], input_ids: Tensor, lengths: NDArray[np.int64]
    ) -> None:
        """Whole contexts, each different one computed once, and not again while it is known."""
        ids = input_ids.numpy(force=True)
        same: dict[bytes, list[int]] = {}
        for row in rows.tolist():
            same.setdefault(ids[row, : lengths[row]].tobytes(), []).append(row)
        new = {key: of_key for key, of_key in same.items() if key not in self._prompts}
        once = np.array([of_key[0] for of_key in new.values()], np.int64)
        for part in _parts(once, lengths):
            self._prefill(part, input_ids, lengths)
        # Those that are known before the new ones, which may take their places.
        for key, of_key in same.items():
            if key not in new:
                self._write_prompt(of_key, self._prompts[key])
        for key, (first, *others) in new.items():
            # Kept from the second time on: most prompts never come again.
            if self._prompts.comes_again(key) or others:
                known = self._read(first, int(lengths[first]))
                self._prompts.keep(key, known)
                self._write_prompt(others, known)

    def _read(self, row: int, length: int) -> Known:
        layers = [
            (layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone())
            for layer in self.cache.layers
        ]
        return layers, self._hidden[row].clone()

    def _write_prompt(self, rows: list[int], known: Known) -> None:
        if not rows:
            return
        index = torch.tensor(rows, device=self.device)
        layers, hidden = known
        length = tokens_of(known)
        for layer, (keys, values) in zip(self.cache.layers, layers, strict=True):
            if layer.keys.shape[2] < self.capacity:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[index, :, :length] = keys
            layer.values[index, :, :length] = values
        self._hidden[index] = hidden

    def _prefill(
        self, rows: NDArray[np.int64], input_ids: Tensor, lengths: NDArray[np.int64]
    ) -> None:
        """Whole contexts: ordinary causal attention among the new tokens alone."""
        row_index = torch.from_numpy(rows).to(self.device)
        ends = lengths[rows]
        longest = int(ends.max())
        tokens = input_ids[row_index, :longest]
        self.write = _Write(row_index, None, 0, longest)
        position_ids = torch.arange(longest, device=self.device)[None]
        hidden = self._body(
            tokens,
            position_ids=position_ids,
            # Padding is on the right, where causal attention never looks.
            attention_mask=self._mask(position_ids, longest),
            cache=self.cache,
        )
        self._store(row_index, hidden, ends - 1)

    def _extend(
        self,
        rows: NDArray[np.int64],
        input_ids: Tensor,
        known: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> None:
        """Several tokens after a cached context."""
        row_index = torch.from_numpy(rows).to(self.device)
        start, end = known[rows], lengths[rows]
        width = int((end - start).max())
        positions = torch.from_numpy(start[:, None] + np.arange(width)).to(self.device)
        safe = positions.clamp(max=self.context_size - 1)
        # Beyond a row's own end: the spare position, so that no clamped index hits a real one.
        positions = positions.clamp(max=self.capacity - 1)
        tokens = input_ids[row_index[:, None], safe]
        total = int(end.max())
        self.write = _Write(row_index, positions, None, total)
        hidden = self._body(
            tokens,
            position_ids=safe,
            attention_mask=self._mask(positions, total),
            cache=self.cache,
        )
        self._store(row_index, hidden, end - start - 1)

    def _store(self, rows: Tensor, hidden: Tensor, last: NDArray[np.int64]) -> None:
        index = torch.from_numpy(last).to(self.device)
        chosen = hidden[torch.arange(len(rows), device=self.device), index]
        if self._hidden.shape[0] != self.num_rows:
            shape = (self.num_rows, chosen.shape[1])
            self._hidden = torch.zeros(shape, dtype=chosen.dtype, device=self.device)
        self._hidden[rows] = chosen


def _parts(rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """`rows` in groups of similar length and bounded total."""
    if not len(rows):
        return []
    longest = int(lengths[rows].max())
    if len(rows) * longest <= _PREFILL_TOKENS:
        return [rows]
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    size = max(1, _PREFILL_TOKENS // longest)
    return [rows[i : i + size] for i in range(0, len(rows), size)]
