"""What reset drew (`Instance`) and what then happened (`Episode`): plain, frozen data.

Neither refers to a tokenizer, a task or an environment, so both can be pickled, sent to another
process and kept for as long as anyone likes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from textgym.tokenization import Tokenizer

FinishReason = Literal["stop", "length", "task"]


@dataclass(frozen=True)
class Instance:
    """One question put to the agent, as drawn by a task.

    Args:
        prompt: the text to continue.
        target: the gold answer, where the task has one.
        data: the task's own facts about this instance (what the score needs): plain values only.
    """

    prompt: str
    target: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise TypeError(
                f"`prompt` must be a str, got {type(self.prompt).__name__}. Decode it first."
            )
        # A read-only view of a copy: an instance handed over in `options` is never mutated.
        object.__setattr__(self, "data", MappingProxyType(dict(self.data)))

    def __hash__(self) -> int:
        return hash((self.prompt, self.target))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy cannot be pickled; the dict it views can.
        return (type(self), (self.prompt, self.target, dict(self.data)))


@dataclass(frozen=True)
class Turn:
    """One contribution to a conversation: `role` is ``"agent"`` or ``"task"``."""

    role: Literal["agent", "task"]
    text: str


@dataclass(frozen=True, eq=False)
class Episode:
    """A finished (or, for per-token rewards, an unfinished) episode.

    Args:
        instance: what reset drew.
        input_ids: `[T] int64`, every token of the context: prompt, completion, replies.
        completion_mask: `[T] bool`, True at the agent's own tokens (its end-of-sequence included).
        completion_text: what the agent wrote, without special tokens; several turns are joined
            by newlines.
        turns: who said what, in order, from the agent's first turn on.
        finish_reason: ``"stop"`` (the agent ended), ``"length"`` (its budget ended) or ``"task"``
            (the task ended); None while unfinished.
    """

    instance: Instance
    input_ids: NDArray[np.int64]
    completion_mask: NDArray[np.bool_]
    completion_text: str
    turns: tuple[Turn, ...]
    finish_reason: FinishReason | None

    @classmethod
    def written(cls, instance: Instance, text: str, tokenizer: Tokenizer) -> Self:
        """The record of an episode in which the agent writes `text` in one turn, and stops.

        For judging texts that no environment was there for: a data set's, a probe's.
        """
        prompt = tokenizer.encode(instance.prompt)
        said = [*tokenizer.encode(text, special_tokens=False), tokenizer.eos_token_id]
        return cls(
            instance=instance,
            input_ids=np.array([*prompt, *said], np.int64),
            completion_mask=np.arange(len(prompt) + len(said)) >= len(prompt),
            completion_text=text,
            turns=(Turn("agent", text),),
            finish_reason="stop",
        )

    @property
    def prompt(self) -> str:
        """The text given at reset."""
        return self.instance.prompt

    @property
    def completion_ids(self) -> NDArray[np.int64]:
        """`[N] int64`, the agent's own tokens in the order it chose them."""
        return self.input_ids[self.completion_mask]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Episode):
            return NotImplemented
        return (
            self.instance == other.instance
            and self.completion_text == other.completion_text
            and self.turns == other.turns
            and self.finish_reason == other.finish_reason
            and np.array_equal(self.input_ids, other.input_ids)
            and np.array_equal(self.completion_mask, other.completion_mask)
        )

    def __hash__(self) -> int:
        return hash((self.instance, self.completion_text, self.finish_reason))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Frozen: DummyVecEnv deep-copies infos at every step, and that need not cost anything.
        return self

    def __copy__(self) -> Self:
        return self
