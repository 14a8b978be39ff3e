"""Arithmetic expressions: written with as few brackets as needed, read exactly and safely."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

# Longer texts and larger numbers are not read, so that reading any text at all is cheap.
MAX_CHARACTERS = 100
MAX_DIGITS = 6

_TOKEN = re.compile(r"[0-9]+|\S")
_SUM, _PRODUCT, _ATOM = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Term:
    """An expression with its value: a number, or two terms joined by `join`."""

    text: str
    value: int
    rank: int = _ATOM


class Reading(NamedTuple):
    """What an expression says: its exact value, and its numbers in the order they stand."""

    value: Fraction
    numbers: tuple[int, ...]


def number(value: int) -> Term:
    """The term of one number; a negative one stands in brackets."""
    return Term(str(value) if value >= 0 else f"({value})", value)


def join(left: Term, operator: str, right: Term) -> Term:
    """`left operator right`, with brackets where the value needs them.

    A division must leave no remainder: a `Term` is an integer.

    >>> join(number(2), "*", join(number(9), "-", number(4)))
    Term(text='2 * (9 - 4)', value=10, rank=2)
    """
    if operator in "+-":
        rank = _SUM
        value = left.value + right.value if operator == "+" else left.value - right.value
        texts = left.text, _bracketed(right, _PRODUCT) if operator == "-" else right.text
    else:
        rank = _PRODUCT
        value = left.value * right.value if operator == "*" else left.value // right.value
        texts = _bracketed(left, _PRODUCT), _bracketed(right, _ATOM if operator == "/" else rank)
    return Term(f"{texts[0]} {operator} {texts[1]}", value, rank)


def read(text: str) -> Reading | None:
    """The expression that all of `text` is; None where it is none.

    An expression is made of numbers, ``+ - * /``, brackets and minus signs; `*` and `/` bind
    tighter, and equal ones are read from the left. A division by zero is no expression.

    >>> read("7 - 2 * (1 + 1/2)")
    Reading(value=Fraction(4, 1), numbers=(7, 2, 1, 1, 2))
    >>> read("9 ** 9") is None
    True
    """
    if len(text) > MAX_CHARACTERS:
        return None
    reader = _Reader(_TOKEN.findall(text))
    try:
        value = reader.sum()
    except (_NotAnExpressionError, ZeroDivisionError):
        return None
    return Reading(value, tuple(reader.numbers)) if reader.peek() == "" else None


def _bracketed(term: Term, rank: int) -> str:
    """The text of `term`, in brackets where it binds less than `rank`."""
    return term.text if term.rank >= rank else f"({term.text})"


class _NotAnExpressionError(Exception):
    pass


class _Reader:
    """Recursive descent; as deep as the text is long, which `MAX_CHARACTERS` bounds."""

    def __init__(self, tokens: list[str]) -> None:
        self.numbers: list[int] = []
        self._tokens = tokens
        self._next = 0

    def peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._next += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while (sign := self.peek()) in ("+", "-"):
            self.take()
            right = self.product()
            value = value + right if sign == "+" else value - right
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while (sign := self.peek()) in ("*", "/"):
            self.take()
            right = self.factor()
            value = value * right if sign == "*" else value / right
        return value

    def factor(self) -> Fraction:
        token = self.take()
        if token == "-":
            return -self.factor()
        if token == "(":
            value = self.sum()
            if self.take() != ")":
                raise _NotAnExpressionError
            return value
        if not ("0" <= token[:1] <= "9" and len(token) <= MAX_DIGITS):
            raise _NotAnExpressionError
        self.numbers.append(int(token))
        return Fraction(self.numbers[-1])
