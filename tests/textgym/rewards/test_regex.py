"""`Regex`: against `re` on random texts, and what bounds it."""

import re
import time

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.regex import Regex

GARBAGE = ["", " ", "\x00", "\ud800", "\ufffd", "\u202e", "a" * 1_000_000, "(" * 1_000_000]


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize("pattern", ["a+b*", "(a|b)+c", "^b.*", "c{2,3}(?!b)", r"(a|b)(c)\1?|c\b"])
@pytest.mark.parametrize("mode", ["full", "search"])
def test_agrees_with_re(pattern, mode):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abc"), rng.integers(1, 5))) for _ in range(100)]
    of_re = re.fullmatch if mode == "full" else re.search
    values = Regex(pattern, mode)([episode(t) for t in texts])
    assert values.dtype == np.float32
    assert values.tolist() == [float(of_re(pattern, t) is not None) for t in texts]
    assert 0 < values.mean() < 1
    assert values.tolist() == [Regex(pattern, mode).value(t) for t in texts]


def test_white_space_at_the_ends():
    assert Regex("fox").value(" fox\n") == 1
    assert Regex(" fox\n").value(" fox\n") == 1
    assert Regex(" fox").value("fox") == 0
    assert Regex("^fox$", "search").value(" fox\n") == 0


def test_flags():
    assert Regex("FOX").value("fox") == 0
    assert Regex("FOX", ignore_case=True).value("fox") == 1
    assert Regex("a.b").value("a\nb") == 0
    assert Regex("a.b", dot_all=True).value("a\nb") == 1
    assert Regex("^b$", "search").value("a\nb\nc") == 0
    assert Regex("^b$", "search", multiline=True).value("a\nb\nc") == 1
    assert Regex("(?si).*fox.*").value("The\nFox\nran") == 1


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(?:x+x+)+y", "x" * 1_000_000),
        (r"(\w+)\1", "ab" * 500_000 + "c"),
        (r"(.*?,){11}P", ",".join("1234567890" * 5)),
    ],
)
def test_endless_backtracking_pays_0_in_time(pattern, text):
    reward = Regex(pattern, time_limit=0.05)
    begun = time.process_time()
    assert reward([episode(text)]).tolist() == [0]
    assert time.process_time() - begun < 20
    assert reward.timeouts == 1
    assert reward.figures() == {"timeouts": 1.0}
    assert reward.value("nothing") == 0
    assert reward.timeouts == 1


@pytest.mark.parametrize("mode", ["full", "search"])
def test_garbage_is_data(mode):
    assert Regex("[0-9]+", mode)([episode(t) for t in GARBAGE]).tolist() == [0] * len(GARBAGE)
    assert Regex(".", mode).value("\ud800") == 1


@pytest.mark.parametrize("pattern", ["(", "[a", "*a", "a{2,1}", r"\p{Nope}", "(" * 5000])
def test_a_bad_pattern_is_named(pattern):
    with pytest.raises(ValueError, match="is not a regular expression"):
        Regex(pattern)


def test_bad_arguments():
    with pytest.raises(ValueError, match="empty"):
        Regex.from_arguments("")
    with pytest.raises(ValueError, match="`search`"):
        Regex("a", "serch")
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0 seconds"):
            Regex("a", time_limit=seconds)


def test_spec_arguments_are_the_pattern():
    reward = Regex.from_arguments("a{1,3}, mode=b*")
    assert (reward.pattern, reward.mode) == ("a{1,3}, mode=b*", "full")
    assert reward.value("aa, mode=bb") == 1
