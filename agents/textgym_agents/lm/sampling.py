"""The rule by which tokens are sampled: temperature, top-k, top-p and masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingRule:
    """Temperature, then top-k, then top-p, in the order and meaning of Hugging Face `generate`.

    Args:
        temperature: above 0; logits are divided by it.
        top_k: only the k most probable tokens; 0 for all.
        top_p: only the smallest set of most probable tokens that holds this much probability.

    Source: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751 (top-p).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"`temperature` must be above 0, got {self.temperature}. For the most probable "
                "token use `deterministic=True` in `predict`."
            )
        if self.top_k < 0:
            raise ValueError(f"`top_k` must be 0 (all tokens) or more, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], got {self.top_p}. 1.0 turns it off.")

    @property
    def truncates(self) -> bool:
        """True where some tokens can never be sampled."""
        return self.top_k > 0 or self.top_p < 1.0

    def support(self, logits: Tensor, action_mask: Tensor | None = None) -> Tensor | None:
        """`[B, V] bool`, the tokens that can be sampled; None for all.

        Args:
            logits: `[B, V] float32`, before the temperature.
            action_mask: `[B, V] bool`, tokens allowed by the environment.
        """
        if not self.truncates:
            return action_mask
        logits = logits / self.temperature
        if action_mask is not None:
            logits = logits.masked_fill(~action_mask, -torch.inf)
        keep = torch.isfinite(logits)
        if self.top_k and self.top_k < logits.shape[-1]:
            kth = logits.topk(self.top_k, dim=-1).values[:, -1:]
            keep = keep & (logits >= kth)
            logits = logits.masked_fill(~keep, -torch.inf)
        if self.top_p < 1.0:
            ordered, order = logits.sort(dim=-1, descending=True)
            before = ordered.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)
            before[:, 0] = 0.0  # the most probable token always stays
            inside = torch.zeros_like(keep).scatter(1, order, before < self.top_p)
            keep = keep & inside
        return keep


def sample(log_probs: Tensor) -> Tensor:
    """`[B] int64`, one token a row by inversion, from torch's global generator as SB3's agents do.

    Args:
        log_probs: `[B, V] float32`, normalised; `-inf` for what must never be sampled.
    """
    # Double precision, so that improbable tokens of a large vocabulary keep their share.
    cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
    uniform = torch.rand((len(log_probs), 1), dtype=torch.float64, device=log_probs.device)
    # The first token whose cumulative probability exceeds the draw; one of probability 0 never is.
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
