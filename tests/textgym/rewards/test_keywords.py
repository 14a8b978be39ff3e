"""`Keywords` and the list of words behind it and `Avoid`."""

import pytest

from textgym.rewards.keywords import Keywords, WordList


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["fox"], "", 0),
        (["fox"], "foxes, firefox, fox_y", 0),
        (["fox"], "(FOX)", 1),
        (["red kite"], "a red\n  kite", 1),
        (["red kite"], "a redkite, a red, kite", 0),
        (["C++", ".net"], "c++ and asp.net", 1),
        (["a.c"], "abc", 0),
        (["ß"], "SS", 1),
        (["\udc80"], "x \udc80 y", 1),
        (["fox", "Fox", " FOX "], "fox", 1),
    ],
)
def test_what_is_found(words, text, expected):
    assert WordList(words).present(text) == expected


def test_modes():
    some, every = Keywords(["fox", "owl"]), Keywords(["fox", "owl"], mode="all")
    assert [some.value(text) for text in ("", "fox", "an owl, a fox")] == [0.0, 0.5, 1.0]
    assert [every.value(text) for text in ("", "fox", "an owl, a fox")] == [0.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="`mode` cannot be 'al'; did you mean `all`"):
        Keywords(["fox"], mode="al")


def test_specs_are_words_only():
    assert Keywords.from_arguments("red kite, Fox,,").words == ("red kite", "fox")
    with pytest.raises(ValueError, match="no keyword"):
        Keywords.from_arguments(" , ")


@pytest.mark.parametrize(("words", "error"), [([], ValueError), ("fox", TypeError)])
def test_bad_lists_are_named(words, error):
    with pytest.raises(error, match="`words` must"):
        Keywords(words)
