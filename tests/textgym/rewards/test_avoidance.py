"""`Avoid`: the mirror image of `Keywords`."""

import random

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.avoidance import Avoid
from textgym.rewards.keywords import Keywords


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize(
    ("text", "share", "every"),
    [
        ("", 1, 1),
        ("a fine day", 1, 1),
        ("every day", 1, 1),
        ("Very fine", 0.75, 0),
        ("very, very, VERY fine", 0.75, 0),
        ("in my\nopinion really very", 0.25, 0),
        ("C++ is, in my opinion, really very fine", 0, 0),
    ],
)
def test_values(text, share, every):
    words = ["very", "really", "in my opinion", "C++"]
    assert Avoid(words)([episode(text)]).tolist() == [share]
    assert Avoid(words, mode="all")([episode(text)]).tolist() == [every]


def test_it_is_one_minus_keywords():
    rng = random.Random(0)
    words = ["a", "b c", "d"]
    for _ in range(100):
        text = " ".join(rng.choices("abcde", k=rng.randrange(5)))
        assert Avoid(words).value(text) == pytest.approx(1 - Keywords(words).value(text))


def test_specs_and_bad_arguments():
    reward = Avoid.from_arguments("badword, other phrase")
    assert reward.words == ("badword", "other phrase")
    assert (reward.range, reward.name) == ((0.0, 1.0), "avoid")
    with pytest.raises(ValueError, match="avoid:very"):
        Avoid.from_arguments("")
    with pytest.raises(ValueError, match="`mode` cannot be 'any'"):
        Avoid(["very"], mode="any")
    with pytest.raises(TypeError, match="`words` must be a list"):
        Avoid("very")
