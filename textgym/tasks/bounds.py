"""Upper bounds on the tokens of texts that are put together from pieces."""

from __future__ import annotations

from collections.abc import Iterable

from textgym.tasks.base import TokenCounter


def most_tokens(count_tokens: TokenCounter, pieces: Iterable[str]) -> int:
    """The most tokens that any of `pieces` adds to a text, special tokens left out.

    >>> most_tokens(lambda text: len(text.split()) + 1, ["one two", "three"])
    2
    """
    return max(count_tokens(piece) for piece in pieces) - count_tokens("")


def digit_tokens(count_tokens: TokenCounter) -> int:
    """The most tokens of one digit; a number takes at most this many a digit, and a space."""
    return most_tokens(count_tokens, "0123456789")
