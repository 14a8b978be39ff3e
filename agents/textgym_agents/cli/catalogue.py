"""The registered environments."""

from __future__ import annotations

import inspect

from textgym.errors import near_matches
from textgym.registration import REGISTRY
from textgym_agents.cli.errors import CommandError


def check_id(env_id: str) -> str:
    """Return `env_id` if it is registered, else raise naming near matches."""
    if env_id in REGISTRY:
        return env_id
    raise CommandError(f"no environment {env_id!r}; {near_matches(env_id, REGISTRY)}")


def listing() -> list[dict[str, str]]:
    """One row per registered id, sorted: `id` and `summary`."""
    return [{"id": env_id, "summary": REGISTRY[env_id].summary} for env_id in sorted(REGISTRY)]


def takes(env_id: str, argument: str) -> bool:
    """Whether the task of `env_id` has `argument`."""
    return argument in inspect.signature(REGISTRY[env_id].task_class()).parameters
