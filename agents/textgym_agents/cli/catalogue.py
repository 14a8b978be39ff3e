"""The registered environments and rewards."""

from __future__ import annotations

import inspect

from textgym.errors import near_matches
from textgym.metrics import METRICS
from textgym.registration import REGISTRY
from textgym.rewards.specs import OWN, known_rewards, reward_class
from textgym_agents.cli.errors import CommandError


def check_id(env_id: str) -> str:
    """Return `env_id` if it is registered, else raise naming near matches."""
    if env_id in REGISTRY:
        return env_id
    # Those of other packages are named only to those who ask for one: they are many.
    known = [i for i, row in REGISTRY.items() if not row.bridged or "." in env_id]
    raise CommandError(f"no environment {env_id!r}; {near_matches(env_id, known)}")


def listing() -> list[dict[str, str]]:
    """One row per registered id, sorted: `id` and `summary`."""
    return [{"id": env_id, "summary": REGISTRY[env_id].summary} for env_id in sorted(REGISTRY)]


def short_listing() -> list[dict[str, str]]:
    """As `listing`, with one row for all that come through the same bridge."""
    bridges: dict[str, list[str]] = {}
    for env_id in sorted(REGISTRY):
        if REGISTRY[env_id].bridged:
            bridges.setdefault(env_id.partition(".")[0], []).append(env_id)
    own = [row for row in listing() if not REGISTRY[row["id"]].bridged]
    for start, ids in bridges.items():
        extra = REGISTRY[ids[0]].extra
        summary = f'{len(ids)} of {extra} (`pip install "textgym[{extra}]"`); see `list --all`.'
        own.append({"id": f"{start}.*-v0", "summary": summary})
    return sorted(own, key=lambda row: row["id"])


def takes(env_id: str, argument: str) -> bool:
    """Whether the task of `env_id` has `argument`."""
    return argument in inspect.signature(REGISTRY[env_id].task_class()).parameters


def demonstrates(env_id: str) -> bool:
    """Whether the task of `env_id` can show how it is done: by an oracle, or by its targets."""
    from textgym import Task

    return REGISTRY[env_id].task_class().solve is not Task.solve


def reward_lines() -> list[str]:
    """A line for each reward that a specification may name."""
    summaries = {name: _reward_summary(name) for name in known_rewards()}
    width = max(map(len, summaries))
    return [f"{name:{width}}  {summary}" for name, summary in summaries.items()]


def reward_page(name: str) -> list[str]:
    """The documentation of a reward: how it is written, its arguments, what maximises it.

    Raises:
        ValueError: there is none of that name (near matches are listed), or a package is missing.
    """
    if name not in known_rewards():
        raise ValueError(f"unknown reward {name!r}; {near_matches(name, known_rewards())}")
    found = reward_class(name)
    return [f"{name}: {found.__module__}.{found.__name__}", "", inspect.getdoc(found) or ""]


def _reward_summary(name: str) -> str:
    if name in METRICS:
        return (inspect.getdoc(METRICS[name]) or "").partition("\n")[0]
    if name in OWN:  # the others may take seconds to import
        return (inspect.getdoc(reward_class(name)) or "").partition("\n")[0]
    return "needs the agents: see `textgym rewards " + name + "`"
