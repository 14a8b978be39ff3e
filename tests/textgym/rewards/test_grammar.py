"""`Grammar`: its scale by hand, agreement with lark on random texts, and what bounds it."""

import pickle
import sys
import time

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards.grammar import Grammar

lark = pytest.importorskip("lark", reason="lark is not installed")

SUMS = """
start: product ("+" product)*
product: atom ("*" atom)*
atom: NUMBER | "(" start ")"
%import common.NUMBER
%ignore " "
"""
# Neither is LALR(1): palindromes, and an ambiguous one with rules that derive nothing.
PALINDROMES = 'start: "a" start "a" | "b" start "b" | "c"'
EMPTY = 'start: x x? | start start\nx: ("a" | y)*\ny: "b"? "c" | '
STRINGS = r"""
start: _value
_value: "[" [_value ("," _value)*] "]" | STRING | WORD "!"
STRING: /"[^"]*"/
WORD: /[a-c]+/
%ignore /[ ]+/
%ignore /#[^b]*b/
"""
KEYWORDS = 'start: ("if" NAME "then")+ NAME\nNAME: /[a-z]+/\n%ignore " "'


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


@pytest.mark.parametrize("parser", ["earley", "lalr"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+2*(3+4)", 1),
        (" 1 + 2\n", 1),
        ("1+", 0.5),
        ("(", 0.5),
        ("(1+2", 0.5),
        ("1+x", 0.5 * 2 / 3),
        ("1+2)", 0.5 * 3 / 4),
        ("1+2x45678", 0.5 * 3 / 9),
        ("x1+2", 0),
        ("", 0),
        (" ", 0.5),  # white space is ignored, and may begin a sum
    ],
)
def test_the_scale(parser, text, expected):
    assert Grammar(SUMS, parser=parser).value(text) == pytest.approx(expected)


def random_texts(rng, letters, count=100, longest=7):
    return ["".join(rng.choice(list(letters), rng.integers(longest))) for _ in range(count)]


@pytest.mark.parametrize(
    ("grammar", "parser", "letters"),
    [
        (SUMS, "earley", "1+*( )"),
        (SUMS, "lalr", "1+*( )"),
        (PALINDROMES, "earley", "abc"),
        (EMPTY, "earley", "abcd"),
        (STRINGS, "earley", '[",]a! #b'),
        (STRINGS, "lalr", '[",]a! #b'),
    ],
)
def test_agrees_with_lark(grammar, parser, letters):
    reward = Grammar(grammar, parser=parser)
    theirs = lark.Lark(grammar, parser=parser)
    accepted = 0
    for text in random_texts(np.random.default_rng(0), letters, 1000):
        if text != text.strip():
            continue
        try:
            theirs.parse(text)
            expected = 1.0
        except lark.exceptions.UnexpectedEOF:
            expected = 0.5 if text else 0.0
        except lark.exceptions.UnexpectedToken as error:
            ended = error.token.type == "$END"
            expected = 0.5 if ended and text else None
        except lark.exceptions.UnexpectedCharacters:
            expected = None
        value = reward.value(text)
        if expected is None:
            assert value < 0.5, text
        else:
            assert value == expected, text
        accepted += expected == 1
    assert accepted > 5


def test_keywords_are_told_from_names_by_the_lexer():
    for parser in ("earley", "lalr"):
        reward = Grammar(KEYWORDS, parser=parser)
        assert reward.value("if a then b") == 1
        assert reward.value("if a then") == 0.5
    # A name goes on as far as it can: here, to the end, and no "then" has come yet.
    assert Grammar(KEYWORDS, parser="earley").value("ifathenb") == 0.5


def test_the_prefix_that_is_viable():
    # Once broken, what follows only lowers the share.
    reward = Grammar(PALINDROMES)
    assert reward.value("abcba") == 1
    assert reward.value("abcb") == 0.5
    assert reward.value("abcbb") == 0.5 * 4 / 5
    assert reward.value("abcbbbbb") == 0.5 * 4 / 8


@pytest.mark.parametrize("parser", ["earley", "lalr"])
def test_batched_is_single_and_garbage_is_data(parser):
    reward = Grammar(SUMS, parser=parser)
    texts = ["\x00", "\ud800", "\ufffd", "é", "x" * 1_000_000, "1" * 1_000_000, "(" * 1_000_000]
    texts += ["1+2", "(((1"]
    begun = time.process_time()
    values = reward([episode(text) for text in texts])
    assert time.process_time() - begun < 10
    assert values.dtype == np.float32
    assert values[:5].tolist() == [0] * 5
    assert (values[5:7] <= 0.001).all()
    assert values[7:].tolist() == [1, 0.5]
    assert values[7:].tolist() == [reward.value(text) for text in texts[7:]]


@pytest.mark.parametrize("parser", ["earley", "lalr"])
def test_what_is_longer_than_is_read_cannot_be_whole(parser):
    reward = Grammar('start: "a"*', parser=parser, max_characters=10)
    assert reward.value("a" * 10) == 1
    assert reward.value("a" * 20) == 0.25
    assert reward.value("") == 1


def test_an_ambiguous_grammar_ends():
    reward = Grammar('start: start start start | start start | "a"')
    assert reward.value("a" * 20) == 1
    begun = time.process_time()
    assert 0 < reward.value("a" * 2000) < 0.5
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("parser", ["earley", "lalr"])
def test_a_slow_pattern_ends(parser):
    reward = Grammar('start: "a" X\nX: /(?:x+x+)+y/', parser=parser)
    begun = time.process_time()
    assert reward.value("a" + "x" * 1500) == 0.5 / 1501
    assert time.process_time() - begun < 20
    assert reward.value("axxy") == 1


def test_a_start_and_a_file(tmp_path):
    (tmp_path / "part.lark").write_text('digit: "0".."9"\n', encoding="utf-8")
    file = tmp_path / "sum.lark"
    file.write_text('%import .part.digit\nsum: digit ("+" digit)*\n', encoding="utf-8")
    reward = Grammar.from_arguments(f"{file},start=sum,parser=lalr")
    assert reward.value("1+2") == 1
    assert Grammar(str(file), "sum").value("1+2") == 1
    assert pickle.loads(pickle.dumps(reward)).value("1+") == 0.5


@pytest.mark.parametrize("parser", ["earley", "lalr"])
@pytest.mark.parametrize("grammar", ["start: (", "a: B", 'begin: "a"', "start: A\nA: /(/", ""])
def test_a_bad_grammar_is_named(grammar, parser):
    with pytest.raises(ValueError, match="not a grammar"):
        Grammar(grammar, parser=parser)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"not LALR\(1\)"):
        Grammar('start: x | y\nx: "a"\ny: "a"', parser="lalr")
    with pytest.raises(ValueError, match="cannot be read"):
        Grammar("no/such.lark")
    with pytest.raises(ValueError, match="`earley`"):
        Grammar(SUMS, parser="early")
    with pytest.raises(ValueError, match="`max_characters`"):
        Grammar(SUMS, max_characters=0)
    with pytest.raises(TypeError, match="path of one"):
        Grammar(3)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lark", None)
    with pytest.raises(ImportError, match=r"textgym\[rewards\]"):
        Grammar('start: "not made before"')
