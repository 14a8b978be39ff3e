"""`build_language_model`: the interface that fits a model, and an adapter where asked for."""

from __future__ import annotations

from torch import nn

from textgym import Tokenizer
from textgym_agents.lm.causal_lm import CausalLM
from textgym_agents.lm.language_model import LanguageModel
from textgym_agents.lm.lora import Adapter, LoraOptions
from textgym_agents.lm.seq2seq import Seq2SeqLM


def build_language_model(
    model: nn.Module,
    vocab_size: int,
    context_size: int,
    *,
    max_new_tokens: int | None = None,
    tokenizer: Tokenizer | None = None,
    lora: LoraOptions | None = None,
) -> LanguageModel:
    """A `Seq2SeqLM` for an encoder-decoder model, a `CausalLM` for any other.

    Args:
        model: of `transformers`; changed in place (dropout, adapter).
        vocab_size: V, the environment's tokens.
        context_size: C, the longest context.
        max_new_tokens: N, the longest completion; encoder-decoder models need it.
        tokenizer: the model's, where it is known: it says how texts for an encoder end.
        lora: options of a LoRA adapter; None for none.

    Raises:
        ValueError: the model does not fit; see `CausalLM`, `Seq2SeqLM` and `Adapter`.
    """
    adapter = None if lora is None else Adapter(model, lora)
    if not is_encoder_decoder(model):
        return CausalLM(model, vocab_size, context_size, adapter=adapter)
    if max_new_tokens is None:
        raise ValueError(
            "an encoder-decoder model must know where a prompt ends, and these observations have "
            "no `remaining`. Make the environment with `make_vec_env` or `gym.make`."
        )
    return Seq2SeqLM(
        model,
        vocab_size,
        context_size,
        max_new_tokens=max_new_tokens,
        closing=() if tokenizer is None else closing_tokens(tokenizer),
        adapter=adapter,
    )


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether `model` reads a prompt with an encoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def closing_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The end-of-sequence token, if `tokenizer` closes texts with it; otherwise nothing.

    An environment's prompt is there to be continued and never has it; an encoder was trained with.
    """
    closed = tokenizer.backend.encode("a", add_special_tokens=True).ids
    plain = tokenizer.backend.encode("a", add_special_tokens=False).ids
    closes = closed[-1:] == [tokenizer.eos_token_id] and closed[-1:] != plain[-1:]
    return (tokenizer.eos_token_id,) if closes else ()
