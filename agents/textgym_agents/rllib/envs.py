"""TextGym's environments as RLlib wants them: one native vector environment for each env runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode, VectorEnv
from ray.tune.registry import register_env

from textgym.registration import REGISTRY, list_ids, make_env, make_vector_env
from textgym.wrappers import MaskObservation


def register_envs() -> None:
    """Make every registered id known to RLlib (``config.environment("textgym/Story-v0")``)."""
    for env_id in list_ids():
        register_env(env_id, _Creator(env_id))


class _Creator:
    """Makes what RLlib asks for: rows of a vector environment, or a single one."""

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id

    def __call__(self, context: Mapping[str, Any]) -> Any:
        keywords = dict(context)
        if "num_envs" in keywords:
            return make_rows(self.env_id, keywords.pop("num_envs"), keywords)
        return make_env(REGISTRY[self.env_id].task, **checked(keywords))


def make_rows(env_id: str, num_envs: int, keywords: Mapping[str, Any]) -> VectorEnv:
    """A `TokenVectorEnv` in the mode that RLlib reads rightly, with its masks in sight.

    Args:
        env_id: a registered id.
        num_envs: B, the rows.
        keywords: arguments of the task and of `TokenVectorEnv`.
    """
    rows = make_vector_env(REGISTRY[env_id].task, num_envs, **checked(keywords))
    # The attribute is absent where no mask applies.
    return MaskObservation(rows) if hasattr(rows, "action_masks") else rows


def checked(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """`keywords`, if RLlib can do with them.

    Raises:
        ValueError: for another autoreset mode than ``NEXT_STEP``, and for a limit of steps.
    """
    mode = keywords.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    name = getattr(mode, "name", str(mode)).upper()
    if name != AutoresetMode.NEXT_STEP.name:
        wrong = "takes the first observation of a new episode for the last of the old one"
        what = {"SAME_STEP": wrong, "DISABLED": "crashes at the first end of an episode"}
        raise ValueError(
            f"`autoreset_mode={name}`: RLlib {what.get(name, 'does not know it')}. Leave it out; "
            "NEXT_STEP is what it reads rightly."
        )
    if keywords.get("max_episode_steps") is not None:
        raise ValueError(
            "`max_episode_steps` cuts episodes without a record of them, and RLlib's learner here "
            "reads whole ones. Use `max_new_tokens`, which ends them with a score."
        )
    return dict(keywords)
