"""`CausalLM`: one interface to any Hugging Face causal language model, checked against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from textgym_agents.lm.language_model import LanguageModel, cache_name, disable_dropout
from textgym_agents.lm.lean import LeanBody, lean_body
from textgym_agents.lm.linear import fast_linear
from textgym_agents.lm.log_probs import Head
from textgym_agents.lm.lora import Adapter
from textgym_agents.lm.slot_cache import SlotCache

__all__ = ["CausalLM", "disable_dropout"]


class CausalLM(LanguageModel):
    """A causal LM as hidden states and a head.

    Args:
        model: an `AutoModelForCausalLM`. Dropout is set to 0 in it: with dropout the log-probs at
            rollout and at update differ before anything was learnt.
        vocab_size: V, the environment's tokens; embedding rows beyond them are never sampled.
        context_size: C, the longest context.
        adapter: put into `model` before; the rest of it is frozen then.

    Raises:
        ValueError: the model has fewer tokens or positions than asked for, or its logits are not
            a linear function of its last hidden state.
    """

    def __init__(
        self,
        model: nn.Module,
        vocab_size: int,
        context_size: int,
        *,
        adapter: Adapter | None = None,
    ) -> None:
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(
                f"{type(model).__name__} is an encoder-decoder model, and here a causal one is "
                "needed, such as GPT-2 or Llama."
            )
        super().__init__(model, vocab_size, context_size, adapter=adapter)
        config = self.config
        self.num_layers = int(config.num_hidden_layers)
        self._check_positions(context_size, "contexts")
        scale = getattr(config, "logit_scale", None) or 1.0
        self._scale = float(scale / (getattr(config, "logits_scaling", None) or 1.0))
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._cache_name = cache_name(self.base)
        self._additive_mask = getattr(config, "_attn_implementation", "sdpa") == "eager"
        self.lean = True
        self._check_against_model()

    # ------------------------------------------------------------------ the model's parts
    @property
    def base(self) -> nn.Module:
        """The model without its head."""
        return self.model.base_model

    @property
    def head(self) -> Head:
        """The map from hidden states to logits."""
        linear = self.unembedding
        bias = getattr(linear, "bias", None)
        return Head(linear.weight, bias, self.vocab_size, self._scale, self._softcap)

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """`[S, T, d]` of right-padded `input_ids [S, T]`; what follows a token cannot reach it."""
        with fast_linear(input_ids, self.hidden_size):
            return self.base(input_ids=input_ids, use_cache=False).last_hidden_state

    def states(
        self, input_ids: Tensor, index: Tensor, prompt_lengths: Tensor | None = None
    ) -> Tensor:
        """`[n, d]` at `index [n]` of the flattened `input_ids [S, T]`; prompts do not matter."""
        return self.hidden_states(input_ids).flatten(0, 1)[index]

    def slots(self, num_rows: int, context_size: int) -> SlotCache:
        """Incremental decoding of `num_rows` contexts."""
        return SlotCache(self, num_rows, context_size)

    def body(
        self, tokens: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """`[B, q, d]` of new `tokens [B, q]` after what `cache` holds."""
        with fast_linear(tokens, self.hidden_size):
            return self.base(
                input_ids=tokens,
                position_ids=position_ids,
                attention_mask=attention_mask,
                use_cache=True,
                **{self._cache_name: cache},
            ).last_hidden_state

    def lean_body(self) -> LeanBody | None:
        """A forward of the same in fewer operations, see `lm/lean.py`; None where there is none."""
        wide = self.unembedding.weight.dtype != torch.float32
        return lean_body(self.model, self.context_size) if self.lean and not wide else None

    def decode_mask(self, positions: Tensor, length: int) -> Tensor:
        """`[B, 1, q, L]`, True where the token at `positions [B, q]` may look."""
        columns = torch.arange(length, device=positions.device)
        mask = columns <= positions[:, None, :, None]
        if not self._additive_mask:
            return mask
        dtype = self.unembedding.weight.dtype
        return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)

    # ------------------------------------------------------------------ checks
    def _trial(self) -> tuple[Tensor, Tensor, None, list[np.ndarray]]:
        rng = np.random.default_rng(0)  # our own, so that no global generator is touched
        context = self.context_size
        ids = torch.from_numpy(rng.integers(0, self.vocab_size, (3, context))).to(self.device)
        with fast_linear(ids, self.hidden_size):
            logits = self.model(input_ids=ids, use_cache=False).logits[..., : self.vocab_size]
        schedule = []
        if self._cache_name is not None:
            # Ragged prefill, ragged steps, several tokens at once, a reset, the full context.
            schedule.append(np.array([1, max(1, context // 3), max(1, context // 2)]))
            for step in (1, 1, 3, 1):
                schedule.append(np.minimum(schedule[-1] + step, context))
            schedule.append(np.array([max(1, context // 4), *schedule[-1][1:]]))
            schedule.append(np.full(3, max(1, context - 1)))
            schedule.append(np.full(3, context))  # in lockstep, without a mask
        return ids, logits.float().log_softmax(dim=-1), None, schedule

    def _probe(self, *trial: Any) -> str | None:
        """As for any model; a lean forward that is wrong is not used."""
        reason = super()._probe(*trial)
        if reason and self.lean_body() is not None:
            self.lean = False
            reason = super()._probe(*trial)
        return reason
