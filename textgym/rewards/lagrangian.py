"""`Constraint`: a limit on what a reward says on average, kept by a Lagrange multiplier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward
from textgym.rewards.combine import Parts, as_part, exactly, part_values, scaled_range

# The weight of one episode in the running mean of violations.
_SHARE = 0.01


class Constraint(Reward):
    """Keeps the mean of a measure on one side of a limit, while other rewards are maximised.

    With violation v = value - limit (limit - value for `at_least`), an episode is paid -lambda v.
    The multiplier lambda begins at `start`, rises while the limit is broken and falls, to 0 at
    least, while it is kept with room to spare: `learning_rate` an episode and unit of violation.
    That is dual ascent, by steps that do not depend on how many episodes end at a time. By itself
    it lets policy and lambda circle around the optimum; `proportional` adds that much of the
    running mean of violations to lambda, so that both come to rest there.

    A batch is paid by the lambda from before it. Nothing is learnt while `learning` is False. By
    itself it is maximised by whatever is farthest on the right side of the limit, empty texts
    maybe: it belongs beside a reward that wants something. The limit holds for the mean over
    episodes, not for each.

    Written ``constraint(repetition; at_least=-0.1)``.

    Args:
        reward: the measure, such as toxicity or length.
        at_most: the limit, where the measure should not exceed it.
        at_least: the limit, where it should not fall below it.
        learning_rate: by which lambda grows for each episode and unit of violation.
        proportional: units of lambda for each unit of the running mean of violations.
        start: lambda at first.
        maximum: the greatest lambda.
        name: its name in `info["rewards"]`.

    Source: Tessler, Mankowitz, Mannor 2018, "Reward Constrained Policy Optimization"; Stooke,
    Achiam, Abbeel 2020, "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods".

    Example:
        >>> from textgym.rewards import Repetition
        >>> limit = Constraint(Repetition(), at_least=-0.25, start=2.0, maximum=10.0)
        >>> limit.multiplier, limit.range
        (2.0, (-7.5, 2.5))
    """

    def __init__(
        self,
        reward: Any,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        learning_rate: float = 1e-3,
        proportional: float = 1.0,
        start: float = 0.0,
        maximum: float = 100.0,
        name: str = "constraint",
    ) -> None:
        if (at_most is None) == (at_least is None):
            raise ValueError(
                "`Constraint` takes either `at_most` or `at_least`, got "
                f"at_most={at_most}, at_least={at_least}. Use `at_most=0.1`, for instance."
            )
        limit = at_least if at_most is None else at_most
        if limit is None or not math.isfinite(limit):
            raise ValueError(f"the limit must be a finite number, got {limit!r}.")
        if not (0.0 < learning_rate < math.inf and 0.0 <= proportional < math.inf):
            raise ValueError(
                "`learning_rate` must be above 0 and `proportional` at least 0, both finite, got "
                f"{learning_rate!r} and {proportional!r}."
            )
        if not 0.0 <= start <= maximum < math.inf:
            raise ValueError(
                "`start` must be at least 0 and at most `maximum`, which is finite, got "
                f"start={start!r}, maximum={maximum!r}."
            )
        self.reward = as_part(reward)
        self.parts = (self.reward,)
        self.limit, self.sign = float(limit), -1.0 if at_most is None else 1.0
        self.learning_rate, self.proportional = float(learning_rate), float(proportional)
        self.maximum, self.name = float(maximum), name
        self._ascended, self.violation, self.count = float(start), 0.0, 0
        kept = sorted(-self.sign * (end - self.limit) for end in self.reward.range)
        self.range = scaled_range((0.0, self.maximum), (kept[0], kept[1]))

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        learning_rate: float = 1e-3,
        proportional: float = 1.0,
        start: float = 0.0,
        maximum: float = 100.0,
        name: str = "constraint",
    ) -> Self:
        """``constraint(MEASURE; at_most=0.1)``."""
        (reward,) = exactly(parts, 1, "constraint(MEASURE; at_most=0.1)")
        return cls(
            reward,
            at_most=at_most,
            at_least=at_least,
            learning_rate=learning_rate,
            proportional=proportional,
            start=start,
            maximum=maximum,
            name=name,
        )

    @property
    def multiplier(self) -> float:
        """Lambda now."""
        now = self._ascended + self.proportional * self.violation
        return min(max(now, 0.0), self.maximum)

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, minus lambda times each violation."""
        violations = self.sign * (part_values(self.reward, episodes) - self.limit)
        paid = -self.multiplier * violations
        if self.learning:
            finished = np.array([e.finish_reason is not None for e in episodes], np.bool_)
            self._learn(violations[finished & np.isfinite(violations)])
        return paid.astype(np.float32)

    def _learn(self, violations: NDArray[np.float64]) -> None:
        if not len(violations):
            return
        ascended = self._ascended + self.learning_rate * float(violations.sum())
        self._ascended = min(max(ascended, 0.0), self.maximum)
        # A plain mean at first, over about the last 1 / _SHARE episodes later.
        self.count += len(violations)
        share = max(len(violations) / self.count, 1.0 - (1.0 - _SHARE) ** len(violations))
        self.violation += share * (float(violations.mean()) - self.violation)

    def figures(self) -> dict[str, float]:
        """Lambda, and the running mean of violations, which is above 0 where it is broken."""
        own = {"multiplier": self.multiplier, "violation": self.violation}
        return {**super().figures(), **own}

    def own_state(self) -> dict[str, Any]:
        """Lambda before the proportional part, the running mean and the episodes so far."""
        return {"ascended": self._ascended, "violation": self.violation, "count": self.count}

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Return to what `own_state` gave."""
        self._ascended, self.violation = float(state["ascended"]), float(state["violation"])
        self.count = int(state["count"])
