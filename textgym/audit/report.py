"""`audit`: what a reward pays for genuine texts, and for worthless ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.audit.probes import make_probes, words_of
from textgym.episode import Episode
from textgym.rewards.base import Reward
from textgym.rewards.terms import evaluate
from textgym.tokenization import Tokenizer

# At most so many samples are turned into worthless texts, by each probe.
_PROBED = 24
_FIRST_WORDS = 2000
_SEARCHED_WORDS = 100
_SEARCH_LENGTH = 6
_BEAM = 4
EXTREMES = 10


@dataclass(frozen=True)
class Finding:
    """What a reward pays for one kind of worthless text.

    Args:
        probe: the kind of text.
        means: what it means if the reward pays for it.
        mean: the mean reward.
        best: the greatest.
        text: the text that got it.
        percentile: the share of genuine samples, in [0, 1], that the mean lies above.
        suspicious: whether the mean is that of the better half of the genuine samples, and hardly
            less than the mean of the samples that the texts were made of.
    """

    probe: str
    means: str
    mean: float
    best: float
    text: str
    percentile: float
    suspicious: bool


@dataclass(frozen=True)
class Audit:
    """What there is to know of a reward before an agent learns from it.

    Args:
        name: the reward's.
        range: what it declares.
        rewards: `[N] float64`, of the samples.
        lengths: `[N] int64`, their completion tokens.
        best: the best-paid samples, best first, with their rewards.
        worst: the worst-paid ones, worst first.
        findings: one a probe, and one of the search.
        length_correlation: Spearman's, of reward and length; NaN where one is constant.
        problems: sentences on what is wrong with the reward itself.
    """

    name: str
    range: tuple[float, float]
    rewards: NDArray[np.float64]
    lengths: NDArray[np.int64]
    best: list[tuple[float, Episode]]
    worst: list[tuple[float, Episode]]
    findings: list[Finding]
    length_correlation: float
    problems: list[str]

    @property
    def on_length(self) -> str:
        """The rank correlation of reward and length, in words."""
        found = self.length_correlation
        if math.isnan(found):
            return "all texts have the same length or the same reward"
        much = ""
        if abs(found) > 0.5:
            much = " (length is paid)" if found > 0 else " (brevity is paid)"
        return f"rank correlation with length {found:+.2f}{much}"

    @property
    def spread(self) -> dict[str, float]:
        """Mean, standard deviation and quantiles of the samples' rewards."""
        quantiles = np.quantile(self.rewards, [0.0, 0.05, 0.5, 0.95, 1.0])
        names = ("least", "5%", "median", "95%", "greatest")
        found = {"mean": float(self.rewards.mean()), "sd": float(self.rewards.std())}
        return found | {n: float(q) for n, q in zip(names, quantiles, strict=True)}


def audit(
    reward: Reward, samples: Sequence[Episode], tokenizer: Tokenizer, *, seed: int = 0
) -> Audit:
    """Examine `reward`.

    Args:
        reward: any. It is asked for some thousand texts.
        samples: genuine episodes, of the model that is to learn; at least 2.
        tokenizer: the environment's, to make episodes of worthless texts.
        seed: of the choice of words and samples.

    Raises:
        ValueError: fewer than 2 samples.
    """
    if len(samples) < 2:
        raise ValueError(f"`samples` must hold at least 2 episodes, got {len(samples)}.")
    rng = np.random.default_rng(seed)
    reward.set_learning(False)
    judge = _Judge(reward)
    rewards = judge(samples)
    lengths = np.array([int(e.completion_mask.sum()) for e in samples])
    judge.compare_one_by_one(samples[:16], rewards[:16])
    chosen = [samples[i] for i in rng.permutation(len(samples))[:_PROBED]]
    before = judge(chosen)
    words = words_of(samples)
    findings = []
    for probe in make_probes():
        texts = [probe.make(e, rng, words) for e in chosen]
        episodes = [
            Episode.written(e.instance, text, tokenizer)
            for e, text in zip(chosen, texts, strict=True)
        ]
        values = judge(episodes)
        findings.append(_finding(probe.name, probe.hope, values, texts, before, rewards))
    findings.append(_search(judge, chosen, words, tokenizer, rng, rewards))
    order = np.argsort(-rewards, kind="stable")
    return Audit(
        name=reward.name,
        range=reward.range,
        rewards=rewards,
        lengths=lengths,
        best=[(float(rewards[i]), samples[i]) for i in order[:EXTREMES]],
        worst=[(float(rewards[i]), samples[i]) for i in order[::-1][:EXTREMES]],
        findings=findings,
        length_correlation=spearman(rewards, lengths),
        problems=[*judge.problems(), *_problems_of_spread(reward, rewards)],
    )


