"""Expressions: written with no bracket too many, read exactly, and cheap whatever they say."""

import time
from fractions import Fraction

import numpy as np
import pytest

from textgym.tasks.expression import MAX_CHARACTERS, join, number, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10 - 4 - 3", 3),
        ("24 / 4 / 3", 2),
        ("1/3 + 1/6", Fraction(1, 2)),
        ("8/(3-8/3)", 24),
        ("-5 + 2", -3),
        ("4 - -3", 7),
        ("4 * (-3)", -12),
        (" ( ( 6 ) ) ", 6),
        ("007", 7),
    ],
)
def test_values_by_hand(text, value):
    assert read(text).value == value


def test_numbers_come_in_order():
    assert read("8/(3-8/3)").numbers == (8, 3, 8, 3)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "+", "3 +", "+ 3", "3 4", "(3", "3)", "()", "3()", "2(3)", "3 + * 4"),
        *("9**9", "9//2", "1/0", "1/(2-2)", "3 % 2", "1e9", "0x10", "1_000", "2 ^ 3", "1.5"),
        *("abs(3)", "a", "٣+٤", "3 × 4", "3 + 4 = 7", "\x00", "\ud800", "__import__('os')"),  # noqa: RUF001
    ],
)
def test_what_is_no_expression(text):
    assert read(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "(" * 10_000 + "1" + ")" * 10_000,
        "-" * 10_000 + "1",
        "9" * 100_000,
        "*".join(["999999"] * 20_000),
        "(" * MAX_CHARACTERS,
        "-" * (MAX_CHARACTERS - 1) + "1",
        "*".join(["999999"] * 14),
        "/".join(["999999"] * 14),
    ],
)
def test_hostile_texts_are_cheap(text):
    start = time.process_time()
    for _ in range(10):
        read(text)
    assert time.process_time() - start < 0.5


def test_brackets_only_where_they_are_needed():
    a, b, c = number(9), number(4), number(2)
    difference, product = join(a, "-", b), join(b, "*", c)
    assert join(a, "-", difference).text == "9 - (9 - 4)"
    assert join(difference, "-", c).text == "9 - 4 - 2"
    assert join(a, "+", difference).text == "9 + 9 - 4"
    assert join(difference, "*", c).text == "(9 - 4) * 2"
    assert join(a, "-", product).text == "9 - 4 * 2"
    assert join(product, "/", product).text == "4 * 2 / (4 * 2)"
    assert join(number(-3), "-", number(-1)).text == "(-3) - (-1)"


def test_what_is_written_is_read_with_the_same_value():
    rng = np.random.default_rng(0)
    for _ in range(500):
        terms = [number(int(n)) for n in rng.integers(-9, 10, 5)]
        while len(terms) > 1:
            i = int(rng.integers(len(terms) - 1))
            left, right = terms[i : i + 2]
            divides = right.value != 0 and left.value % right.value == 0
            operator = "+-*/"[int(rng.integers(4 if divides else 3))]
            terms[i : i + 2] = [join(left, operator, right)]
        assert read(terms[0].text).value == terms[0].value, terms[0]
