"""Scores that compare across environments: normalised by reference returns, with intervals.

    >>> import numpy as np
    >>> from textgym.scoring import Estimate, Reference, normalized
    >>> reference = Reference(random=Estimate.exact(0.2), oracle=Estimate.exact(1.0))
    >>> round(normalized(0.6, reference), 3)
    0.5

With an id in place of a reference, `references` supplies what was measured for it.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgym.errors import check_known, check_positive_int

Statistic = Callable[[NDArray[np.float64]], Any]

ANCHORS = ("random", "bundled", "oracle", "optimal")


@dataclass(frozen=True)
class Estimate:
    """A mean return and how far it is known.

    Args:
        mean: over the episodes.
        low, high: its 95% interval.
        episodes: how many it was measured on; 0 for what is known exactly.
    """

    mean: float
    low: float
    high: float
    episodes: int

    @classmethod
    def exact(cls, value: float) -> Self:
        """What is computed and not measured."""
        return cls(value, value, value, 0)

    @classmethod
    def of(cls, returns: ArrayLike, rng: np.random.Generator) -> Self:
        """The mean of `returns`, `[n]`, with its percentile bootstrap interval."""
        values = _checked(returns)
        low, high = bootstrap_interval(values, rng)
        return cls(float(values.mean()), low, high, len(values))


@dataclass(frozen=True)
class Reference:
    """What known policies score in an environment, at one level; None where that is not known.

    Args:
        random: uniformly random tokens.
        bundled: the bundled language model, sampled at temperature 1.
        oracle: the task's own, which may see what is hidden from the agent.
        optimal: the best that an agent can do, where `textgym.exact` computes it.
        level: of difficulty.
        seed: of the episodes, which are of the test split.
        versions: of packages, and hashes of the tokenizer and of the bundled model's weights.
        notes: why one of them is missing, by its name.
    """

    random: Estimate | None = None
    bundled: Estimate | None = None
    oracle: Estimate | None = None
    optimal: Estimate | None = None
    level: int = 1
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The reference that `to_json` wrote."""
        found = {name: record.get(name) for name in ANCHORS}
        return cls(
            **{name: Estimate(**value) if value else None for name, value in found.items()},
            level=record["level"],
            seed=record["seed"],
            versions=MappingProxyType(dict(record["versions"])),
            notes=MappingProxyType(dict(record["notes"])),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        found = {name: getattr(self, name) for name in ANCHORS}
        return {
            **{name: vars(value).copy() if value else None for name, value in found.items()},
            "level": self.level,
            "seed": self.seed,
            "versions": dict(self.versions),
            "notes": dict(self.notes),
        }


@lru_cache(maxsize=1)
def references() -> Mapping[str, Reference]:
    """The reference returns that `benchmarks/references.py` measured, by id.

    >>> references()["textgym/Story-v0"].oracle.mean
    1.0
    """
    file = importlib.resources.files("textgym") / "embedded" / "references.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    return MappingProxyType({id: Reference.from_json(record) for id, record in records.items()})


@overload
def normalized(score: float, reference: str | Reference) -> float: ...
@overload
def normalized(
    score: Sequence[float] | NDArray[Any], reference: str | Reference
) -> NDArray[np.float64]: ...
def normalized(
    score: float | Sequence[float] | NDArray[Any], reference: str | Reference
) -> float | NDArray[np.float64]:
    """``(score - random) / (oracle - random)``: 0 is a random policy's, 1 the oracle's.

    Args:
        score: one return, or `[...]` returns.
        reference: an id, for its measured `references`; or another `Reference` (of a harder
            level, or for an environment of one's own).

    Raises:
        TypeError: no such id; lists near matches.
        ValueError: the random or the oracle's return is not known, or they do not differ.
    """
    name, known = "this reference", reference
    if isinstance(known, str):
        check_known("id", [known], references())
        name, known = known, references()[known]
    random, oracle = known.random, known.oracle
    if random is None or oracle is None:
        missing = "random" if random is None else "oracle"
        reason = known.notes.get(missing)
        raise ValueError(
            f"{name} has no {missing} return{f' ({reason})' if reason else ''}, so scores cannot "
            "be normalised by it. Pass a `Reference` with both."
        )
    if not oracle.mean > random.mean:
        raise ValueError(
            f"{name}: the oracle's return ({oracle.mean}) must be above the random one "
            f"({random.mean}) to normalise by them."
        )
    values = np.asarray(score, dtype=np.float64)
    result = (values - random.mean) / (oracle.mean - random.mean)
    return float(result) if values.ndim == 0 else result


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half: a quarter of `values`, rounded down, is left out at each end.

    Source: Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice,
    2021.

    >>> interquartile_mean([0.0, 0.4, 0.6, 100.0])
    0.5
    """
    return float(interquartile_means(_checked(values)))


def interquartile_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`interquartile_mean` over the last axis, `[..., n]` to `[...]`, of many samples at once."""
    count = values.shape[-1]
    cut = count // 4
    middle = np.sort(values, axis=-1)[..., cut : count - cut]
    return np.asarray(middle.mean(axis=-1))


def bootstrap_interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: Statistic = np.mean,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic.

    Args:
        values: `[n]`, independent: one an episode, or one a run.
        rng: draws the resamples, `n` of `values` with replacement each.
        statistic: from `[n] float64` to a number: `np.mean`, `interquartile_mean`, ...
        resamples: how many are drawn.
        confidence: probability to be covered, in (0, 1).

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.

    >>> bootstrap_interval([0.5, 0.5, 0.5], np.random.default_rng(0))
    (0.5, 0.5)
    """
    data = _checked(values)
    check_positive_int("resamples", resamples)
    count = len(data)
    found = [float(statistic(data[rng.integers(count, size=count)])) for _ in range(resamples)]
    low, high = percentile_interval(found, confidence)
    return float(low), float(high)


def percentile_interval(found: ArrayLike, confidence: float) -> NDArray[np.float64]:
    """The ends of what is left of `found` over its last axis, the tails cut: `[2, ...]`.

    Args:
        found: `[..., resamples]`, a statistic of each resample.
        confidence: the share to be kept, in (0, 1).

    Raises:
        ValueError: such a share there is not.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be between 0 and 1, got {confidence!r}. Use 0.95.")
    tail = (1.0 - confidence) / 2.0
    return np.quantile(np.asarray(found, np.float64), [tail, 1.0 - tail], axis=-1)


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"`values` must be a list of at least one number, got shape {array.shape}."
        )
    for place in np.flatnonzero(~np.isfinite(array))[:1]:
        raise ValueError(f"`values` must be finite, got {array[place]} at place {place}.")
    return array