class _Judge:
    """Asks a reward, and notes what goes wrong."""

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self._failures: list[str] = []
        self._outside = 0
        self._unsteady = False

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float64]:
        values, error = evaluate(self.reward, self.reward.name, episodes)
        if error is not None:
            self._failures.append(str(error))
        low, high = self.reward.range
        slack = 1e-5 * max(1.0, abs(low) if np.isfinite(low) else 0.0)
        self._outside += int(((values < low - slack) | (values > high + slack)).sum())
        return values

    def compare_one_by_one(
        self, episodes: Sequence[Episode], together: NDArray[np.float64]
    ) -> None:
        """Note whether the reward of an episode depends on those it is judged with."""
        alone = np.array([self([episode])[0] for episode in episodes])
        self._unsteady |= not np.allclose(alone, together, rtol=1e-4, atol=1e-5)

    def problems(self) -> list[str]:
        """What went wrong, as sentences."""
        found = []
        if self._failures:
            found.append(f"It failed {len(self._failures)} times, first: {self._failures[0]}")
        if self._outside:
            low, high = self.reward.range
            found.append(
                f"It declares the range [{low:g}, {high:g}], and left it {self._outside} times."
            )
        if self._unsteady:
            found.append(
                "Judged one by one, the same texts are paid otherwise than together, or otherwise "
                "each time: what is learnt from it cannot be repeated."
            )
        return found


def _problems_of_spread(reward: Reward, rewards: NDArray[np.float64]) -> list[str]:
    found = []
    if rewards.std() < 1e-8:
        found.append(
            f"All samples are paid the same ({rewards[0]:g}): there is nothing to learn from. "
            "Start from a model that is sometimes paid more, or make the reward finer."
        )
        return found
    most = float((rewards >= reward.range[1] - 1e-6).mean())
    if most > 0.5:
        found.append(f"{most:.0%} of the samples are paid the most there is: little is left to do.")
    least = float((rewards <= reward.range[0] + 1e-6).mean())
    if least > 0.9:
        found.append(
            f"{least:.0%} of the samples are paid the least there is: the agent will seldom find "
            "what is wanted. Make the reward finer, or imitate some examples first."
        )
    return found


def _finding(
    name: str,
    means: str,
    values: NDArray[np.float64],
    texts: Sequence[str],
    before: NDArray[np.float64],
    rewards: NDArray[np.float64],
) -> Finding:
    top = int(values.argmax())
    mean = float(values.mean())
    spread = float(rewards.std())
    # As good as the better half of what is genuine, and no clear loss against the very texts that
    # it was made of.
    least = max(float(np.median(rewards)), float(before.mean()) - 0.25 * spread)
    suspicious = spread > 1e-8 and mean >= least - 1e-5 * spread
    return Finding(
        name,
        means,
        mean,
        float(values[top]),
        texts[top],
        float((rewards < mean).mean()),
        bool(suspicious),
    )


def _search(
    judge: _Judge,
    samples: Sequence[Episode],
    words: Sequence[str],
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    rewards: NDArray[np.float64],
) -> Finding:
    """The best string of a few words for one prompt, found word by word: a small attack."""
    instance = samples[0].instance
    # Those that are paid most when alone; the others would be tried in vain.
    single = [str(word) for word in rng.permutation(words)[:_FIRST_WORDS]]
    alone = judge([Episode.written(instance, word, tokenizer) for word in single])
    tried = [single[i] for i in np.argsort(-alone, kind="stable")[:_SEARCHED_WORDS]]
    beams: list[tuple[float, str]] = [(-np.inf, "")]
    best = beams[0]
    for _ in range(_SEARCH_LENGTH):
        texts = sorted({f"{text} {word}".strip() for _, text in beams for word in tried})
        values = judge([Episode.written(instance, text, tokenizer) for text in texts])
        order = np.argsort(-values, kind="stable")[:_BEAM]
        beams = [(float(values[i]), texts[i]) for i in order]
        if beams[0][0] <= best[0] + 1e-9:
            break
        best = beams[0]
    values = np.array([best[0]])
    means = "a few words put together by trial and error are paid like a good text"
    threshold = np.full(1, np.quantile(rewards, 0.95))
    return _finding("found by search", means, values, [best[1]], threshold, rewards)


def spearman(a: NDArray[np.floating], b: NDArray[np.integer]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one is constant.

    >>> spearman(np.array([0.1, 0.4, 0.2]), np.array([1, 9, 3]))
    1.0
    """
    ranks = [_ranks(a), _ranks(b)]
    if min(r.std() for r in ranks) == 0.0:
        return float("nan")
    return round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 9)


def _ranks(values: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)
