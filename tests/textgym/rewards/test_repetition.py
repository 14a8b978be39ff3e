"""`Repetition`, against a count of its own."""

import random

import pytest

from textgym.rewards.repetition import Repetition, word_ngrams


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("", 1, []),
        ("one", 2, []),
        ("One two", 2, [("one", "two")]),
        ("a\nb \t c", 2, [("a", "b"), ("b", "c")]),
    ],
)
def test_ngrams(text, n, expected):
    assert word_ngrams(text, n) == expected


@pytest.mark.parametrize("n", [1, 2, 3])
def test_it_is_minus_the_share_of_ngrams_used_before(n):
    rng = random.Random(n)
    reward = Repetition(n)
    for _ in range(100):
        words = rng.choices("abc", k=rng.randrange(12))
        grams = ["".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        used_before = sum(gram in grams[:i] for i, gram in enumerate(grams))
        expected = -used_before / len(grams) if grams else 0.0
        assert reward.value(" ".join(words)) == pytest.approx(expected)


def test_an_n_of_any_size_is_quick():
    assert Repetition(10**9).value("a few words") == 0.0
