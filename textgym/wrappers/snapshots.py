"""`get_state` and `set_state`: an environment with all its wrappers, at any prefix.

For tree search, branching rollouts and resuming.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import numpy as np

# What a foreign wrapper remembers, as against what it is made of.
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.ndarray)
_NOT_STATE = frozenset({"env", "_saved_kwargs"})


def get_state(env: Any) -> dict[str, Any]:
    """The state of `env` and of every wrapper around it, as plain data that can be pickled.

    Gymnasium's own wrappers are taken by their plain attributes (the steps that `TimeLimit` has
    counted, the returns that `RecordEpisodeStatistics` adds up).

    Args:
        env: a token environment, single or vector, wrapped or not.
    """
    layers: list[dict[str, Any]] = []
    while env is not env.unwrapped:
        layers.append({"wrapper": type(env).__qualname__, "state": _own_state(env)})
        env = env.env
    return {"wrappers": layers, "env": env.get_state()}


def set_state(env: Any, state: dict[str, Any]) -> None:
    """Return `env` and its wrappers to what `get_state` gave, here or in another made alike.

    Raises:
        ValueError: where `env` is wrapped otherwise.
    """
    here, layer = [], env
    while layer is not layer.unwrapped:
        here.append(layer)
        layer = layer.env
    names = [type(wrapper).__qualname__ for wrapper in here]
    expected = [entry["wrapper"] for entry in state["wrappers"]]
    if names != expected:
        raise ValueError(
            f"the state is of an environment wrapped in {expected}, but this one has {names}, from "
            "the outside in. Wrap both alike."
        )
    layer.set_state(state["env"])
    for wrapper, entry in zip(here, state["wrappers"], strict=True):
        _set_own_state(wrapper, entry["state"])


class Snapshots:
    """Gives a wrapper the methods `get_state` and `set_state`, for the whole stack below it."""

    def get_state(self) -> dict[str, Any]:
        """The state of this environment with all its wrappers."""
        return get_state(self)

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to what `get_state` gave."""
        set_state(self, state)


def _own_state(wrapper: Any) -> dict[str, Any]:
    if hasattr(wrapper, "own_state"):
        own: dict[str, Any] = wrapper.own_state()
        return own
    return {
        name: copy.deepcopy(value)
        for name, value in vars(wrapper).items()
        if name not in _NOT_STATE and _is_plain(value)
    }


def _set_own_state(wrapper: Any, state: dict[str, Any]) -> None:
    if hasattr(wrapper, "set_own_state"):
        wrapper.set_own_state(state)
    else:
        vars(wrapper).update(copy.deepcopy(state))


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | deque):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, _PLAIN)
