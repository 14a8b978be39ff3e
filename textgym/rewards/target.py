"""`Target`: reward a completion for how close it is to its target, by any metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.metrics import find_metric
from textgym.rewards.base import Reward


def targets_of(episode: Episode, reward: str) -> tuple[str, ...]:
    """The targets of an episode: ``instance.data["targets"]`` where it has some, else its target.

    Args:
        episode: the episode.
        reward: the name of the reward that asks, for the message.

    Raises:
        ValueError: where there is none.
    """
    instance = episode.instance
    several = instance.data.get("targets")
    if isinstance(several, list | tuple) and several and all(isinstance(t, str) for t in several):
        return tuple(several)
    if instance.target is None:
        raise ValueError(
            f"the reward `{reward}` compares with a target, and the instance of the prompt "
            f"{instance.prompt[:80]!r} has none. Use a task that gives targets, or "
            '`options={"instance": Instance(prompt, target)}`.'
        )
    return (instance.target,)


class Target(Reward):
    """How close the completion is to the target of its instance, by a metric of `textgym.metrics`.

    Both are compared without white space at either end. Where an instance has several targets
    (``data["targets"]``, as those of `DatasetTask`), the closest counts. The target itself
    maximises it: 1 by every metric but `meteor`, whose greatest value depends on its length.

    Args:
        metric: a key of `textgym.metrics.METRICS`. As a specification its name alone will do:
            ``chrf`` is ``target:chrf``.
        name: its name in `info["rewards"]`; that of the metric by default.

    Raises:
        TypeError: an unknown metric (near matches are listed).
        ImportError: the metric needs a library that is not installed.
        ValueError: later, an episode without a target.

    Example:
        >>> Target("rouge_l").value("a c", ["b", "a b c"])
        0.8
    """

    range = (0.0, 1.0)

    def __init__(self, metric: str, *, name: str | None = None) -> None:
        self.metric = find_metric(metric)
        self.metric("a", "a")  # What it needs is loaded, or missed, now and not in mid-episode.
        self.name = name or metric

    def value(self, text: str, targets: Sequence[str]) -> float:
        """The reward of the completion `text` where any of `targets` is right."""
        return max(self.metric(text.strip(), target.strip()) for target in targets)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        values = [self.value(e.completion_text, targets_of(e, self.name)) for e in episodes]
        return np.array(values, np.float32)
