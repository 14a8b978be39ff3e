"""`Fallible`: what rewards have in common that depend on things that break: processes, services."""

from __future__ import annotations

import warnings

from textgym.episode import Episode
from textgym.errors import RewardWarning, short
from textgym.rewards.base import Reward


class Fallible(Reward):
    """A reward that pays `fallback` where it cannot judge, says so, and goes on.

    The first three failures are told one by one, as a `RewardWarning` that names the reward, the
    completion and the reason; later ones at the 10th, 100th and so on. All are counted.

    Attributes:
        fallback: what an episode is paid that could not be judged.
        failures: how many there have been.
    """

    fallback: float = 0.0
    failures: int = 0

    @property
    def keeps_time(self) -> bool:
        """True: it pays its fallback when its own time is up."""
        return True

    def failed(self, episode: Episode, reason: str) -> float:
        """Count and tell that `episode` could not be judged; returns what it is paid."""
        self.failures += 1
        if self.failures <= 3 or str(self.failures).rstrip("0") == "1":
            count = "" if self.failures <= 3 else f" ({self.failures} failures so far)"
            warnings.warn(
                f"reward `{self.name}` could not judge the completion "
                f"{short(episode.completion_text)}: {reason}. "
                f"It was paid {self.fallback:g}{count}.",
                RewardWarning,
                stacklevel=3,
            )
        return self.fallback

    def figures(self) -> dict[str, float]:
        """The number of failures."""
        return {**super().figures(), "failures": float(self.failures)}
