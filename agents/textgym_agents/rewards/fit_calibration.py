"""How far a model's probabilities can be believed, and the temperature that makes them so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Texts that were given a similar probability.

    Args:
        count: how many.
        predicted: their mean probability.
        observed: the share that is positive.
    """

    count: int
    predicted: float
    observed: float


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The T with which ``softmax(logits / T)`` predicts `labels` best.

    The mean negative log-likelihood is minimised as if one more text had been seen with every
    label: where all are told apart, the probabilities then stay below 1.

    Args:
        logits: `[N, labels]`.
        labels: `[N]`.

    Source: Guo et al. (2017), "On Calibration of Modern Neural Networks"; Platt (1999) for the
    added texts.

    Example:
        >>> doubtful = np.log([[0.8, 0.2]] * 1000)
        >>> labels = np.array([0] * 800 + [1] * 200)
        >>> round(fit_temperature(3.0 * doubtful, labels), 1)
        3.0
    """
    smoothing = 1.0 / (len(labels) + logits.shape[1])

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        spread = np.logaddexp.reduce(scaled, axis=1) - scaled.mean(axis=1)
        return (1.0 - smoothing) * nll(scaled, labels) + smoothing * float(spread.mean())

    # The loss is convex in 1 / T, so that it has one minimum in log T: golden sections find it.
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    low, high = np.log(0.01), np.log(100.0)
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2.0))


def nll(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The mean negative log-likelihood, in nats."""
    chosen = logits[np.arange(len(labels)), labels]
    return float(np.mean(np.logaddexp.reduce(logits, axis=1) - chosen))


def auc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """The probability that a positive has a higher score than a negative, ties counting half.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    order = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(order[2])
    ranks = (last - (order[2] - 1) / 2.0)[order[1]]
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    wins = ranks[positive].sum() - count * (count + 1) / 2.0
    return float(wins / (count * (len(positive) - count)))


def reliability(probabilities: Floats, positive: NDArray[np.bool_]) -> list[Bin]:
    """Texts by their probability of being positive, in `BINS` intervals; empty ones left out."""
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return [
        Bin(int(there.sum()), float(probabilities[there].mean()), float(positive[there].mean()))
        for there in (place == i for i in range(BINS))
        if there.any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """The expected calibration error: the mean gap of predicted and observed, a text.

    >>> round(calibration_error([Bin(30, 0.9, 0.8), Bin(10, 0.2, 0.2)]), 3)
    0.075
    """
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.predicted - b.observed) for b in bins) / total


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer, whose outputs are the logits.

    Raises:
        ValueError: there is none that could be it.
    """
    count = model.config.num_labels
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == count]
    if not linear:
        raise ValueError(
            f"model: {type(model).__name__} has no linear layer of {count} outputs to put a "
            "temperature into. Give another --base."
        )
    return linear[-1]


@torch.no_grad()
def fold(model: Any, temperature: float, shift: float = 0.0) -> None:
    """Make the logits of `model` ``(logits - shift) / temperature``, by its last layer's weights.

    Any loader then gets calibrated probabilities. A `shift` needs that layer to have a bias, and is
    ignored where it has none.
    """
    head = head_of(model)
    head.weight.div_(temperature)
    if head.bias is not None:
        head.bias.sub_(shift).div_(temperature)
