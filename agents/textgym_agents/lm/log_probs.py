"""Log-probs and entropies of chosen tokens, exact, in memory that does not grow with the tokens.

A language model's logits are its largest tensor by far: 8,192 tokens of a 50,257-token vocabulary
take 1.6 GB, several times over with autograd. Here they exist for one chunk of tokens at a time,
and once more in the backward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from textgym_agents.lm.linear import linear

# Logits of up to this many bytes are kept for the backward pass instead of made again.
_KEEP_BYTES = 32 * 2**20


class Head(NamedTuple):
    """How a hidden state becomes logits: ``cap(scale * (hidden @ weight.T + bias))``."""

    weight: Tensor  # [V', d], V' >= V
    bias: Tensor | None
    vocab_size: int  # V: rows beyond it are no tokens
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """`[n, V] float32` of `hidden [n, d]`."""
        weight = self.weight[: self.vocab_size].float()
        bias = None if self.bias is None else self.bias[: self.vocab_size].float()
        logits = linear(hidden.float(), weight, bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def pack_support(support: Tensor) -> Tensor:
    """`[n, V] bool` as `[n, ceil(V / 8)] uint8`, least significant bit first."""
    n, vocab_size = support.shape
    padded = torch.nn.functional.pad(support, (0, -vocab_size % 8)).view(n, -1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=support.device)
    return (padded * weights).sum(dim=-1, dtype=torch.uint8)


def unpack_support(bits: Tensor, vocab_size: int) -> Tensor:
    """The inverse of `pack_support`."""
    shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
    unpacked = (bits[..., None] >> shifts) & 1
    return unpacked.flatten(-2)[..., :vocab_size].bool()


def token_log_probs(
    hidden: Tensor,
    head: Head,
    actions: Tensor,
    *,
    temperature: float = 1.0,
    support: Tensor | None = None,
    chunk: int = 128,
) -> tuple[Tensor, Tensor]:
    """Log-probs of `actions` and entropies of the distributions they came from.

    Args:
        hidden: `[n, d]`, hidden states before the head.
        head: the head.
        actions: `[n] int64`.
        temperature: logits are divided by it.
        support: `[n, ceil(V / 8)] uint8`, the packed tokens each action was chosen among; the
            rest has probability 0. None for all tokens.
        chunk: tokens whose logits exist at one time.

    Returns:
        `[n] float32` log-probs and `[n] float32` entropies, in nats, differentiable.
    """
    scale, softcap = head.scale, head.softcap
    bias = head.bias
    keep = hidden.shape[0] * head.vocab_size * 4 <= _KEEP_BYTES
    size = hidden.shape[0] if keep else chunk
    return _TokenLogProbs.apply(
        hidden, head.weight, bias, actions, support, head.vocab_size, scale, softcap,
        temperature, max(1, size), keep,
    )  # fmt: skip


class _TokenLogProbs(torch.autograd.Function):
    """See `token_log_probs`; the backward pass makes each chunk's logits once more."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, actions: Tensor,
        support: Tensor | None, vocab_size: int, scale: float, softcap: float | None,
        temperature: float, chunk: int, keep: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        head = Head(weight, bias, vocab_size, scale, softcap)
        log_probs = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        entropies = torch.empty_like(log_probs)
        kept = None
        for i in range(0, len(actions), chunk):
            part = slice(i, i + chunk)
            logits = head.logits(hidden[part])
            kept_logits = logits.clone() if keep and softcap is not None else None
            log_p = _log_softmax_(logits, temperature, support, part)
            log_probs[part] = log_p.gather(1, actions[part, None])[:, 0]
            entropies[part] = _entropy(log_p, support is not None)
            if keep:
                kept = (log_p, kept_logits)
        ctx.head, ctx.support, ctx.kept = (vocab_size, scale, softcap), support, kept
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.save_for_backward(hidden, weight, bias, actions, entropies)
        return log_probs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropies: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, actions, entropies = ctx.saved_tensors
        vocab_size, scale, softcap = ctx.head
        head = Head(weight, bias, vocab_size, scale, softcap)
        used = weight[:vocab_size]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = None if bias is None else torch.zeros_like(bias)
        # PPO always asks for entropies, mostly with a coefficient of zero.
        with_entropy = bool(grad_entropies.any())
        for i in range(0, len(actions), ctx.chunk):
            part = slice(i, i + ctx.chunk)
            if ctx.kept is not None:
                log_p, capped = ctx.kept
            else:
                logits = head.logits(hidden[part])
                capped = logits.clone() if softcap is not None else None
                log_p = _log_softmax_(logits, ctx.temperature, ctx.support, part)
            g = grad_log_probs[part, None]
            grad = log_p.exp()
            extra = None
            if with_entropy:  # d H / d logits = -p (log p + H)
                extra = log_p + entropies[part, None]
                extra.mul_(grad).mul_(-grad_entropies[part, None])
                if ctx.support is not None:
                    extra.nan_to_num_(nan=0.0)  # outside the support p is 0 and log p is -inf
            grad.mul_(-g)  # d log p(a) / d logits = onehot(a) - p
            grad.scatter_add_(1, actions[part, None], g)
            if extra is not None:
                grad += extra
            if ctx.temperature != 1.0:
                grad /= ctx.temperature
            if softcap is not None:
                grad *= 1.0 - (capped / softcap) ** 2
            if scale != 1.0:
                grad *= scale
            grad_hidden[part] = linear(grad, used.float().t()).to(hidden.dtype)
            if grad_weight is not None:
                made = linear(grad.t(), hidden[part].float().t())
                grad_weight[:vocab_size] += made.to(weight.dtype)
            if grad_bias is not None:
                grad_bias[:vocab_size] += grad.sum(dim=0).to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, *([None] * 8)


def _log_softmax_(
    logits: Tensor, temperature: float, support: Tensor | None, part: slice
) -> Tensor:
    """Log-probs in the memory of `logits`: these are the largest tensors there are."""
    if temperature != 1.0:
        logits /= temperature
    if support is not None:
        inside = unpack_support(support[part], logits.shape[-1])
        logits.masked_fill_(~inside, -torch.inf)
    logits -= logits.logsumexp(dim=-1, keepdim=True)
    return logits


def _entropy(log_p: Tensor, truncated: bool) -> Tensor:
    terms = log_p.exp().mul_(log_p)
    if truncated:
        terms.nan_to_num_(nan=0.0)  # 0 log 0 is 0: outside the support log p is -inf
    return -terms.sum(dim=-1)
