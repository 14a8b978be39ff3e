"""What is aimed at, and whether the results say that it is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """A figure and its bound.

    Args:
        group: what it belongs to.
        what: in words.
        path: where the figure is: the name of a results file, then keys.
        bound: of the figure.
        most: the bound is the most, not the least.
        aim: better still.
        note: why not, where it is not reached.
    """

    group: str
    what: str
    path: tuple[str, ...]
    bound: float
    most: bool = False
    aim: float | None = None
    note: str = ""

    def figure(self, results: Results) -> float | None:
        """What was measured; None where nothing was."""
        value: Any = results
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def met(self, figure: float) -> bool:
        """Whether `figure` is within the bound."""
        return figure <= self.bound if self.most else figure >= self.bound


def _throughput(group: str, what: str, key: str, bound: float, **more: Any) -> Goal:
    return Goal(group, what, ("throughput", key), bound, **more)


_ROLLOUT = "Rollout over `generate`"
_UPDATE = "Update over bare"
_ENVIRONMENT = "Environment alone"
_SCORING = "Slow rewards"
_PEERS = "Against others"

GOALS = (
    _throughput(
        _ROLLOUT,
        "stories260k, 32 rows",
        "rollout_over_generate_32",
        1.7,
        aim=2.0,
        note="Runs give 1.66 to 1.73. The model's own operations take most of what is left.",
    ),
    _throughput(_ROLLOUT, "stories260k, 128 rows", "rollout_over_generate_128", 1.4, aim=1.7),
    _throughput(_ROLLOUT, "stories260k, 512 rows", "rollout_over_generate_512", 1.15, aim=1.4),
    _throughput(
        _ROLLOUT,
        "stories260k, rows that begin anew by themselves",
        "rollout_over_generate_ragged",
        1.2,
    ),
    _throughput(
        _ROLLOUT,
        "GPT-2 of 124 M, 8 rows",
        "gpt2_rollout_over_generate_8",
        1.2,
        note="Where MKL uses the whole processor, a step of a model of this size is its matrix "
        "products, which `generate` computes as well: what TextGym saves lies around them.",
    ),
    _throughput(_UPDATE, "stories260k, 2,048 tokens", "update_over_bare_2048", 0.95),
    _throughput(_UPDATE, "stories260k, 4,096 tokens", "update_over_bare_4096", 0.95),
    _throughput(_UPDATE, "bundled, 2,048 tokens", "bundled_update_over_bare_2048", 0.95),
    _throughput(_UPDATE, "bundled, 4,096 tokens", "bundled_update_over_bare_4096", 0.95),
    _throughput(_UPDATE, "GPT-2 of 124 M, 2,048 tokens", "gpt2_update_over_bare_2048", 0.95),
    _throughput(_UPDATE, "share of padding at 2,048 tokens", "padding_2048", 0.1, most=True),
    _throughput(
        "A whole round",
        "of 4 epochs over the sum of its bare parts, stories260k",
        "round_over_parts",
        1.15,
        most=True,
    ),
    _throughput(
        "A whole round",
        "of 4 epochs over the sum of its bare parts, bundled",
        "bundled_round_over_parts",
        1.15,
        most=True,
    ),
    Goal(
        _PEERS,
        "TRL's time to the reward over PPO's",
        ("peers", "summary", "trl_over_ppo"),
        1.3,
        note="A token costs PPO less than TRL, but it needs more of them: its critic has to learn "
        "first what a group of texts to one prompt tells at once.",
    ),
    Goal(_PEERS, "the same over GRPO's here", ("peers", "summary", "trl_over_grpo"), 1.3),
    Goal(
        _PEERS,
        "PPO over a loop that reads every prefix",
        ("peers", "summary", "ppo_over_prefixes"),
        50.0,
        note="Contexts of Story are short; what is read again grows with their length.",
    ),
    _throughput(
        _ENVIRONMENT,
        "tokens/s at 1,024 rows",
        "env_tokens_per_s",
        2e6,
        note="Three runs on the same machine within hours gave 1.87, 2.06 and 2.08 million.",
    ),
    _throughput(_ENVIRONMENT, "with a score of the text", "env_scored_tokens_per_s", 5e5),
    _throughput(_ENVIRONMENT, "steps/s of a single one", "single_env_steps_per_s", 6e4),
    _throughput(
        _ENVIRONMENT,
        "a step at 64 to 4,096 tokens of context: the dearest over the first",
        "env_step_growth",
        1.1,
        most=True,
    ),
    Goal(
        "Masks",
        "memory of MaskablePPO over PPO at 50,257 actions",
        ("masks", "peak_ratio"),
        1.3,
        most=True,
    ),
    Goal(
        _SCORING,
        "speed kept beside a reward of 20 ms a text, rows that begin anew by themselves",
        ("async_scoring", "bundled_ragged", "async_share"),
        0.8,
    ),
    Goal(
        _SCORING,
        "the same, rows in lockstep",
        ("async_scoring", "bundled_lockstep", "async_share"),
        0.8,
        note="In lockstep all texts of the last episode end with the rollout, and nothing is left "
        "to do but wait for their scores.",
    ),
)


def number(value: float) -> str:
    """For a table: three digits that matter, and commas.

    >>> [number(v) for v in (0.0712, 1.734, 56.25, 1758327.3)]
    ['0.07', '1.73', '56.2', '1,758,000']
    """
    if value >= 1000:
        digits = max(0, len(str(int(value))) - 4)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def goals_table(results: Results, goals: tuple[Goal, ...] = GOALS) -> str:
    """Every goal with its figure, and why not where it is not reached."""
    lines = ["| goal | | asked for | measured | reached |", "|---|---|---|---|---|"]
    notes = []
    group = ""
    for goal in goals:
        figure = goal.figure(results)
        asked = f"{'at most' if goal.most else 'at least'} {number(goal.bound)}"
        asked += f", aiming at {number(goal.aim)}" if goal.aim else ""
        if figure is None:
            shown, verdict = "not measured", "-"
        else:
            shown, verdict = number(figure), "yes" if goal.met(figure) else "**no**"
            if not goal.met(figure):
                notes.append(f"- {goal.group}, {goal.what}: {goal.note or _MISSED}")
        first = "" if goal.group == group else goal.group
        lines.append(f"| {first} | {goal.what} | {asked} | {shown} | {verdict} |")
        group = goal.group
    if notes:
        lines += ["", "Not reached:", "", *notes]
    return "\n".join(lines)


_MISSED = "see the load of the machine above first, then the section below."
