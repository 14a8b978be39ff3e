"""`FlatObservation`: the end of the context as one flat float32 vector, for networks that want it.

RLlib's default encoders and d3rlpy take nothing else; an MLP of any library can use it.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.errors import check_positive_int
from textgym.wrappers.observing import (
    ObservationMap,
    SingleObserving,
    VectorObserving,
    fractions,
    token_spaces,
)

KINDS = ("ids", "one_hot")


def FlatObservation(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    kind: str = "one_hot",
    *,
    last: int | None = 8,
    remaining: bool = True,
) -> SingleFlatObservation | VectorFlatObservation:
    """Observe the last tokens of the context as a flat float32 `Box`.

    The newest token is always last in the vector; a context of fewer tokens is padded before them.

    - ``"ids"``: `[last]`, the ids as they are, padded with -1. They are names, not quantities: a
      network that embeds them (after a cast to int) can use them, a plain MLP hardly.
    - ``"one_hot"``: `[last * V]`, a 1 for each token, all 0 in padding. Mind the replay buffer: 8
      tokens of the embedded tokenizer are 12,288 floats, 48 KiB an observation.

    Args:
        env: a token environment, single or vector.
        kind: ``"ids"`` or ``"one_hot"``.
        last: how many tokens, k; None for the whole context.
        remaining: append the fraction left of the budget. Without it two equal observations can
            have different futures.

    Raises:
        ValueError: another kind, or a `last` below 1.
        TypeError: `env` does not observe `input_ids`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = FlatObservation(gym.make("textgym/Story-v0"), "ids", last=4)
        >>> observation, _ = env.reset(seed=0)
        >>> observation.dtype, observation.shape, float(observation[-1])
        (dtype('float32'), (5,), 1.0)
    """
    cls = VectorFlatObservation if isinstance(env, VectorEnv) else SingleFlatObservation
    return cls(env, kind, last=last, remaining=remaining)  # type: ignore[arg-type]


class SingleFlatObservation(SingleObserving, RecordConstructorArgs):
    """Flat observations of a single environment; see `FlatObservation`."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        kind: str = "one_hot",
        *,
        last: int | None = 8,
        remaining: bool = True,
    ) -> None:
        RecordConstructorArgs.__init__(self, kind=kind, last=last, remaining=remaining)
        SingleObserving.__init__(self, env, _Flat(env, kind, last, remaining))


class VectorFlatObservation(VectorObserving, RecordConstructorArgs):
    """Flat observations of a vector environment; see `FlatObservation`."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        kind: str = "one_hot",
        *,
        last: int | None = 8,
        remaining: bool = True,
    ) -> None:
        RecordConstructorArgs.__init__(self, kind=kind, last=last, remaining=remaining)
        VectorObserving.__init__(self, env, _Flat(env, kind, last, remaining))


class _Flat(ObservationMap):
    def __init__(self, env: Any, kind: str, last: int | None, remaining: bool) -> None:
        observed, _ = token_spaces(env, "FlatObservation")
        if kind not in KINDS:
            raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
        ids = observed["input_ids"]
        capacity, size = ids.shape[0], int(ids.high.max()) + 1  # type: ignore[index,attr-defined]
        last = capacity if last is None else check_positive_int("last", last, "None is all.")
        self._last, self._size = min(last, capacity), size
        self._one_hot, self._remaining = kind == "one_hot", bool(remaining)
        self._budget = int(observed["remaining"].high.max())  # type: ignore[attr-defined]
        width, low, high = self._last, -1.0, size - 1.0
        if self._one_hot:
            width, low, high = self._last * size, 0.0, 1.0
        lows, highs = np.full(width, low, np.float32), np.full(width, high, np.float32)
        if self._remaining:
            lows, highs = np.append(lows, np.float32(0)), np.append(highs, np.float32(1))
        self.space = Box(lows, highs, dtype=np.float32)

    def __call__(self, observation: Observation) -> NDArray[np.float32]:
        lengths = observation["attention_mask"].sum(axis=1, dtype=np.int64)
        places = lengths[:, None] - self._last + np.arange(self._last)  # [B, k]
        ids = np.take_along_axis(observation["input_ids"], np.maximum(places, 0), axis=1)
        there = places >= 0
        flat = np.where(there, ids, -1).astype(np.float32)
        if self._one_hot:
            flat = np.zeros((*ids.shape, self._size), np.float32)
            rows, columns = np.nonzero(there)
            flat[rows, columns, ids[rows, columns]] = 1.0
            flat = flat.reshape(len(ids), -1)
        if not self._remaining:
            return flat
        return np.hstack([flat, fractions(observation["remaining"], self._budget)])
