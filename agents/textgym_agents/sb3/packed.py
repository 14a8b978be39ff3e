"""`PackedBatch`: transitions of whole episode segments, one forward each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """n transitions of S segments.

    Args:
        input_ids: `[S, T] int64`, right-padded contexts at the last state of each segment.
        index: `[n] int64`, where each state's last token lies in the flattened `[S * T]`.
        actions: `[n] int64`, the token chosen in each state.
        counts: transitions of each segment; their sum is n, in the order of `index`.
        support: `[n, ceil(V / 8)] uint8`, packed tokens each was chosen among, or None for all.
        prompt_lengths: `[S] int64`, where the segments' prompts end (0: there are several, as in
            a dialogue); None where every segment begins with its episode.
    """

    input_ids: Tensor
    index: Tensor
    actions: Tensor
    counts: list[int]
    support: Tensor | None = None
    prompt_lengths: Tensor | None = None

    def __getitem__(self, which: slice) -> PackedBatch:
        """Some transitions, as a slice of any array `[n]` has them; segments without any go.

        TRPO takes every k-th (`sub_sampling_factor`).
        """
        width = self.input_ids.shape[1]
        index = self.index[which]
        segments, rows, counts = (index // width).unique(return_inverse=True, return_counts=True)
        optional = (self.support, which), (self.prompt_lengths, segments)
        return PackedBatch(
            self.input_ids[segments],
            rows * width + index % width,
            self.actions[which],
            counts.tolist(),
            *(None if values is None else values[at] for values, at in optional),
        )

    def parts(self, max_tokens: int) -> Iterator[PackedBatch]:
        """The same in order, in parts of at most `max_tokens` context tokens."""
        num_segments, width = self.input_ids.shape
        step = max(1, max_tokens // width)
        done = 0
        for first in range(0, num_segments, step):
            counts = self.counts[first : first + step]
            here = slice(done, done + sum(counts))
            ids = self.input_ids[first : first + step]
            index = self.index[here] - first * width
            support = None if self.support is None else self.support[here]
            prompts = self.prompt_lengths
            prompts = None if prompts is None else prompts[first : first + step]
            # Segments of a part may all be shorter than the longest of the batch.
            rows, columns = index // width, index % width
            short = int(columns.max()) + 1
            yield PackedBatch(
                ids[:, :short],
                rows * short + columns,
                self.actions[here],
                counts,
                support,
                prompts,
            )
            done = here.stop

    def to(self, device: torch.device) -> PackedBatch:
        """The same on `device`."""
        moved = (t.to(device) for t in (self.input_ids, self.index, self.actions))
        optional = (
            None if t is None else t.to(device) for t in (self.support, self.prompt_lengths)
        )
        return PackedBatch(*moved, self.counts, *optional)
