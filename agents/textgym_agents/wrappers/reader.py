"""`Reader`: a frozen language model that reads the contexts of an environment, once for all."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from textgym.envs.contexts import Observation
from textgym.wrappers.observing import token_spaces
from textgym_agents.lm import CausalLM, SlotCache
from textgym_agents.wrappers.reference_log_prob import ModelLike, reference_model


class Reader:
    """Reads the contexts of B rows; what was read in the last two calls is not read again.

    Args:
        lm: the model.
        num_envs: B.
        context_size: C.
    """

    def __init__(self, lm: CausalLM, num_envs: int, context_size: int) -> None:
        self.lm = lm
        self._slots = SlotCache(lm, num_envs, context_size) if lm.incremental else None
        # Two: a step that resets rows reads how they ended, then all rows as they are.
        self._read: deque[tuple[NDArray[np.int64], NDArray[np.int64], Tensor]] = deque(maxlen=2)

    @torch.no_grad()
    def hidden(self, observation: Observation) -> Tensor:
        """`[B, D] float32` on the model's device, the last hidden state of each context."""
        ids = observation["input_ids"]
        lengths = observation["attention_mask"].sum(axis=1, dtype=np.int64)
        for seen, ends, states in self._read:
            if np.array_equal(ends, lengths) and np.array_equal(seen, ids):
                return states
        tensor = torch.from_numpy(ids).to(self.lm.device)
        states = (self._slots or self.lm).last_hidden(tensor, lengths).float()
        self._read.append((ids.copy(), lengths, states))  # `ids` may be overwritten (`copy=False`)
        return states

    @torch.no_grad()
    def log_probs(self, observation: Observation, masks: NDArray[Any] | None) -> Tensor:
        """`[B, V] float32`, nats, of the next token.

        Args:
            observation: batched.
            masks: `[B, V]`, nonzero where a token is allowed; None for everywhere.
        """
        logits = self.lm.head.logits(self.hidden(observation))
        if masks is not None:
            allowed = torch.from_numpy(np.asarray(masks, np.bool_)).to(logits.device)
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.log_softmax(dim=-1)


def reader_of(env: Any, model: ModelLike, device: str, wrapper: str) -> Reader:
    """A reader for the contexts of `env`: that of a wrapper inside, if it has the same model.

    Args:
        env: a token environment, single or vector, wrapped or not, that observes `input_ids`.
        model: see `ReferenceLogProb`.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        wrapper: who asks, for messages.

    Raises:
        TypeError: `env` does not observe `input_ids`.
        FileNotFoundError, ValueError: see `ReferenceLogProb`.
    """
    observed, _ = token_spaces(env, wrapper)
    layer = env
    while layer is not layer.unwrapped:
        source = getattr(layer, "read_with", None)
        if source is not None and _same(source[0], model) and source[1] == device:
            return source[2]
        layer = layer.env
    capacity = observed["input_ids"].shape[0]
    lm = reference_model(model, env.unwrapped.tokenizer, capacity, device)
    return Reader(lm, env.num_envs if isinstance(env, VectorEnv) else 1, capacity)


def _same(one: ModelLike, other: ModelLike) -> bool:
    return one is other or (isinstance(one, str) and one == other)
