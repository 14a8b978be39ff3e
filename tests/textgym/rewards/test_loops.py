"""`Loops`, by hand and against a slow count that follows the definition."""

import itertools
import random

import pytest

from textgym.rewards.loops import Loops


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("  \n ", 0),
        ("the red fox and the red owl and the red kite", 0),
        ("no no", 0),  # twice is no loop
        ("No no NO", -1),
        ("so no no no go", -6 / 10),
        ("I am here. I am here. I am here.", -1),
        ("I am here. I am here. I am", 0),
        ("a b a b a b a c", -7 / 8),  # half a chunk more belongs to the loop
        ("a a a x b b b", -6 / 7),
        ("aaaaaa", -1),
        ("aaaaa", 0),
        ("ok www.x.org 10000 ...", 0),
        ("hahahaha", -1),
        ("ab hahahb", 0),  # five letters of a loop are too few
        ("ab hahahahb", -7 / 10),
        ("xyxyxyz", -6 / 7),
        ("aaa aaa", 0),  # six letters, but in two words
        ("我爱你我爱你我爱你", -1),
        ("aaaaaa aaaaaa aaaaaa x", -18 / 19),  # in two loops at once, counted once
    ],
)
def test_values(text, expected):
    assert Loops().value(text) == pytest.approx(expected)


def test_how_long_a_chunk_and_how_often():
    text = " ".join(["one", "two", "three"] * 3)
    assert Loops(3).value(text) == -1.0
    assert Loops(2).value(text) == 0.0
    assert Loops(3, times=4).value(text) == 0.0
    assert Loops(times=2).value("no no yes") == pytest.approx(-4 / 7)


def slow(text, longest, times):
    """Every stretch that some period repeats `times` times is marked, one by one."""
    words = text.split()
    looped = [[False] * len(word) for word in words]

    def stretches(items, least):
        for start in range(len(items)):
            for period in range(1, longest + 1):
                end = start + period
                while end < len(items) and items[end] == items[end - period]:
                    end += 1
                if end - start >= max(times * period, least):
                    yield start, end

    for start, end in stretches(words, 0):
        looped[start:end] = [[True] * len(word) for word in words[start:end]]
    for word, marks in zip(words, looped, strict=True):
        for start, end in stretches(word, 2 * times):
            marks[start:end] = [True] * (end - start)
    flat = list(itertools.chain(*looped))
    return -sum(flat) / len(flat) if flat else 0.0


@pytest.mark.parametrize(("longest", "times"), [(1, 3), (3, 3), (20, 3), (4, 2), (2, 4)])
def test_it_agrees_with_its_definition(longest, times):
    rng = random.Random(longest)
    reward = Loops(longest, times=times)
    values = []
    for _ in range(200):
        text = "".join(rng.choices("ab ", [3, 1, 2], k=rng.randrange(40)))
        values.append(reward.value(text))
        assert values[-1] == pytest.approx(slow(text, longest, times)), text
    assert len(set(values)) > 10


def test_only_the_beginning_of_a_long_text_is_read():
    assert Loops().value("ab cd. ef " + "x" * 99_990 + " y" * 10**6) == -99_990 / 99_997


def test_specs_and_bad_arguments():
    reward = Loops.from_arguments("8,times=4")
    assert (reward.longest, reward.times) == (8, 4)
    assert (reward.range, reward.name) == ((-1.0, 0.0), "loops")
    with pytest.raises(ValueError, match="`times` must be at least 2"):
        Loops(times=1)
    with pytest.raises(ValueError, match="`longest` must be a positive int"):
        Loops(0)
