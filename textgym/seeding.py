"""Streams of instances: which random numbers episode `index` of row `row` is drawn from.

Every episode has a generator of its own, keyed by (seed, split, row, index), so that neighbouring
seeds and rows share no data, and any episode can be drawn again without those before it.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import numpy as np

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# One instance in this many belongs to the test split.
TEST_SHARE = 8


def check_split(split: str) -> Split:
    """Return `split` if it names one, else raise `ValueError`."""
    if split not in SPLITS:
        raise ValueError(f'`split` must be "train" or "test", got {split!r}.')
    return split


def instance_rng(seed: int, split: Split, row: int, index: int) -> np.random.Generator:
    """The generator that episode `index` of row `row` is drawn from.

    Args:
        seed: any non-negative int.
        split: ``"train"`` or ``"test"``.
        row: row of the vector env; a single env is row 0.
        index: episodes drawn in this row since it was seeded.

    >>> int(instance_rng(0, "train", 0, 0).integers(100)) == int(
    ...     instance_rng(0, "train", 0, 0).integers(100))
    True
    """
    entropy = (seed, SPLITS.index(split), row, index)
    # Numbers of one word each mean the same as an array of words, which is read at half the time.
    words = entropy if max(entropy) >> 32 else np.array(entropy, np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def fresh_seed() -> int:
    """A seed from the operating system, for environments reset without one."""
    entropy = np.random.SeedSequence().entropy
    return int(entropy)  # type: ignore[arg-type]  # an int when no entropy was given


def split_of(key: str) -> Split:
    """The split that text `key` belongs to, by a stable hash: the same on every machine."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_SHARE == 0 else "train"
