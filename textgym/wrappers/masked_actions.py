"""`MaskedActions`: only the tokens that a rule allows: a lexicon, a regular expression, your own.

Rules of a grammar go as a regular expression too: the package `regex`, which is used, has recursive
groups, ``r"(\\((?:[^()]|(?1))*\\))"`` for balanced brackets.

Source of the idea: Willard and Louf 2023, https://arxiv.org/abs/2307.09702 (there by automata that
are compiled beforehand; here by partial matches along a trie of the vocabulary, when they come up).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
import regex
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import ArrayLike, NDArray

from textgym.envs.contexts import Observation
from textgym.tokenization import Tokenizer
from textgym.wrappers.masking import MaskRule, SingleMasking, VectorMasking

RuleFunction = Callable[[NDArray[np.int64], str], ArrayLike]
Rule = str | Any | Iterable[str] | RuleFunction

# Masks kept, one for each text met; V bytes each.
_CACHED_MASKS = 1024


def MaskedActions(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any], rule: Rule
) -> SingleMaskedActions | VectorMaskedActions:
    """Allow only the tokens that `rule` allows, of those that `env` itself allows.

    The mask is in `action_masks()` and `info["action_mask"]`, and `step` refuses a masked token as
    the environment does. (For an observation key put `MaskObservation` around it.) Where nothing
    would be allowed, end-of-sequence is; where `env` forbids that, whatever `env` allows.

    Args:
        env: a token environment, single or vector, that observes `input_ids`.
        rule: one of

            - a list (tuple, set) of str, a **lexicon**: the tokens of these words, and
              end-of-sequence. A str that the vocabulary spells so is that token; of any other, with
              and without a space before it, the spellings of one token; if there are none, the
              pieces of it, which then may come in any order (a regular expression is stricter).
            - a str or a compiled pattern, a **regular expression** (of the package `regex`): the
              text of the turn must be one that can still become a full match, and end-of-sequence
              comes only after a full match. Tokens that are not whole characters are never allowed.
              The budget may end the text before it is a match. A text met for the first time costs
              up to one partial match for each prefix of a token (2,400 for the embedded
              vocabulary and ``".*"``: 3 ms; a pattern that says what comes next, much less); the
              masks of the last 1,024 texts are kept.
            - a **function** from the context's ids `[T] int64` and the text of the turn so far to
              `[V] bool`: called for every row in every step.

    Raises:
        TypeError: another kind of rule.
        ValueError: an empty lexicon, or no regular expression; in `step`, what a function gives is
            not `[V] bool`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = MaskedActions(gym.make("textgym/Story-v0"), r" (yes|no)\\.")
        >>> _, info = env.reset(seed=0)
        >>> [env.unwrapped.tokenizer.decode([i]) for i in info["action_mask"].nonzero()[0]]
        [' ', ' n', ' y', ' yes']
    """
    cls = VectorMaskedActions if isinstance(env, VectorEnv) else SingleMaskedActions
    return cls(env, rule)  # type: ignore[arg-type]


class SingleMaskedActions(SingleMasking, RecordConstructorArgs):
    """Masks a single environment's actions by a rule; see `MaskedActions`."""

    def __init__(self, env: gym.Env[Any, Any], rule: Rule) -> None:
        RecordConstructorArgs.__init__(self, rule=rule, _disable_deepcopy=True)
        SingleMasking.__init__(self, env, mask_rule(rule, env.unwrapped), "MaskedActions")


class VectorMaskedActions(VectorMasking, RecordConstructorArgs):
    """Masks a vector environment's actions by a rule; see `MaskedActions`."""

    def __init__(self, env: VectorEnv[Any, Any, Any], rule: Rule) -> None:
        RecordConstructorArgs.__init__(self, rule=rule, _disable_deepcopy=True)
        VectorMasking.__init__(self, env, mask_rule(rule, env.unwrapped), "MaskedActions")


