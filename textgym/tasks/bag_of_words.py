"""`BagOfWords`: a text classifier of one and two words in a row, fitted with numpy alone."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[\w']+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of `text`, in lower case.

    >>> words_of("It's GOOD, really.")
    ["it's", 'good', ',', 'really', '.']
    """
    return _WORD.findall(text.lower())


def pairs_of(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each two neighbouring words."""
    return itertools.pairwise(words)


class BagOfWords:
    """P(positive | text) = sigmoid(bias + the sum of the weights of its features).

    The features are the distinct words of a text and the distinct pairs of neighbours.

    Args:
        weights: that of each feature; all others weigh nothing.
        bias: of the empty text.

    Example:
        >>> model = BagOfWords.fit(["so good", "very good", "so bad", "not good"], [1, 1, 0, 0])
        >>> model.probability("good") > 0.5 > model.probability("bad")
        True
    """

    def __init__(self, weights: dict[str, float], bias: float = 0.0) -> None:
        self.weights = weights
        self.bias = bias

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: Sequence[float],
        *,
        l2: float = 1.0,
        min_count: int = 1,
        steps: int = 150,
    ) -> Self:
        """Logistic regression with an L2 penalty on the weights, by accelerated full-batch descent.

        Args:
            texts: `[N]` of them.
            labels: `[N]` P(positive) of each: 0 or 1, or in between where opinions differ.
            l2: minimised is the sum of the texts' losses, plus `l2` / 2 times that of the squared
                weights.
            min_count: the number of texts a feature must be in.
            steps: of the descent.

        Returns:
            The same for the same data.
        """
        bags = [_features(words_of(text)) for text in texts]
        counts = Counter(feature for bag in bags for feature in bag)
        index = {
            feature: i
            for i, feature in enumerate(f for f, count in counts.items() if count >= min_count)
        }
        columns = [index[feature] for bag in bags for feature in bag if feature in index]
        lengths = [sum(feature in index for feature in bag) for bag in bags]
        matrix = _Sparse(np.array(columns, np.int64), np.array(lengths, np.int64), len(index))
        weights, bias = _descend(matrix, np.asarray(labels, np.float64), l2, steps)
        return cls(dict(zip(index, weights.tolist(), strict=True)), bias)

    def logit(self, text: str) -> float:
        """The log odds of `text` being positive."""
        get = self.weights.get
        return self.bias + sum(get(feature, 0.0) for feature in _features(words_of(text)))

    def probability(self, text: str) -> float:
        """P(positive | text)."""
        return 1 / (1 + math.exp(-min(max(self.logit(text), -30.0), 30.0)))

    def accuracy(self, texts: Sequence[str], labels: Sequence[float]) -> float:
        """The share of `texts` that are put on the side of one half where their label is."""
        right = [
            (self.logit(text) > 0) == (label > 0.5)
            for text, label in zip(texts, labels, strict=True)
        ]
        return sum(right) / len(right)


class _Sparse:
    """A `[N, F]` matrix of zeros and ones, by the columns of the ones of each row."""

    def __init__(
        self, columns: NDArray[np.int64], lengths: NDArray[np.int64], num_columns: int
    ) -> None:
        self.columns = columns
        self.rows = np.repeat(np.arange(len(lengths)), lengths)
        self.num_rows, self.num_columns = len(lengths), num_columns

    def times(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(self.rows, vector[self.columns], self.num_rows).astype(np.float64)

    def transposed_times(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(self.columns, vector[self.rows], self.num_columns).astype(np.float64)


def _features(words: Sequence[str]) -> dict[str, None]:
    """In order of appearance: sums over a set would differ from process to process."""
    return dict.fromkeys([*words, *map(" ".join, pairs_of(words))])


def _descend(
    matrix: _Sparse, labels: NDArray[np.float64], l2: float, steps: int
) -> tuple[NDArray[np.float64], float]:
    """Nesterov's accelerated gradient descent on the weights and the bias."""
    # Each weight has a step of its own: by Cauchy-Schwarz the loss curves no more than a diagonal
    # matrix does, whose entries are a quarter of the features, the bias among them, of all texts
    # that have the feature.
    sizes = matrix.times(np.ones(matrix.num_columns)) + 1
    curvature = matrix.transposed_times(sizes) / 4 + l2
    bias_curvature = float(sizes.sum()) / 4
    here = ahead = np.zeros(matrix.num_columns)
    bias = bias_ahead = 0.0
    for step in range(steps):
        odds = matrix.times(ahead) + bias_ahead
        errors = 1 / (1 + np.exp(-odds)) - labels
        gradient = matrix.transposed_times(errors) + l2 * ahead
        there = ahead - gradient / curvature
        bias_there = bias_ahead - float(errors.sum()) / bias_curvature
        momentum = step / (step + 3)
        ahead = there + momentum * (there - here)
        bias_ahead = bias_there + momentum * (bias_there - bias)
        here, bias = there, bias_there
    return here, bias
