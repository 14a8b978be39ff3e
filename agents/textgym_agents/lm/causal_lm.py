"""`CausalLM`: one interface to any Hugging Face causal language model, checked against it."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from textgym_agents.lm.log_probs import Head
from textgym_agents.lm.slot_cache import SlotCache

# Design bound for float32 log-probs.
_TOLERANCE = 1e-4
# The slot cache may be off by this share of the greatest log-prob more: rounding grows with the
# logits, and what is wrong (a window ignored, say) is off by far more.
_ROUNDING = 1e-5


class CausalLM(nn.Module):
    """A causal LM as hidden states and a head.

    Args:
        model: an `AutoModelForCausalLM`. Dropout is set to 0 in it: with dropout the log-probs at
            rollout and at update differ before anything was learnt.
        vocab_size: V, the environment's tokens; embedding rows beyond them are never sampled.
        context_size: C, the longest context.

    Raises:
        ValueError: the model has fewer tokens or positions than asked for, or its logits are not
            a linear function of its last hidden state.
    """

    def __init__(self, model: nn.Module, vocab_size: int, context_size: int) -> None:
        super().__init__()
        self.model = model
        self.vocab_size = vocab_size
        self.context_size = context_size
        config = model.config.get_text_config()
        self.num_layers = int(config.num_hidden_layers)
        self.hidden_size = int(config.hidden_size)
        disable_dropout(model)
        self._check_sizes(config)
        scale = getattr(config, "logit_scale", None) or 1.0
        self._scale = float(scale / (getattr(config, "logits_scaling", None) or 1.0))
        self._softcap = getattr(config, "final_logit_softcapping", None)
        accepted = inspect.signature(self.base.forward).parameters
        self._takes = {name: name in accepted for name in ("position_ids", "past_key_values")}
        self._additive_mask = getattr(config, "_attn_implementation", "sdpa") == "eager"
        self.incremental = True
        self._check_against_model()

    # ------------------------------------------------------------------ the model's parts
    @property
    def base(self) -> nn.Module:
        """The model without its head."""
        return self.model.base_model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.get_output_embeddings().weight.device

    @property
    def head(self) -> Head:
        """The map from hidden states to logits."""
        linear = self.model.get_output_embeddings()
        bias = getattr(linear, "bias", None)
        return Head(linear.weight, bias, self.vocab_size, self._scale, self._softcap)

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """`[S, T, d]` of right-padded `input_ids [S, T]`; what follows a token cannot reach it."""
        return self.base(input_ids=input_ids, use_cache=False).last_hidden_state

    def body(
        self, tokens: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """`[B, q, d]` of new `tokens [B, q]` after what `cache` holds."""
        return self.base(
            input_ids=tokens,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    def decode_mask(self, positions: Tensor, length: int) -> Tensor:
        """`[B, 1, q, L]`, True where the token at `positions [B, q]` may look."""
        columns = torch.arange(length, device=positions.device)
        mask = columns <= positions[:, None, :, None]
        if not self._additive_mask:
            return mask
        dtype = self.model.get_output_embeddings().weight.dtype
        return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)

    @torch.no_grad()
    def last_hidden(self, input_ids: Tensor, lengths: np.ndarray) -> Tensor:
        """`[B, d]` at the last token of each context, from the whole of it: the exact reference."""
        hidden = self.hidden_states(input_ids[:, : int(lengths.max())])
        rows = torch.arange(len(hidden), device=hidden.device)
        return hidden[rows, torch.from_numpy(lengths - 1).to(hidden.device)]

    # ------------------------------------------------------------------ checks
    def _check_sizes(self, config: Any) -> None:
        rows = self.model.get_output_embeddings().weight.shape[0]
        if rows < self.vocab_size:
            raise ValueError(
                f"the model has {rows} token embeddings, but the environment's tokenizer has "
                f"{self.vocab_size} tokens. Use the model's own tokenizer: "
                "`make_vec_env(..., tokenizer=<model folder or hub id>)`."
            )
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and positions < self.context_size:
            raise ValueError(
                f"the model has {positions} positions, but contexts can be {self.context_size} "
                "tokens long. Lower `max_new_tokens`, shorten the prompts or take a longer model."
            )

    @torch.no_grad()
    def _check_against_model(self) -> None:
        """Compare with the model itself: logits must be exact; decoding is made so if it is not."""
        was_training = self.model.training
        self.model.eval()
        rng = np.random.default_rng(0)  # our own, so that no global generator is touched
        num_rows, context = 3, self.context_size
        ids = torch.from_numpy(rng.integers(0, self.vocab_size, (num_rows, context)))
        ids = ids.to(self.device)
        exact = self.model(input_ids=ids, use_cache=False).logits[..., : self.vocab_size].float()
        exact = exact.log_softmax(dim=-1)
        ours = self.head.logits(self.hidden_states(ids)).log_softmax(dim=-1)
        wide = self.model.get_output_embeddings().weight.dtype != torch.float32
        tolerance = 0.5 if wide else _TOLERANCE
        if not torch.allclose(ours, exact, atol=tolerance, rtol=0):
            raise ValueError(
                f"{type(self.model).__name__}: its logits are not a linear function of its last "
                f"hidden state (log-probs differ by {(ours - exact).abs().max():.3g}). "
                "This architecture is not supported."
            )
        rounding = _ROUNDING * float(exact.abs().max())
        reason = self._probe(ids, exact, tolerance + rounding)
        if reason:
            self.incremental = False
            warnings.warn(
                f"{type(self.model).__name__}: incremental decoding is not exact here ({reason}); "
                "every step reads the whole context instead, which is exact and slower.",
                stacklevel=3,
            )
        self.model.train(was_training)

    def _probe(self, ids: Tensor, exact: Tensor, tolerance: float) -> str | None:
        """Why the slot cache is wrong for this model, or None if it is right."""
        context = ids.shape[1]
        if not self._takes["past_key_values"]:
            return "it takes no key-value cache"
        # Ragged prefill, ragged steps, several tokens at once, a reset, the full context at last.
        first = np.array([1, max(1, context // 3), max(1, context // 2)])
        schedule = [first]
        for step in (1, 1, 3, 1):
            schedule.append(np.minimum(schedule[-1] + step, context))
        schedule.append(np.array([max(1, context // 4), *schedule[-1][1:]]))
        schedule.append(np.full(3, max(1, context - 1)))
        schedule.append(np.full(3, context))  # in lockstep, without a mask
        slots = SlotCache(self, 3, context)
        worst = 0.0
        try:
            for lengths in schedule:
                seen = ids.clone()
                seen[torch.arange(context, device=ids.device) >= self._column(lengths)] = 0
                hidden = slots.last_hidden(seen, lengths.astype(np.int64))
                ours = self.head.logits(hidden).log_softmax(dim=-1)
                theirs = exact[torch.arange(3), torch.from_numpy(lengths - 1)]
                worst = max(worst, float((ours - theirs).abs().max()))
        except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
            return (
                f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
            )
        if not worst <= tolerance:  # also when it is NaN
            return f"log-probs differ by up to {worst:.3g}"
        return None

    def _column(self, lengths: np.ndarray) -> Tensor:
        return torch.from_numpy(lengths).to(self.device)[:, None]


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability in `model` and its configuration to 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    for name, value in vars(model.config).items():
        if isinstance(value, float) and (name.endswith(("dropout", "_pdrop", "layerdrop"))):
            setattr(model.config, name, 0.0)
