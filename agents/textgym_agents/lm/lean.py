"""Forwards of well-known architectures in as few operations as their arithmetic needs.

While decoding, a small model spends most of its time between operations, not in them: a step of
transformers' Llama takes about twice the operations that it needs. `lean_body` knows two families,
Llama's (with Mistral and Qwen2) and GPT-2's, and computes what their modules would, from their
weights. `CausalLM` compares it with the model itself, as it does the slot cache, and does without
where it is missing or differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache

from textgym_agents.lm.linear import linear_for

# Weights that are joined into one are copies: beyond this many parameters they would cost more
# memory than the operations saved are worth.
_MOST_COPIED = 50_000_000


class LeanBody(Protocol):
    """Hidden states of new tokens after what a cache holds, as `CausalLM.body` gives them."""

    def refresh(self) -> None:
        """Take note of weights that have changed."""

    def __call__(
        self, tokens: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """`[r, q, d]` of `tokens [r, q]`; the mask is bool, `[r or 1, 1, q, L]`, True to attend."""


def lean_body(model: nn.Module, context_size: int) -> LeanBody | None:
    """The lean forward of `model`, an `AutoModelForCausalLM`; None where there is none."""
    for kind in (_Llama, _GPT2):
        if kind.knows(model):
            return kind(model, context_size)
    return None


class _Llama:
    """RMS norms, rotary positions, grouped queries, a gated MLP."""

    def __init__(self, model: Any, context_size: int) -> None:
        self.base = model.base_model
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size = self.base.layers[0].self_attn.head_dim
        self.eps = config.rms_norm_eps
        self.context_size = context_size
        self.layers: list[tuple[Any, ...]] = []
        self.refresh()

    @staticmethod
    def knows(model: Any) -> bool:
        """Whether `model` is built of the parts that this forward computes."""
        config, base = model.config, model.base_model
        if config.model_type not in ("llama", "mistral", "qwen2"):
            return False
        linear = [
            part
            for layer in base.layers
            for part in (
                *(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                *(layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj),
                layer.mlp.down_proj,
            )
        ]
        return (
            all(type(part) is nn.Linear for part in linear)  # no adapters, no quantisation
            and config.hidden_act in ("silu", "swish")
            and getattr(base.rotary_emb, "rope_type", "default") == "default"
            and not (getattr(config, "sliding_window", None) and _slides(config))
            and sum(part.weight.numel() for part in linear) <= _MOST_COPIED
        )

    @torch.no_grad()
    def refresh(self) -> None:
        self.layers = []
        for layer in self.base.layers:
            attention, mlp = layer.self_attn, layer.mlp
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            biases = [p.bias for p in projections]
            self.layers.append(
                (
                    torch.cat([p.weight for p in projections])
                    * self._gain(layer.input_layernorm.weight),
                    None if biases[0] is None else torch.cat(biases),
                    attention.o_proj.weight.t(),
                    attention.o_proj.bias,
                    torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
                    * self._gain(layer.post_attention_layernorm.weight),
                    None
                    if mlp.gate_proj.bias is None
                    else torch.cat([mlp.gate_proj.bias, mlp.up_proj.bias]),
                    mlp.down_proj.weight.t(),
                    mlp.down_proj.bias,
                )
            )
        self.largest = max(w_up.numel() for *_, w_up, _, _, _ in self.layers)
        # The gains of norms within layers are in the weights that follow them.
        self.gain = self._gain(self.base.norm.weight)
        embedding = self.base.embed_tokens.weight
        self.floor = torch.tensor((embedding.shape[1] * self.eps) ** 0.5, device=embedding.device)
        positions = torch.arange(self.context_size, device=embedding.device)[None]
        cos, sin = self.base.rotary_emb(embedding[:1, None], positions)
        self.cos, self.sin = cos[0], sin[0].clone()  # [C, D]
        # Halves are swapped by a roll, which leaves out the sign of the first one.
        self.sin[:, : self.head_size // 2] *= -1

    def __call__(
        self, tokens: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        r, q = tokens.shape
        heads, kv_heads, size = self.heads, self.kv_heads, self.head_size
        turned = (heads + kv_heads) * size
        x = F.embedding(tokens.flatten(), self.base.embed_tokens.weight)  # [r q, d]
        places = position_ids if len(position_ids) == r or q == 1 else position_ids.expand(r, q)
        # [r q, 1, D]; in lockstep one position is there for all.
        cos, sin = (table[places.flatten()][:, None] for table in (self.cos, self.sin))
        attend = _Attention(attention_mask, r, q, heads, kv_heads, size)
        product = linear_for(r * q * self.largest)
        for layer, (w_in, b_in, w_out, b_out, w_up, b_up, w_down, b_down) in zip(
            cache.layers, self.layers, strict=True
        ):
            qkv = product(self._normed(x), w_in, b_in)
            both = qkv[:, :turned].view(r * q, heads + kv_heads, size)
            both = torch.addcmul(both * cos, both.roll(size // 2, -1), sin)
            out = attend(
                both[:, :heads], both[:, heads:], qkv[:, turned:].view(r * q, kv_heads, size), layer
            )
            x = _added(product, x, out, w_out, b_out)
            gate, up = product(self._normed(x), w_up, b_up).chunk(2, -1)
            x = _added(product, x, F.silu(gate).mul_(up), w_down, b_down)
        return (self._normed(x) * self.gain).view(r, q, -1)

    def _normed(self, x: Tensor) -> Tensor:
        """`x` over the root of its squared norm + eps d: the norm, but for its gain.

        The fused RMS norm of torch takes twice as long on a CPU.
        """
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)

    def _gain(self, weight: Tensor) -> Tensor:
        return weight * weight.shape[0] ** 0.5


class _GPT2:
    """Layer norms, learnt positions, heads of their own, a plain MLP."""

    def __init__(self, model: Any, context_size: int) -> None:
        self.base = model.base_model
        self.heads = model.config.n_head
        self.eps = model.config.layer_norm_epsilon

    @staticmethod
    def knows(model: Any) -> bool:
        """Whether `model` is built of the parts that this forward computes."""
        config = model.config
        if config.model_type != "gpt2":
            return False
        parts = [
            part
            for block in model.base_model.h
            for part in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
        ]
        return (
            all(type(part).__name__ == "Conv1D" for part in parts)
            and config.activation_function == "gelu_new"
            and config.scale_attn_weights
            and not config.scale_attn_by_inverse_layer_idx
            and not config.add_cross_attention
        )

    def refresh(self) -> None:
        """Its weights are read where they are."""

    def __call__(
        self, tokens: Tensor, *, position_ids: Tensor, attention_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        r, q = tokens.shape
        base, heads = self.base, self.heads
        x = F.embedding(tokens, base.wte.weight) + F.embedding(position_ids, base.wpe.weight)
        x = x.view(r * q, -1)
        width = x.shape[1]
        attend = _Attention(attention_mask, r, q, heads, heads, width // heads)
        product = linear_for(r * q * width * base.h[0].mlp.c_fc.weight.shape[1])
        for layer, block in zip(cache.layers, base.h, strict=True):
            attn, mlp = block.attn, block.mlp
            normed = F.layer_norm(x, (width,), block.ln_1.weight, block.ln_1.bias, self.eps)
            qkv = product(normed, attn.c_attn.weight.t(), attn.c_attn.bias)
            parts = qkv.view(r * q, 3, heads, width // heads)
            out = attend(parts[:, 0], parts[:, 1], parts[:, 2], layer)
            x = _added(product, x, out, attn.c_proj.weight, attn.c_proj.bias)
            normed = F.layer_norm(x, (width,), block.ln_2.weight, block.ln_2.bias, self.eps)
            up = product(normed, mlp.c_fc.weight.t(), mlp.c_fc.bias)
            x = _added(
                product, x, F.gelu(up, approximate="tanh"), mlp.c_proj.weight, mlp.c_proj.bias
            )
        norm = base.ln_f
        return F.layer_norm(x, (width,), norm.weight, norm.bias, self.eps).view(r, q, width)


class _Attention:
    """Attention of new queries to what a cache layer holds.

    Args:
        mask: bool, `[r or 1, 1, q, L]`, True to attend; None for all.
        r, q: rows and new tokens of each.
        heads, kv_heads, size: of the queries; of keys and values; of one head.
    """

    def __init__(
        self, mask: Tensor | None, r: int, q: int, heads: int, kv_heads: int, size: int
    ) -> None:
        self.shape = (r, q)
        self.heads, self.kv_heads, self.size = heads, kv_heads, size
        self.mask = mask
        self.scale = size**-0.5
        self.bias: Tensor | None = None
        if mask is not None and q == 1:
            # Added to the scores, [r kv_heads, 1, L].
            bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
            self.bias = bias.expand(r, kv_heads, 1, -1).flatten(0, 1)

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, layer: Any) -> Tensor:
        """`[r q, heads size]` of `queries [r q, heads, size]`; keys and values go to `layer`."""
        r, q = self.shape
        if q > 1:
            queries, keys, values = (
                x.unflatten(0, (r, q)).transpose(1, 2) for x in (queries, keys, values)
            )
            keys, values = layer.update(keys, values)
            out = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=self.mask, enable_gqa=self.heads != self.kv_heads
            )
            return out.transpose(1, 2).reshape(r * q, -1)
        keys, values = layer.update(keys[:, :, None], values[:, :, None])  # [r, kv_heads, L, size]
        # Batched products of small matrices: on a CPU half the time of the fused attention, which
        # was made for many queries at a time. The queries of a group stand in for these.
        grouped = queries.reshape(r * self.kv_heads, -1, self.size)
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)
        bias = grouped.new_zeros(1, 1, 1) if self.bias is None else self.bias
        scores = torch.baddbmm(
            bias,
            grouped,
            keys.transpose(1, 2),
            beta=0.0 if self.bias is None else 1.0,
            alpha=self.scale,
        )
        return torch.bmm(scores.softmax(-1), values).view(r, -1)


def _added(
    product: Callable[..., Tensor], x: Tensor, new: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """`x + new @ weight + bias`."""
    if product is not F.linear:
        return product(new, weight.t(), bias).add_(x)
    out = torch.addmm(x, new, weight)
    return out if bias is None else out.add_(bias)


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None) or ()
    return "sliding_attention" in kinds or config.model_type == "mistral"
