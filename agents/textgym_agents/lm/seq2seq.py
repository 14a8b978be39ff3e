"""`Seq2SeqLM`: an encoder-decoder model (T5, BART, Marian) with the interface of `CausalLM`.

The encoder reads the prompt, once an episode; the decoder starts with its start token and writes
the completion. A context is therefore read as a pair, and where its prompt ends must be told. There
is one prompt: tasks that reply in mid-episode are for causal models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from textgym_agents.lm.language_model import LanguageModel, cache_name
from textgym_agents.lm.linear import fast_linear
from textgym_agents.lm.log_probs import Head
from textgym_agents.lm.lora import Adapter
from textgym_agents.lm.seq2seq_slots import ONE_PROMPT, Seq2SeqSlots


class Seq2SeqLM(LanguageModel):
    """An encoder-decoder model as hidden states and a head.

    Args:
        model: an `AutoModelForSeq2SeqLM`. Dropout is set to 0 in it.
        vocab_size: V, the environment's tokens.
        context_size: C, the longest context, prompt and completion.
        max_new_tokens: N, the longest completion.
        closing: tokens put after every prompt for the encoder: the end-of-sequence token, where the
            model's tokenizer closes texts with it (as T5's, BART's and Marian's do).
        adapter: put into `model` before; the rest of it is frozen then.

    Raises:
        ValueError: as `LanguageModel`, or the model does not say what its decoder starts with.
    """

    needs_prompt_lengths = True

    def __init__(
        self,
        model: nn.Module,
        vocab_size: int,
        context_size: int,
        *,
        max_new_tokens: int,
        closing: Sequence[int] = (),
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__(model, vocab_size, context_size, adapter=adapter)
        config = self.config
        self.max_new_tokens = max_new_tokens
        self.closing = tuple(closing)
        start = getattr(config, "decoder_start_token_id", None)
        if start is None:
            raise ValueError(
                f"{type(model).__name__} does not say what its decoder starts with. Set "
                "`decoder_start_token_id` in its configuration."
            )
        self.decoder_start_token_id = int(start)
        self._check_positions(self.source_size, "prompts")
        self._check_positions(max_new_tokens, "completions")
        scaled = getattr(config, "scale_decoder_outputs", False)  # of T5
        self._scale = float(config.d_model) ** -0.5 if scaled else 1.0
        self._additive_mask = getattr(config, "_attn_implementation", "sdpa") == "eager"
        self._cache_name = cache_name(self.model.get_decoder()) or "past_key_values"
        self._check_against_model()

    # ------------------------------------------------------------------ the model's parts
    @property
    def source_size(self) -> int:
        """The most tokens the encoder reads."""
        return max(1, self.context_size - self.max_new_tokens) + len(self.closing)

    @property
    def target_size(self) -> int:
        """The most tokens the decoder reads, its start token included."""
        return self.max_new_tokens + 1

    @property
    def head(self) -> Head:
        """The map from the decoder's hidden states to logits."""
        linear = self.unembedding
        bias = getattr(linear, "bias", None)
        added = getattr(self.model, "final_logits_bias", None)  # of BART and Marian: [1, V']
        if added is not None:
            bias = added[0] if bias is None else bias + added[0]
        return Head(linear.weight, bias, self.vocab_size, self._scale)

    def sources(self, input_ids: Tensor, prompt_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder reads: tokens `[S, P] int64` and which of them are there, bool."""
        closing = torch.tensor(self.closing, dtype=torch.int64, device=input_ids.device)
        longest = int(prompt_lengths.max())
        tokens = input_ids.new_zeros((len(input_ids), longest + len(closing)))
        tokens[:, :longest] = input_ids[:, :longest]
        columns = torch.arange(tokens.shape[1], device=input_ids.device)
        lengths = prompt_lengths[:, None]
        for i, token in enumerate(closing):
            tokens = torch.where(columns == lengths + i, token, tokens)
        there = columns < lengths + len(closing)
        return tokens.masked_fill(~there, 0), there

    def targets(self, input_ids: Tensor, prompt_lengths: Tensor, width: int) -> Tensor:
        """`[S, width] int64`, what the decoder reads: its start token, then the completion."""
        offsets = torch.arange(width, device=input_ids.device)
        where = (prompt_lengths[:, None] - 1 + offsets).clamp(max=input_ids.shape[1] - 1)
        tokens = input_ids.gather(1, where)
        tokens[:, 0] = self.decoder_start_token_id
        return tokens

    def encode(self, tokens: Tensor, there: Tensor) -> Tensor:
        """`[S, P, d]` of `tokens [S, P]`."""
        encoder = self.model.get_encoder()
        with fast_linear(tokens, self.hidden_size):
            return encoder(input_ids=tokens, attention_mask=there.long()).last_hidden_state

    def decode(
        self, targets: Tensor, encoded: Tensor, there: Tensor, *, cached: bool = False
    ) -> tuple[Tensor, EncoderDecoderCache | None]:
        """`[S, T, d]` of `targets [S, T]` from their start, and the keys and values if `cached`."""
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if cached else None
        with fast_linear(targets, self.hidden_size):
            out = self.model.get_decoder()(
                input_ids=targets,
                encoder_hidden_states=encoded,
                encoder_attention_mask=there.long(),
                use_cache=cached,
                **{self._cache_name: cache},
            )
        return out.last_hidden_state, cache

    def decode_next(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        visible: Tensor,
        there: Tensor,
        cache: EncoderDecoderCache,
    ) -> Tensor:
        """`[B, d]` of one more token a row.

        Args:
            tokens: `[B] int64`.
            positions: `[B] int64`, each token's place in its own target.
            visible: `[B, L] bool`, the columns of the cache that each may attend to.
            there: `[B, P] bool`, as `sources` gives it.
            cache: the keys and values of what each row has read.
        """
        decoder = self.model.get_decoder()
        # Its keys and values are in the cache: only that there is an encoder matters.
        encoded = self.unembedding.weight.new_zeros(()).expand(*there.shape, self.hidden_size)
        fast = fast_linear(tokens, self.hidden_size)
        with fast, _positions(decoder, positions[:, None]):
            return decoder(
                input_ids=tokens[:, None],
                attention_mask=self._mask(visible),
                encoder_hidden_states=encoded,
                encoder_attention_mask=self._mask(there),
                use_cache=True,
                **{self._cache_name: cache},
            ).last_hidden_state[:, 0]

    def _mask(self, visible: Tensor) -> Tensor:
        """`visible [B, L]` as the attention takes it, `[B, 1, 1, L]`."""
        mask = visible[:, None, None]
        if not self._additive_mask:
            return mask
        dtype = self.unembedding.weight.dtype
        return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)

    # ------------------------------------------------------------------ contexts
    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """Refused: a context has hidden states only together with where its prompt ends.

        Raises:
            ValueError: always. What asks for them was made for causal models.
        """
        raise ValueError(
            "this is for causal models: an encoder-decoder model reads a prompt and a completion "
            "apart. Take a causal model, or SB3's PPO or A2C."
        )

    def states(
        self, input_ids: Tensor, index: Tensor, prompt_lengths: Tensor | None = None
    ) -> Tensor:
        """`[n, d]` at `index [n]` of the flattened contexts `input_ids [S, T]`.

        Args:
            input_ids: `[S, T] int64`, right-padded contexts.
            index: `[n] int64`, where each context's last token lies in the flattened `[S * T]`.
            prompt_lengths: `[S] int64`, where their prompts end.

        Raises:
            ValueError: a context that ends within its prompt, or has several.
        """
        if prompt_lengths is None:
            raise ValueError(
                "an encoder-decoder model needs `prompt_lengths`: where the contexts' prompts end."
            )
        if len(prompt_lengths) and int(prompt_lengths.min()) < 1:
            raise ValueError(ONE_PROMPT)
        context = input_ids.shape[1]
        rows = index // context
        places = index % context + 1 - prompt_lengths[rows]  # in the decoder
        if len(places) and int(places.min()) < 0:
            raise ValueError("a context ends within what is said to be its prompt.")
        width = int(places.max()) + 1 if len(places) else 1
        tokens, there = self.sources(input_ids, prompt_lengths)
        targets = self.targets(input_ids, prompt_lengths, width)
        hidden, _ = self.decode(targets, self.encode(tokens, there), there)
        return hidden[rows, places]

    def slots(self, num_rows: int, context_size: int) -> Seq2SeqSlots:
        """Incremental decoding of `num_rows` contexts."""
        return Seq2SeqSlots(self, num_rows, context_size)

    # ------------------------------------------------------------------ checks
    def _trial(self) -> tuple[Tensor, Tensor, np.ndarray, list[np.ndarray]]:
        rng = np.random.default_rng(0)  # our own, so that no global generator is touched
        most, prompt = self.max_new_tokens, max(1, self.context_size - self.max_new_tokens)
        prompts = np.array([max(1, prompt // 2), prompt, max(1, prompt // 3)])
        ids = rng.integers(0, self.vocab_size, (3, prompt + most))
        contexts = torch.from_numpy(ids).to(self.device)
        lengths = torch.from_numpy(prompts).to(self.device)
        tokens, there = self.sources(contexts, lengths)
        targets = self.targets(contexts, lengths, most + 1)
        with fast_linear(targets, self.hidden_size):
            logits = self.model(
                input_ids=tokens,
                attention_mask=there.long(),
                decoder_input_ids=targets[:, :most],
                use_cache=False,
            ).logits[..., : self.vocab_size]
        log_probs = logits.float().log_softmax(dim=-1)  # [3, N, V]
        exact = log_probs.new_full((3, prompt + most, self.vocab_size), torch.nan)
        for row, start in enumerate(prompts):
            exact[row, start - 1 : start - 1 + most] = log_probs[row]
        return contexts, exact, prompts, [prompts + written for written in _written(most)]


def _written(most: int) -> Iterator[np.ndarray]:
    """How much is written in three rows: ragged, one by one, by jumps, anew, to the end."""
    written = np.array([0, most // 3, most // 2])
    for step in (0, 1, 1, 3, 1, 0):
        written = np.minimum(written + step, most - 1)
        yield written
    written = np.array([0, written[1], 0])
    for _ in range(2 * most):
        yield written
        written = np.where(written + 1 < most, written + 1, [0, 0, written[2]])
    for _ in range(most):
        yield written
        written = np.minimum(written + 1, most - 1)


@contextmanager
def _positions(decoder: nn.Module, positions: Tensor) -> Iterator[None]:
    """Let absolute positions be `positions [B, q]` instead of those that all rows share.

    Decoders take none from outside. Where they are embedded (BART, Marian), the embedding's own
    hooks put them in; relative ones (T5) need nothing.
    """
    embed: Any = getattr(decoder, "embed_positions", None)
    if embed is None:
        yield
        return

    def before(module: nn.Module, args: Any, keywords: dict[str, Any]) -> tuple[Any, Any]:
        return args, {**keywords, "position_ids": positions.flatten()}

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.view(*positions.shape, -1)

    handles = [
        embed.register_forward_pre_hook(before, with_kwargs=True),
        embed.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
