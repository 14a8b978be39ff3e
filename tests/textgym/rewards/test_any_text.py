"""What a model writes is data: rewards of the text alone take anything, and quickly."""

import random
import time

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.avoidance import Avoid
from textgym.rewards.budget import Budget
from textgym.rewards.distinct import Distinct
from textgym.rewards.keywords import Keywords
from textgym.rewards.length import Length
from textgym.rewards.loops import Loops
from textgym.rewards.readability import Readability
from textgym.rewards.repetition import Repetition

REWARDS = [
    lambda: Length(min=3, max=20),
    lambda: Length(12, unit="characters"),
    lambda: Length(max=2, unit="tokens"),
    lambda: Budget(3, cost=0.3),
    lambda: Repetition(1),
    lambda: Loops(),
    lambda: Distinct(),
    lambda: Distinct(1, window=3),
    lambda: Readability(),
    lambda: Readability(6, tolerance=3),
    lambda: Readability(language="fr"),
    lambda: Keywords(["fox", "red kite", "C++"]),
    lambda: Avoid(["fox", "red kite", "C++"]),
]
PIECES = [
    *("fox", "red kite", "Fox! ", "C++", " ", "\n\n", "\t", "\r", "x", "ha" * 5, "a" * 50),
    *("\x00", "\x1b[0m", "\ufffd", "\ud800", "\udfff", "\u202e", "\xad", "e\u0301", "\u0130"),
    *("\U0001f98a", "我爱你。", "ελλάδα", "....", "!?", "''''", "1.5", "_", "\u2028", "\u200b"),
]
LONG = {
    "letters": "a" * 10**6,
    "words": "a " * 500_000,
    "blanks": "red" + " " * 10**6 + "kit",
    "phrases": "red  " * 200_000,
    "stops": ".'" * 500_000,
    "new words": " ".join(map("w{:b}".format, range(50_000))).replace("0", "o").replace("1", "i"),
}


def episode(text, i):
    ids = np.arange(2 + i % 9)
    reason = ("stop", "length", "task", None)[i % 4]
    return Episode(Instance("p"), ids, ids > 1, text, (Turn("agent", text),), reason)


@pytest.mark.parametrize("make", REWARDS)
def test_anything_has_a_value_in_range_the_same_in_a_batch_as_alone(make):
    rng = random.Random(0)
    texts = ["", *PIECES, *("".join(rng.choices(PIECES, k=rng.randrange(12))) for _ in range(200))]
    episodes = [episode(text, i) for i, text in enumerate(texts)]
    reward, alone = make(), make()
    values = reward(episodes)
    assert (values.dtype, values.shape) == (np.float32, (len(texts),))
    assert np.isfinite(values).all()
    assert reward.range[0] <= values.min() < values.max() <= reward.range[1]
    assert values.tolist() == [float(alone([e])[0]) for e in episodes]
    assert reward([]).shape == (0,)


@pytest.mark.parametrize("make", REWARDS)
def test_a_million_characters_do_not_stall(make):
    reward = make()
    for kind, text in LONG.items():
        start = time.process_time()
        reward([episode(text, 0)])
        assert time.process_time() - start < 20, kind  # squared, it would be hours
