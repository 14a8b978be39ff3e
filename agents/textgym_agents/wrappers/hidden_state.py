"""`HiddenStateObservation`: what a frozen language model makes of the context, as a flat vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from textgym.envs.contexts import Observation
from textgym.wrappers.observing import (
    ObservationMap,
    SingleObserving,
    VectorObserving,
    fractions,
    token_spaces,
    with_finals,
)
from textgym_agents.wrappers.reader import Reader, reader_of
from textgym_agents.wrappers.reference_log_prob import ModelLike
from textgym_agents.wrappers.top_k_actions import LOG_PROBS


def HiddenStateObservation(  # named as the class it makes
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    model: ModelLike = "bundled",
    *,
    remaining: bool = True,
    device: str = "auto",
) -> SingleHiddenStateObservation | VectorHiddenStateObservation:
    """Observe the last hidden state of a frozen language model, a float32 `Box` for any MLP.

    `[D]`, the state from which the model would choose the next token; then, if `remaining`, the
    fraction left of the budget; then, around a `TopKActions` that observes them, the log-probs of
    its candidates. In a vector environment all rows are read together, a new token each: nothing is
    read twice. In a single one each step is a forward of its own, so prefer vector environments.

    Args:
        env: a token environment, single or vector, that observes `input_ids`.
        model: a folder, a hub id or ``"bundled"`` (loaded once in a process), a causal language
            model (copied, so that training it does not move it), or a `CausalLM` (used as it is). A
            wrapper inside with the same model reads for both.
        remaining: append the budget. Without it two equal observations can have different futures.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one.

    Raises:
        TypeError: `env` does not observe `input_ids`.
        FileNotFoundError, ValueError: the model cannot be loaded, has another tokenizer than `env`,
            or cannot read contexts as long as those of `env`.

    Example:
        >>> import gymnasium as gym, textgym
        >>> env = HiddenStateObservation(gym.make("textgym/Story-v0"), "bundled")
        >>> env.reset(seed=0)[0].shape
        (129,)
    """
    cls = VectorHiddenStateObservation if isinstance(env, VectorEnv) else (
        SingleHiddenStateObservation
    )  # fmt: skip
    return cls(env, model, remaining=remaining, device=device)


class SingleHiddenStateObservation(SingleObserving, RecordConstructorArgs):
    """Hidden states of a single environment's contexts; see `HiddenStateObservation`."""

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: ModelLike = "bundled",
        *,
        remaining: bool = True,
        device: str = "auto",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, remaining=remaining, device=device, _disable_deepcopy=True
        )
        reader = reader_of(env, model, device, "HiddenStateObservation")
        self.read_with = (model, device, reader)
        SingleObserving.__init__(self, env, _HiddenStates(env, reader, remaining))


class VectorHiddenStateObservation(VectorObserving, RecordConstructorArgs):
    """Hidden states of a vector environment's contexts; see `HiddenStateObservation`."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        model: ModelLike = "bundled",
        *,
        remaining: bool = True,
        device: str = "auto",
    ) -> None:
        RecordConstructorArgs.__init__(
            self, model=model, remaining=remaining, device=device, _disable_deepcopy=True
        )
        reader = reader_of(env, model, device, "HiddenStateObservation")
        self.read_with = (model, device, reader)
        VectorObserving.__init__(self, env, _HiddenStates(env, reader, remaining))


class _HiddenStates(ObservationMap):
    def __init__(self, env: Any, reader: Reader, remaining: bool) -> None:
        observed, _ = token_spaces(env, "HiddenStateObservation")
        self._reader, self._remaining = reader, bool(remaining)
        self._budget = int(observed["remaining"].high.max())
        low, high = (
            [np.full(reader.lm.hidden_size, -np.inf)],
            [np.full(reader.lm.hidden_size, np.inf)],
        )
        if self._remaining:
            low.append(np.zeros(1))
            high.append(np.ones(1))
        self._extra = LOG_PROBS if LOG_PROBS in observed.spaces else None
        if self._extra:
            low.append(observed[self._extra].low)
            high.append(observed[self._extra].high)
        bounds = [np.concatenate(parts).astype(np.float32) for parts in (low, high)]
        self.space = Box(*bounds, dtype=np.float32)

    def __call__(self, observation: Observation) -> NDArray[np.float32]:
        parts = [self._reader.hidden(observation).cpu().numpy()]
        if self._remaining:
            parts.append(fractions(observation["remaining"], self._budget))
        if self._extra:
            parts.append(observation[self._extra])
        return np.hstack(parts)

    def finals(
        self, observation: Observation, rows: Sequence[int], finals: Sequence[Any]
    ) -> NDArray[np.float32]:
        return self(with_finals(observation, rows, finals))[list(rows)]
