"""`PackedBatch`: transitions of whole episode segments, one forward each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

# Positions of padding that a part may hold before another begins. A forward more costs a small
# model about as much as reading so many positions, so neither is worth more than the other.
_PADDING = 40


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

    @property
    def lengths(self) -> list[int]:
        """The tokens of each segment that have to be read."""
        ends = torch.tensor(self.counts, device=self.index.device).cumsum(0) - 1
        return (self.index[ends] % self.input_ids.shape[1] + 1).tolist()

    def parts(self, max_tokens: int) -> Iterator[PackedBatch]:
        """The same in order, in parts with little padding, of at most `max_tokens` positions.

        A segment longer than that is a part of its own.
        """
        width = self.input_ids.shape[1]
        lengths = self.lengths
        done = 0
        for first, end in pairwise(_cuts(lengths, max_tokens)):
            counts = self.counts[first:end]
            here = slice(done, done + sum(counts))
            index = self.index[here] - first * width
            short = max(lengths[first:end])
            prompts = self.prompt_lengths
            yield PackedBatch(
                self.input_ids[first:end, :short],
                index // width * short + index % width,
                self.actions[here],
                counts,
                None if self.support is None else self.support[here],
                None if prompts is None else prompts[first:end],
            )
            done = here.stop

    def map(self, function: Callable[[PackedBatch], Tensor], max_tokens: int) -> Tensor:
        """`[n, ...]`, what `function` makes of the transitions, in parts of similar segments.

        Args:
            function: gives a row for each transition of a batch, and reads each segment by itself.
            max_tokens: positions of a part.
        """
        order = torch.tensor(self.lengths).argsort(descending=True, stable=True)
        if torch.equal(order, torch.arange(len(order))):
            return torch.cat([function(part) for part in self.parts(max_tokens)])
        counts = torch.tensor(self.counts)
        begins = counts.cumsum(0) - counts
        spans = [torch.arange(int(begins[i]), int(begins[i] + counts[i])) for i in order]
        where = torch.cat(spans)  # of the sorted transitions here
        ordered = self._taken(order, where)
        found = torch.cat([function(part) for part in ordered.parts(max_tokens)])
        return found[where.argsort().to(found.device)]

    def _taken(self, order: Tensor, where: Tensor) -> PackedBatch:
        """All segments in another order, and their transitions, which are at `where` now."""
        device, width = self.index.device, self.input_ids.shape[1]
        counts = torch.tensor(self.counts)[order]
        rows = torch.arange(len(order)).repeat_interleave(counts).to(device)
        order, where = order.to(device), where.to(device)
        return PackedBatch(
            self.input_ids[order],
            rows * width + self.index[where] % width,
            self.actions[where],
            counts.tolist(),
            None if self.support is None else self.support[where],
            None if self.prompt_lengths is None else self.prompt_lengths[order],
        )

    def to(self, device: torch.device) -> PackedBatch:
        """The same on `device`."""
        moved = (t.to(device) for t in (self.input_ids, self.index, self.actions))
        optional = (
            None if t is None else t.to(device) for t in (self.support, self.prompt_lengths)
        )
        return PackedBatch(*moved, self.counts, *optional)


def _cuts(lengths: list[int], max_tokens: int) -> list[int]:
    """Where parts begin, and the end of the last.

    >>> _cuts([100, 90, 80, 20, 19], 1_000)
    [0, 3, 5]
    """
    cuts, widest, total = [0], 0, 0
    for i, length in enumerate(lengths):
        widest, total = max(widest, length), total + length
        positions = widest * (i + 1 - cuts[-1])
        if i > cuts[-1] and (positions - total > _PADDING or positions > max_tokens):
            cuts.append(i)
            widest = total = length
    return [*cuts, len(lengths)]