def mask_rule(rule: Rule, base: Any) -> MaskRule:
    """What `MaskedActions` takes, as a `MaskRule` for the tokenizer of `base`.

    Args:
        rule: see `MaskedActions`.
        base: an unwrapped environment.
    """
    tokenizer = getattr(base, "tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"`env` must be a token environment, got {base!r}.")
    if isinstance(rule, str | re.Pattern | regex.Pattern):
        return RegexRule(rule, tokenizer)
    if callable(rule):
        return FunctionRule(rule, tokenizer)
    if isinstance(rule, Iterable):
        return LexiconRule(rule, tokenizer)
    raise TypeError(
        "`rule` must be a list of words, a regular expression or a function, got "
        f"{type(rule).__name__}."
    )


class LexiconRule(MaskRule):
    """The tokens of some words, always; see `MaskedActions`."""

    def __init__(self, words: Iterable[str], tokenizer: Tokenizer) -> None:
        words = list(words)
        wrong = [word for word in words if not isinstance(word, str)]
        if wrong:
            raise TypeError(f"a lexicon must hold words (str), got {wrong[0]!r}.")
        if not words:
            raise ValueError("the lexicon is empty: give at least one word.")
        self._mask = np.zeros(tokenizer.vocab_size, np.bool_)
        self._mask[tokenizer.eos_token_id] = True
        for word in words:
            self._mask[_tokens_of(word, tokenizer)] = True

    def allowed(
        self, observation: Any, turns: Any, rows: Sequence[int], own: Any
    ) -> NDArray[np.bool_]:
        """The same in every context."""
        return np.tile(self._mask, (len(rows), 1))


def _tokens_of(word: str, tokenizer: Tokenizer) -> list[int]:
    spelled = tokenizer.backend.token_to_id(word)
    spaced = tokenizer.encode(f" {word}", special_tokens=False)
    spellings = [tokenizer.encode(word, special_tokens=False), spaced]
    whole = [ids[0] for ids in spellings if len(ids) == 1]
    return [*([] if spelled is None else [spelled]), *whole] or spaced


class FunctionRule(MaskRule):
    """A function of the context and of the turn's text; see `MaskedActions`."""

    def __init__(self, function: RuleFunction, tokenizer: Tokenizer) -> None:
        self._function, self._tokenizer = function, tokenizer

    def allowed(
        self,
        observation: Observation,
        turns: Sequence[Sequence[int]],
        rows: Sequence[int],
        own: Any,
    ) -> NDArray[np.bool_]:
        """What the function says, row by row."""
        texts = self._tokenizer.decode_completions([turns[row] for row in rows])
        lengths = observation["attention_mask"].sum(axis=1, dtype=np.int64)
        masks = np.empty((len(rows), self._tokenizer.vocab_size), np.bool_)
        for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
            ids = observation["input_ids"][row, : lengths[row]].copy()
            mask = np.asarray(self._function(ids, text))
            if mask.shape != masks.shape[1:] or mask.dtype != np.bool_:
                raise ValueError(
                    f"the mask rule must return a bool array of shape ({masks.shape[1]},), got "
                    f"{mask.dtype} of shape {mask.shape}."
                )
            masks[i] = mask
        return masks


class _Node:
    """A prefix of some tokens: what it can go on with, and the tokens that are just this."""

    __slots__ = ("children", "tokens")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.tokens: list[int] = []


class RegexRule(MaskRule):
    """What can still become a full match; see `MaskedActions`."""

    def __init__(self, pattern: Any, tokenizer: Tokenizer) -> None:
        self._pattern = _compiled(pattern)
        self._tokenizer = tokenizer
        self._root = _trie(tokenizer)
        self._mask = lru_cache(maxsize=_CACHED_MASKS)(self._compute)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._pattern, self._tokenizer))  # without the cache

    def allowed(
        self, observation: Any, turns: Sequence[Sequence[int]], rows: Sequence[int], own: Any
    ) -> NDArray[np.bool_]:
        """By the text of each turn alone."""
        texts = self._tokenizer.decode_completions([turns[row] for row in rows])
        return np.stack([self._mask(text) for text in texts])

    def _compute(self, text: str) -> NDArray[np.bool_]:
        mask = np.zeros(self._tokenizer.vocab_size, np.bool_)
        mask[self._tokenizer.eos_token_id] = self._pattern.fullmatch(text) is not None
        waiting = [(self._root, text)]
        while waiting:
            node, prefix = waiting.pop()
            for character, child in node.children.items():
                longer = prefix + character
                if self._pattern.fullmatch(longer, partial=True) is not None:
                    mask[child.tokens] = True
                    waiting.append((child, longer))
        return mask


def _trie(tokenizer: Tokenizer) -> _Node:
    """All tokens that are whole characters, by what they add to a text."""
    root = _Node()
    pieces = tokenizer.decode_completions([[i] for i in range(tokenizer.vocab_size)])
    for token, piece in enumerate(pieces):
        if not piece or "\ufffd" in piece or token == tokenizer.eos_token_id:
            continue  # nothing, or a part of a character
        node = root
        for character in piece:
            node = node.children.setdefault(character, _Node())
        node.tokens.append(token)
    return root


def _compiled(pattern: Any) -> Any:
    flags = 0
    if isinstance(pattern, re.Pattern):  # the flags of `re` have other numbers here
        flags = sum(getattr(regex, n) for n in "AIMSX" if pattern.flags & getattr(re, n))
        pattern = pattern.pattern
    if isinstance(pattern, regex.Pattern) and isinstance(pattern.pattern, str):
        return pattern
    if not isinstance(pattern, str):
        raise TypeError("the regular expression must be one of str, not of bytes.")
    try:
        return regex.compile(pattern, flags)
    except regex.error as error:
        raise ValueError(f"`rule` {pattern!r} is not a regular expression: {error}.") from error
