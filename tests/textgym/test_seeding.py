"""Streams of instances are those of numpy's `SeedSequence((seed, split, row, index))`."""

from __future__ import annotations

import numpy as np
import pytest

from textgym.seeding import SPLITS, instance_rng

ONE_WORD = 2**32 - 1


@pytest.mark.parametrize("seed", [0, 7, ONE_WORD, ONE_WORD + 1, 2**127 + 5])
@pytest.mark.parametrize(("row", "index"), [(0, 0), (1023, 3), (5, ONE_WORD), (2, ONE_WORD + 1)])
@pytest.mark.parametrize("split", SPLITS)
def test_the_generator_is_the_documented_one(seed, split, row, index):
    documented = np.random.default_rng(
        np.random.SeedSequence((seed, SPLITS.index(split), row, index))
    )
    state = instance_rng(seed, split, row, index).bit_generator.state
    assert state == documented.bit_generator.state
