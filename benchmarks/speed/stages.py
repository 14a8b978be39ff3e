"""Where a token's time goes: a rollout and an epoch of PPO, stage by stage."""

from __future__ import annotations

from typing import Any

from speed.subjects import NEW_TOKENS, Subject, make_agent, rollout
from speed.timing import Clock
from textgym_agents.cli.profiling import to_json, watch_agent
from textgym_agents.stopwatch import Stopwatch


def stage_figures(subject: Subject, clock: Clock, repeats: int) -> dict[str, Any]:
    """Microseconds a token and the share of each stage, with a reference model and a reward."""
    large = subject.name == "gpt2"
    rows, episodes = (8, 1) if large else (64, 2)
    agent = make_agent(
        subject,
        rows,
        n_steps=episodes * NEW_TOKENS,
        kl=not large,
        rewards=["length:max=80"],
        batch_size=rows * NEW_TOKENS if large else 2048,
    )

    def one_round() -> None:
        rollout(agent)
        agent.train()

    one_round()
    watch = Stopwatch(clock.now)
    watch_agent(watch, agent)
    watch.start()
    for _ in range(repeats):
        one_round()
    watch.stop()
    return to_json(watch, repeats * agent.n_steps * rows) | {"rows": rows}
