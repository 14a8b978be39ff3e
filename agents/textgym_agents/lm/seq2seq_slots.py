"""Incremental decoding with an encoder-decoder model, for rows that reset at different times.

Each row has the cross-attention keys and values of its prompt, written once, and those of the
decoder's tokens. The latter are aligned at their *ends*: whatever their number, the newest token of
every row lies in the same column, so that one step writes one column, and relative positions (T5's)
are those of rows in lockstep. Where a row begins is a matter of its mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache

from textgym_agents.lm.slot_cache import _parts

# What the user is told of a task that replies.
ONE_PROMPT = (
    "encoder-decoder models read one prompt an episode, and this task replies in the middle of "
    "one. Take a causal model, or a task of a single turn."
)

# Columns for so many whole completions: then what is still needed moves back to the front.
_ROUNDS = 2


class _Column(CacheLayerMixin):
    """One layer's keys and values `[B, H, columns, D]`; a step writes the last column it reads."""

    is_sliding = False

    def __init__(self, slots: Seq2SeqSlots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Prompts are read first, which makes the tensors."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        begin, end = self.slots.span
        self.keys[:, :, end - 1 : end] = key_states
        self.values[:, :, end - 1 : end] = value_states
        return self.keys[:, :, begin:end], self.values[:, :, begin:end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.slots.span[1] - self.slots.span[0], 0

    def get_seq_length(self) -> int:
        return self.slots.span[1] - self.slots.span[0] - 1

    def get_max_length(self) -> int:
        return -1


class _Prompt(_Column):
    """One layer's keys and values of the prompts `[B, H, P, D]`, read and never written."""

    def get_seq_length(self) -> int:
        return 1  # what is there is taken as it is


class Seq2SeqSlots:
    """Keys and values of `num_rows` contexts, one slot each.

    Args:
        model: a `Seq2SeqLM`.
        num_rows: B.
        context_size: C, the longest context.
    """

    def __init__(self, model: Any, num_rows: int, context_size: int) -> None:
        self.model = model
        self.num_rows = num_rows
        self.context_size = context_size
        self.device = model.device
        self.capacity = _ROUNDS * model.target_size
        self.span = (0, 0)  # columns that the step under way reads; it writes the last of them
        self.cached_ids = np.zeros((num_rows, context_size), dtype=np.int64)
        self.cached_lengths = np.zeros(num_rows, dtype=np.int64)
        self.prompt_lengths = np.zeros(num_rows, dtype=np.int64)
        self._columns = np.arange(context_size)
        self._end = 0  # the column after every row's newest token
        self._own: list[_Column] = []
        self._cross: list[tuple[Tensor, Tensor]] = []
        self._cache: EncoderDecoderCache | None = None
        self._hidden = torch.zeros(0)

    def clear(self) -> None:
        """Forget every context; the memory is kept."""
        self.cached_lengths[:] = 0

    def taken(self, rows: NDArray[np.int64]) -> Seq2SeqSlots:
        """Slots whose row i goes on from what row ``rows[i]`` has read."""
        new = Seq2SeqSlots(self.model, len(rows), self.context_size)
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        if self._own:
            own = [(layer.keys[index], layer.values[index]) for layer in self._own]
            new._install(own, [(keys[index], values[index]) for keys, values in self._cross])
            new._hidden = self._hidden[index]
        new._end = self._end
        for name in ("cached_ids", "cached_lengths", "prompt_lengths"):
            getattr(new, name)[:] = getattr(self, name)[rows]
        return new

    @torch.no_grad()
    def last_hidden(
        self, input_ids: Tensor, lengths: NDArray[np.int64], prompt_lengths: NDArray[np.int64]
    ) -> Tensor:
        """`[B, d]`, the decoder's last hidden state after each context.

        Args:
            input_ids: `[B, C] int64`, right-padded contexts.
            lengths: `[B] int64`.
            prompt_lengths: `[B] int64`, at least 1 and at most `lengths`.

        Raises:
            ValueError: a task replied in mid-episode.
        """
        ids = input_ids.cpu().numpy()
        known = self.cached_lengths
        differs = ((ids != self.cached_ids) & (self._columns < known[:, None])).any(axis=1)
        extends = ~differs & (lengths >= known) & (known > 0)
        moved = prompt_lengths != self.prompt_lengths
        self._refuse_replies(extends & moved, lengths, prompt_lengths)
        known[~extends | moved] = 0
        try:
            self._advance(input_ids, lengths, prompt_lengths)
        except BaseException:
            self.clear()  # slots may be half written
            raise
        np.copyto(self.cached_ids, ids)
        np.copyto(self.cached_lengths, lengths)
        np.copyto(self.prompt_lengths, prompt_lengths)
        return self._hidden.clone()

    def _refuse_replies(
        self,
        suspects: NDArray[np.bool_],
        lengths: NDArray[np.int64],
        prompt_lengths: NDArray[np.int64],
    ) -> None:
        # An episode that began anew has written nothing yet, even if its prompt extends the last.
        before = self.cached_lengths - self.prompt_lengths
        written = lengths - prompt_lengths
        replied = suspects & (written == before + 1) & (prompt_lengths > self.prompt_lengths)
        if replied.any():
            raise ValueError(ONE_PROMPT)

    def _advance(
        self, input_ids: Tensor, lengths: NDArray[np.int64], prompt_lengths: NDArray[np.int64]
    ) -> None:
        known = self.cached_lengths
        sizes = lengths - prompt_lengths + 1  # of the targets, start token included
        if (sizes < 1).any() or (sizes > self.model.target_size).any():
            raise ValueError(
                f"a completion must have 0 to {self.model.max_new_tokens} tokens, got "
                f"{int(sizes.min()) - 1} to {int(sizes.max()) - 1}. Does `remaining` count down "
                "from the budget?"
            )
        new = lengths - known
        steps = (known > 0) & (new == 1)
        stepping = int(steps.sum()) * 2 > self.num_rows
        # A step moves the common end, and so concerns every row: others are read again.
        kept = steps if stepping else (known > 0) & (new == 0)
        read = np.flatnonzero(~kept)
        if not kept.any():
            self._end = self.model.target_size
        else:
            self._make_room(int(sizes[read].max(initial=1)), int(sizes[kept].max()), stepping)
        if stepping:
            self._step(input_ids, lengths, sizes, kept)
        for rows in _parts(read, lengths):
            self._read(rows, input_ids, sizes, prompt_lengths)

    def _make_room(self, longest_read: int, longest_kept: int, stepping: bool) -> None:
        """Move what is kept where the rows' common end, after this call, leaves room for all."""
        end = self._end + stepping
        if end > self.capacity or end < longest_read:
            target = self.model.target_size
            size = longest_kept - stepping
            here = slice(self._end - size, self._end)
            there = slice(target - stepping - size, target - stepping)
            for layer in self._own:
                for tensor in (layer.keys, layer.values):
                    tensor[:, :, there] = tensor[:, :, here].clone()
            end = target
        self._end = end

    def _step(
        self,
        input_ids: Tensor,
        lengths: NDArray[np.int64],
        sizes: NDArray[np.int64],
        kept: NDArray[np.bool_],
    ) -> None:
        """One token for every row. Rows that are not `kept` ride along and are read anew."""
        begin = self._end - int(sizes[kept].max())
        self.span = (begin, self._end)
        at = torch.from_numpy(np.stack([lengths - 1, sizes])).to(self.device)
        columns = torch.arange(begin, self._end, device=self.device)
        width = int(self.prompt_lengths.max()) + len(self.model.closing)
        places = torch.arange(width, device=self.device)
        prompts = torch.from_numpy(self.prompt_lengths).to(self.device)[:, None]
        for layer, (keys, values) in zip(
            self._cache.cross_attention_cache.layers, self._cross, strict=True
        ):
            layer.keys, layer.values = keys[:, :, :width], values[:, :, :width]
        hidden = self.model.decode_next(
            input_ids.gather(1, at[0][:, None])[:, 0],
            at[1] - 1,
            visible=columns >= self._end - at[1][:, None],
            there=places < prompts + len(self.model.closing),
            cache=self._cache,
        )
        if kept.all():
            self._hidden = hidden
        else:
            index = torch.from_numpy(np.flatnonzero(kept)).to(self.device)
            self._hidden[index] = hidden[index]

    def _read(
        self,
        rows: NDArray[np.int64],
        input_ids: Tensor,
        sizes: NDArray[np.int64],
        prompt_lengths: NDArray[np.int64],
    ) -> None:
        """Whole contexts: the prompts by the encoder, the targets by the decoder."""
        index = torch.from_numpy(rows).to(self.device)
        contexts = input_ids[index]
        prompts = torch.from_numpy(prompt_lengths[rows]).to(self.device)
        size = torch.from_numpy(sizes[rows]).to(self.device)
        tokens, there = self.model.sources(contexts, prompts)
        width = int(sizes[rows].max())
        targets = self.model.targets(contexts, prompts, width)
        hidden, cache = self.model.decode(
            targets, self.model.encode(tokens, there), there, cached=True
        )
        if not self._own:
            self._allocate(cache)
        offsets = torch.arange(width, device=self.device)
        row, place = torch.nonzero(offsets < size[:, None], as_tuple=True)
        column = self._end - size[row] + place
        own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        for i, layer in enumerate(self._own):
            for ours, theirs in ((layer.keys, own[i].keys), (layer.values, own[i].values)):
                # Advanced indices around a slice come first in the result: [m, H, D].
                ours[index[row], :, column] = theirs[row, :, place]
            for ours, theirs in zip(self._cross[i], (cross[i].keys, cross[i].values), strict=True):
                ours[index, :, : theirs.shape[2]] = theirs
        self._hidden[index] = hidden[torch.arange(len(rows), device=self.device), size - 1]

    def _allocate(self, like: EncoderDecoderCache) -> None:
        def zeros(tensor: Tensor, length: int) -> Tensor:
            # Zeros, not empty: a masked NaN would still spread through the product with the values.
            return tensor.new_zeros((self.num_rows, tensor.shape[1], length, tensor.shape[3]))

        length = max(1, self.context_size - 1) + len(self.model.closing)
        length = min(length, self.model.source_size)
        own, cross = (
            [(zeros(layer.keys, size), zeros(layer.values, size)) for layer in part.layers]
            for part, size in (
                (like.self_attention_cache, self.capacity),
                (like.cross_attention_cache, length),
            )
        )
        self._install(own, cross)
        shape = (self.num_rows, self.model.hidden_size)
        dtype = self.model.model.get_output_embeddings().weight.dtype
        self._hidden = torch.zeros(shape, dtype=dtype, device=self.device)

    def _install(
        self, own: list[tuple[Tensor, Tensor]], cross: list[tuple[Tensor, Tensor]]
    ) -> None:
        """Take the keys and values of each layer."""
        for keys, values in own:
            column = _Column(self)
            column.keys, column.values, column.is_initialized = keys, values, True
            self._own.append(column)
        self._cross = cross
        self._cache = EncoderDecoderCache(
            Cache(layers=self._own), Cache(layers=[_Prompt(self) for _ in cross])
        )
