"""How many threads torch is to use: chosen by measurement.

More is often slower: a small model's operations are over before a second thread has woken up, and
on a shared machine two threads wait for each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# A larger number must be this much faster to be taken: the rest of the program wants cores too.
_MARGIN = 0.95
_ROUNDS = 3


def available() -> int:
    """The most threads worth trying: what torch would use, within the cores this process may."""
    import torch

    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(1, min(cores, torch.get_num_threads()))


def candidates(limit: int) -> list[int]:
    """Powers of two up to `limit`, and `limit`.

    >>> candidates(6)
    [1, 2, 4, 6]
    """
    powers = [2**i for i in range(limit.bit_length()) if 2**i <= limit]
    return sorted({*powers, limit})


def measure(work: Callable[[], object], counts: list[int]) -> dict[int, float]:
    """The least seconds that `work` took with each number of threads; torch's own is restored.

    Numbers are measured in turn, several rounds, so that a busy moment hits all of them alike.
    """
    import torch

    before = torch.get_num_threads()
    seconds = dict.fromkeys(counts, float("inf"))
    try:
        for round_ in range(1 + _ROUNDS):
            for count in counts:
                torch.set_num_threads(count)
                start = time.perf_counter()
                work()
                if round_ > 0:  # the first warms up
                    seconds[count] = min(seconds[count], time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return seconds


def best(seconds: Mapping[int, float]) -> int:
    """The number of threads to use; a larger one only where it is clearly faster.

    >>> best({1: 1.0, 2: 0.98, 4: 0.5})
    4
    >>> best({1: 1.0, 2: 0.98})
    1
    """
    chosen = min(seconds)
    for count in sorted(seconds):
        if seconds[count] < _MARGIN * seconds[chosen]:
            chosen = count
    return chosen


def model_work(model: nn.Module, *, rows: int, length: int) -> Callable[[], None]:
    """A small share of training `model`: forwards of a token a row, and one update's backward.

    Args:
        model: a language model of `transformers`.
        rows: of the vector env.
        length: tokens of a context.

    Returns:
        A function that leaves parameters, gradients and random states as they were.
    """
    import torch

    from textgym_agents.lm.linear import fast_linear

    device = next(model.parameters()).device
    decoded = torch.ones(rows, 1, dtype=torch.int64, device=device)
    packed = torch.ones(max(1, 1024 // length), length, dtype=torch.int64, device=device)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def logits(tokens: Any) -> Any:
        both = getattr(model.config, "is_encoder_decoder", False)
        more = {"decoder_input_ids": tokens} if both else {}
        with fast_linear(tokens, getattr(model.config, "hidden_size", 0)):
            return model(input_ids=tokens, use_cache=False, **more).logits

    def work() -> None:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            with torch.no_grad():
                for _ in range(16):
                    logits(decoded)
            loss = logits(packed).float().logsumexp(-1).mean()
            torch.autograd.grad(loss, parameters, allow_unused=True)

    return work
