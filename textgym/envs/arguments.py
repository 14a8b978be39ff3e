"""Checks of an environment's arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gymnasium.vector import AutoresetMode

from textgym.errors import near_matches
from textgym.tokenization import Tokenizer


def autoreset_mode_of(mode: str | AutoresetMode) -> AutoresetMode:
    """The mode that `mode` names, in any usual spelling.

    >>> autoreset_mode_of("same_step") is autoreset_mode_of("SameStep")
    True
    """
    if isinstance(mode, AutoresetMode):
        return mode
    plain = str(mode).lower().removeprefix("autoresetmode.").translate(_NO_SEPARATORS)
    for known in AutoresetMode:
        if plain == known.value.lower():
            return known
    names = [known.name for known in AutoresetMode]
    raise ValueError(f"unknown `autoreset_mode` {mode!r}; {near_matches(str(mode), names)}")


_NO_SEPARATORS = str.maketrans("", "", "_- ")


def check_render_mode(mode: str | None, known: Sequence[str]) -> str | None:
    """Return `mode` if it is None or `known`."""
    if mode is not None and mode not in known:
        raise ValueError(f"unknown `render_mode` {mode!r}; {near_matches(str(mode), known)}")
    return mode


def non_negative_int(name: str, value: Any) -> int:
    """Return `value` if it is an int of at least 0, else raise naming `name`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"`{name}` must be a non-negative int, got {value!r}.")
    number = int(value.__index__())
    if number < 0:
        raise ValueError(f"`{name}` must be a non-negative int, got {number}.")
    return number


def token_ids(name: str, tokens: Iterable[int | str], tokenizer: Tokenizer) -> list[int]:
    """The ids of `tokens`, each an id or the token as the vocabulary spells it."""
    if isinstance(tokens, str):
        raise TypeError(f"`{name}` must be a list, got {tokens!r}. Use `[{tokens!r}]`.")
    ids: list[int] = []
    for token in tokens:
        found = tokenizer.backend.token_to_id(token) if isinstance(token, str) else token
        if found is None or not 0 <= found < tokenizer.vocab_size:
            raise ValueError(
                f"`{name}`: {token!r} is no token of {tokenizer.name} (V = {tokenizer.vocab_size})."
            )
        ids.append(int(found))
    return ids
