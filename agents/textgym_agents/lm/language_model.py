"""`LanguageModel`: what causal and encoder-decoder models have in common, checked when built."""

from __future__ import annotations

import contextlib
import inspect
import operator
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textgym_agents.lm.log_probs import Head
from textgym_agents.lm.lora import Adapter

# Design bound for float32 log-probs.
_TOLERANCE = 1e-4
# Cached decoding may be off by this share of the greatest log-prob more: rounding grows with the
# logits, and what is wrong (a window ignored, say) is off by far more.
_ROUNDING = 1e-5
# An adapter that does nothing yet may move log-probs by this much, in nats.
_NO_CHANGE = 1e-5

_version = operator.attrgetter("_version")


class LanguageModel(nn.Module):
    """A language model of `transformers` as hidden states and a head.

    A subclass says how contexts become hidden states (`states`, `last_hidden`), how they do so
    incrementally (`slots`), and what the model itself makes of some contexts (`_trial`).

    Args:
        model: of `transformers`. Dropout is set to 0 in it: with dropout the log-probs at rollout
            and at update differ before anything was learnt.
        vocab_size: V, the environment's tokens; embedding rows beyond them are never sampled.
        context_size: C, the longest context.
        adapter: put into `model` before; the rest of it is frozen then.

    Raises:
        ValueError: the model has fewer tokens or positions than asked for, its logits are not a
            linear function of its last hidden state, or the adapter changes it from the start.
    """

    # Does an observation have to say where the prompt ends?
    needs_prompt_lengths = False

    def __init__(
        self,
        model: nn.Module,
        vocab_size: int,
        context_size: int,
        *,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.vocab_size = vocab_size
        self.context_size = context_size
        self.adapter = adapter
        self.config = model.config.get_text_config()
        self.hidden_size = int(self.config.hidden_size)
        self.incremental = True
        disable_dropout(model)
        self._check_tokens()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unembedding.weight.device

    @property
    def unembedding(self) -> nn.Module:
        """The model's last layer, from hidden states to logits."""
        # Looked up once: transformers' own way there takes longer than the layer itself.
        if "_unembedding" not in self.__dict__:
            self.__dict__["_unembedding"] = self.model.get_output_embeddings()
        return self.__dict__["_unembedding"]

    @property
    def head(self) -> Head:
        """The map from hidden states to logits."""
        raise NotImplementedError

    def states(
        self, input_ids: Tensor, index: Tensor, prompt_lengths: Tensor | None = None
    ) -> Tensor:
        """`[n, d]`, the last hidden states of n contexts that end within S longer ones.

        Args:
            input_ids: `[S, T] int64`, right-padded contexts.
            index: `[n] int64`, where each context's last token lies in the flattened `[S * T]`.
            prompt_lengths: `[S] int64`, where `needs_prompt_lengths`.
        """
        raise NotImplementedError

    def last_hidden(
        self, input_ids: Tensor, lengths: np.ndarray, prompt_lengths: np.ndarray | None = None
    ) -> Tensor:
        """`[B, d]` at the last token of each context, from the whole of it: the exact reference.

        Args:
            input_ids: `[B, C] int64`, right-padded contexts.
            lengths: `[B] int64`, at least 1.
            prompt_lengths: `[B] int64`, where `needs_prompt_lengths`.
        """
        width = int(lengths.max())
        index = torch.arange(len(lengths)) * width + torch.from_numpy(lengths - 1)
        prompts = None if prompt_lengths is None else torch.from_numpy(prompt_lengths)
        with torch.no_grad():
            return self.states(
                input_ids[:, :width],
                index.to(self.device),
                None if prompts is None else prompts.to(self.device),
            )

    def slots(self, num_rows: int, context_size: int) -> Any:
        """An incremental decoder of `num_rows` contexts, with a `last_hidden` as this one."""
        raise NotImplementedError

    @property
    def state(self) -> tuple[int, bool]:
        """Changes where the weights change visibly, and with the adapter's switch."""
        versions = sum(map(_version, self._weights))
        return versions, self.adapter is None or self.adapter.active

    @property
    def _weights(self) -> tuple[nn.Parameter, ...]:
        # Listed once: walking the modules at every step costs more than the comparison.
        if "_listed" not in self.__dict__:
            self.__dict__["_listed"] = tuple(self.parameters())
        return self.__dict__["_listed"]

    # ------------------------------------------------------------------ checks
    def _trial(self) -> tuple[Tensor, Tensor, np.ndarray | None, list[np.ndarray]]:
        """Contexts to try, `[R, C]`; the model's own log-probs after each of their tokens,
        `[R, C, V]`, NaN where it has none; their prompt lengths, `[R]`; and a schedule of context
        lengths, each `[R]`."""
        raise NotImplementedError

    def _check_tokens(self) -> None:
        rows = self.unembedding.weight.shape[0]
        if rows < self.vocab_size:
            raise ValueError(
                f"the model has {rows} token embeddings, but the environment's tokenizer has "
                f"{self.vocab_size} tokens. Use the model's own tokenizer: "
                "`make_vec_env(..., tokenizer=<model folder or hub id>)`."
            )

    def _check_positions(self, needed: int, what: str) -> None:
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and positions < needed:
            raise ValueError(
                f"the model has {positions} positions, but {what} can be {needed} "
                "tokens long. Lower `max_new_tokens`, shorten the prompts or take a longer model."
            )

    @torch.no_grad()
    def _check_against_model(self) -> None:
        """Compare with the model itself: logits must be exact; decoding is made so if it is not."""
        was_training = self.model.training
        self.model.eval()
        if self.adapter is not None:
            self._check_adapter()
        with contextlib.nullcontext() if self.adapter is None else self.adapter.disturbed():
            self._check_exactness()
        self.model.train(was_training)

    def _check_adapter(self) -> None:
        with_adapter = self._trial()[1]
        with self.adapter.off():
            change = (with_adapter - self._trial()[1]).nan_to_num(nan=0.0).abs().max()
        if not change <= _NO_CHANGE:
            raise ValueError(
                f"`lora`: the adapter changes log-probs by {change:.3g} before anything was "
                "learnt. Start it at no change: leave `init_lora_weights` at True or 'gaussian'."
            )

    def _check_exactness(self) -> None:
        ids, exact, prompts, schedule = self._trial()
        rows, width = ids.shape
        index = torch.arange(rows * width, device=ids.device).view(rows, width)
        known = ~exact[..., 0].isnan()
        given = () if prompts is None else (torch.from_numpy(prompts).to(ids.device),)
        ours = self.head.logits(self.states(ids, index[known], *given)).log_softmax(dim=-1)
        wide = self.unembedding.weight.dtype != torch.float32
        tolerance = 0.5 if wide else _TOLERANCE
        if not torch.allclose(ours, exact[known], atol=tolerance, rtol=0):
            raise ValueError(
                f"{type(self.model).__name__}: its logits are not a linear function of its last "
                f"hidden state (log-probs differ by {(ours - exact[known]).abs().max():.3g}). "
                "This architecture is not supported."
            )
        rounding = _ROUNDING * float(exact[known].abs().max())
        reason = self._probe(ids, exact, prompts, schedule, tolerance + rounding)
        if reason:
            self.incremental = False
            warnings.warn(
                f"{type(self.model).__name__}: incremental decoding is not exact here ({reason}); "
                "every step reads the whole context instead, which is exact and slower.",
                stacklevel=5,
            )

    def _probe(
        self,
        ids: Tensor,
        exact: Tensor,
        prompts: np.ndarray | None,
        schedule: list[np.ndarray],
        tolerance: float,
    ) -> str | None:
        """Why incremental decoding is wrong for this model, or None if it is right."""
        if not schedule:
            return "it takes no key-value cache"
        rows, width = ids.shape
        slots = self.slots(rows, width)
        worst = 0.0
        try:
            for lengths in schedule:
                seen = ids.clone()
                seen[torch.arange(width, device=ids.device) >= self._column(lengths)] = 0
                given = () if prompts is None else (prompts,)
                hidden = slots.last_hidden(seen, lengths.astype(np.int64), *given)
                ours = self.head.logits(hidden).log_softmax(dim=-1)
                theirs = exact[torch.arange(rows), torch.from_numpy(lengths - 1)]
                worst = float(np.maximum(worst, float((ours - theirs).abs().max())))  # NaN stays
        except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
            return (
                f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
            )
        if not worst <= tolerance:  # also when it is NaN
            return f"log-probs differ by up to {worst:.3g}"
        return None

    def _column(self, lengths: np.ndarray) -> Tensor:
        return torch.from_numpy(lengths).to(self.device)[:, None]


def cache_name(body: nn.Module) -> str | None:
    """What `body.forward` calls its key-value cache; None where it takes none.

    transformers 5.24 renames `past_key_values` to `cache`.
    """
    accepted = inspect.signature(body.forward).parameters
    return next((name for name in ("past_key_values", "cache") if name in accepted), None)


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability in `model` and its configuration to 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in (
            "activation_dropout",
            "attention_dropout",
            "dropout",
            "hidden_dropout",
            "layerdrop",
        ):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    for name, value in vars(model.config).items():
        if isinstance(value, float) and (
            name.endswith(("dropout", "dropout_rate", "_pdrop", "layerdrop"))
        ):
            setattr(model.config, name, 0.0)
