"""`TextObservation`: the context as a str, for agents that read whole texts."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Text
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from textgym.envs.contexts import Observation
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.tokenization import Tokenizer
from textgym.wrappers.observing import (
    ObservationMap,
    SingleObserving,
    VectorObserving,
    token_spaces,
)

_PRINTABLE = "".join(map(chr, range(32, 127)))


class UnicodeText(Text):
    """`Text` that contains every str of a length, whatever its characters.

    A `Text` knows its characters one by one. A language model can write any of Unicode's, so they
    are not listed: `contains` asks for the length alone, and `sample` draws printable ASCII, which
    is what `characters` and `character_set` are.

    Args:
        max_length: the most characters.
        min_length: the fewest.
        seed: as in `Text`.

    Example:
        >>> "caf\\u00e9" in UnicodeText(5), "caf\\u00e9s!" in UnicodeText(5)
        (True, False)
    """

    def __init__(
        self,
        max_length: int,
        *,
        min_length: int = 0,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(max_length, min_length=min_length, charset=_PRINTABLE, seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a str of a length that fits."""
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.min_length}, {self.max_length})"


def TextObservation(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
) -> SingleTextObservation | VectorTextObservation:
    """Observe the whole context as a str: prompt, completion and replies, without special tokens.

    A vector environment observes a tuple of B str, as Gymnasium batches texts. What bytes do not
    make a character (yet) reads as U+FFFD. It is for reading: an agent that writes tokens should
    keep ids, since a text can be cut into tokens in more ways than one.

    Args:
        env: a token environment, single or vector.

    Raises:
        TypeError: `env` does not observe `input_ids`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = TextObservation(gym.make("textgym/Story-v0"))
        >>> text, info = env.reset(seed=0)
        >>> text == info["prompt"], text in env.observation_space
        (True, True)
    """
    cls = VectorTextObservation if isinstance(env, VectorEnv) else SingleTextObservation
    return cls(env)  # type: ignore[arg-type]


class SingleTextObservation(SingleObserving, RecordConstructorArgs):
    """A single environment's context as a str; see `TextObservation`."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        SingleObserving.__init__(self, env, _Decoded(env))


class VectorTextObservation(VectorObserving, RecordConstructorArgs):
    """A vector environment's contexts as a tuple of str; see `TextObservation`."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        VectorObserving.__init__(self, env, _Decoded(env))


def longest_text(tokenizer: Tokenizer, tokens: int) -> int:
    """A bound on the characters of `tokens` tokens."""
    # No token reads longer than it is spelled, but a decoder may put a space before it.
    return tokens * (1 + max(map(len, tokenizer.backend.get_vocab(with_added_tokens=True))))


class _Decoded(ObservationMap):
    def __init__(self, env: Any) -> None:
        observed, _ = token_spaces(env, "TextObservation")
        base = env.unwrapped
        if not isinstance(base, TokenEnv | TokenVectorEnv):
            raise TypeError(f"`env` must be a token environment, got {base!r}.")
        self._tokenizer = base.tokenizer
        capacity = observed["input_ids"].shape[0]  # type: ignore[index]
        self.space = UnicodeText(longest_text(self._tokenizer, capacity))

    def __call__(self, observation: Observation) -> tuple[str, ...]:
        lengths = observation["attention_mask"].sum(axis=1, dtype=np.int64).tolist()
        contexts = [
            ids[:n].tolist() for ids, n in zip(observation["input_ids"], lengths, strict=True)
        ]
        return tuple(self._tokenizer.decode(context) for context in contexts)
