"""The language model that a benchmark's agents begin with."""

from __future__ import annotations

import math
from typing import Any

from textgym import Tokenizer

# What a nat away from the bundled model costs.
KL_COEF = 0.02
# A random model is nothing to stay close to, but without a price of being certain its learners are
# certain too soon. At most this is paid for a text all of whose tokens are certain; the best return
# of what it learns is 1.
CERTAINTY = 0.4
# The learning rate of a random model, before it falls.
TINY_RATE = 2e-3


def is_tiny(envs: Any) -> bool:
    """Whether the tokens of `envs` are not words that the bundled model knows."""
    return bool(envs.unwrapped.tokenizer.hash != Tokenizer.load().hash)


def tiny_model(envs: Any, seed: int) -> Any:
    """A model of random weights, one layer, for the tokens of `envs`."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=64,
        n_layer=1,
        n_head=4,
        n_positions=max(16, envs.unwrapped.context_size),
        vocab_size=int(envs.unwrapped.tokenizer.vocab_size),
        bos_token_id=None,
        eos_token_id=int(envs.unwrapped.tokenizer.eos_token_id),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def model_kwargs(envs: Any, seed: int) -> dict[str, Any]:
    """`policy_kwargs` of an `LMPolicy`: the model, and the price of going away from it."""
    if is_tiny(envs):
        most = envs.unwrapped.max_new_tokens * math.log(envs.unwrapped.tokenizer.vocab_size)
        return {"model": tiny_model(envs, seed), "kl_coef": CERTAINTY / most}
    return {"model": "bundled", "kl_coef": KL_COEF}


class FallingRate:
    """A learning rate for a random model: it stays for a while, then falls to 0.

    Args:
        rate: at first.
        falling: the share of training in which it falls.
    """

    def __init__(self, rate: float = TINY_RATE, falling: float = 0.7) -> None:
        self.rate, self.falling = rate, falling

    def __call__(self, remaining: float) -> float:
        """The rate when that share of training remains."""
        return self.rate * min(1.0, remaining / self.falling)
