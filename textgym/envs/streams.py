"""`InstanceStreams`: which instance each row is given next, by seed and position or by options."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Instance
from textgym.errors import check_known
from textgym.seeding import Split, fresh_seed, instance_rng
from textgym.tasks.base import Task

Seed = int | Sequence[int | None] | None

_OPTIONS = ("instance", "prompt", "index", "reset_mask")


class InstanceStreams:
    """One stream of instances a row: `SeedSequence((seed, split, row, index))`.

    Args:
        task: draws the instances.
        split: which half of them.
        num_envs: B.
    """

    def __init__(self, task: Task, split: Split, num_envs: int) -> None:
        self.task = task
        self.split = split
        self.num_envs = num_envs
        self._seeds: list[int] | None = None
        self._rows = list(range(num_envs))
        self._indices = [0] * num_envs

    def seed(self, seed: Seed, rows: Sequence[int]) -> None:
        """Seed `rows` afresh; None keeps a row where it is (or seeds it from the system)."""
        if self._seeds is None:
            self._seeds = [fresh_seed()] * self.num_envs
        if seed is None:
            return
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
            if len(seed) != self.num_envs:
                raise ValueError(
                    f"`seed` must be an int or a list of {self.num_envs} (one per row), "
                    f"got {len(seed)}."
                )
            checked = [None if s is None else _check_seed(s) for s in seed]
            for row in rows:
                one = checked[row]
                if one is not None:  # a row with a seed of its own sees what a single env sees
                    self._seeds[row], self._rows[row], self._indices[row] = one, 0, 0
            return
        number = _check_seed(seed)
        for row in rows:
            self._seeds[row], self._rows[row], self._indices[row] = number, row, 0

    def draw(self, row: int) -> Instance:
        """The next instance of `row`."""
        if self._seeds is None:
            self._seeds = [fresh_seed()] * self.num_envs
        rng = instance_rng(self._seeds[row], self.split, self._rows[row], self._indices[row])
        self._indices[row] += 1
        return self.task.draw(rng, self.split)

    def seek(self, row: int, index: int) -> None:
        """Let `row` draw episode `index` of its stream next."""
        self._indices[row] = index

    def get_state(self) -> dict[str, Any]:
        """Where every row stands in its stream."""
        seeds = None if self._seeds is None else list(self._seeds)
        return {"seeds": seeds, "rows": list(self._rows), "indices": list(self._indices)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to where `get_state` was called."""
        self._seeds = None if state["seeds"] is None else list(state["seeds"])
        self._rows, self._indices = list(state["rows"]), list(state["indices"])


def reset_rows(options: Mapping[str, Any] | None, num_envs: int) -> list[int]:
    """The rows that `options` asks to reset: those of `reset_mask`, or all."""
    check_known("reset option", options or (), _OPTIONS)
    if not options or "reset_mask" not in options:
        return list(range(num_envs))
    mask: NDArray[np.bool_] = np.asarray(options["reset_mask"])
    if mask.dtype != np.bool_ or mask.shape != (num_envs,) or not mask.any():
        raise ValueError(
            f"`options['reset_mask']` must be a bool array of shape ({num_envs},) with at least "
            f"one True, got {options['reset_mask']!r}."
        )
    rows: list[int] = np.flatnonzero(mask).tolist()
    return rows


def chosen_instances(
    options: Mapping[str, Any] | None, rows: Sequence[int], streams: InstanceStreams
) -> list[Instance]:
    """One instance for each of `rows`: what `options` fixes, else the next of its stream.

    `options` holds at most one of `instance`, `prompt` and `index`; each is one value for all
    rows or a list of one per row of the env.
    """
    given = [key for key in ("instance", "prompt", "index") if key in (options or {})]
    if len(given) > 1:
        raise ValueError(f"`options` may hold one of `instance`, `prompt`, `index`, got {given}.")
    if not options or not given:
        return [streams.draw(row) for row in rows]
    key, value = given[0], options[given[0]]
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        if len(value) != streams.num_envs:
            raise ValueError(
                f"`options[{key!r}]` must be one value or a list of {streams.num_envs} (one per "
                f"row), got {len(value)}."
            )
        values = [value[row] for row in rows]
    else:
        values = [value] * len(rows)
    choose = _CHOOSE[key]
    return [choose(streams, row, v) for row, v in zip(rows, values, strict=True)]


def _by_instance(streams: InstanceStreams, row: int, value: object) -> Instance:
    if not isinstance(value, Instance):
        raise TypeError(
            f"`options['instance']` must be an `Instance`, got {type(value).__name__}. "
            "Use `options['prompt']` for a text."
        )
    return value


def _by_prompt(streams: InstanceStreams, row: int, value: object) -> Instance:
    if not isinstance(value, str):
        raise TypeError(f"`options['prompt']` must be a str, got {type(value).__name__}.")
    return streams.task.from_prompt(value)


def _by_index(streams: InstanceStreams, row: int, value: Any) -> Instance:
    index = _check_seed(value, name="options['index']")
    streams.seek(row, index)
    return streams.draw(row)


_CHOOSE: dict[str, Callable[[InstanceStreams, int, Any], Instance]] = {
    "instance": _by_instance,
    "prompt": _by_prompt,
    "index": _by_index,
}


def _check_seed(value: Any, name: str = "seed") -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"`{name}` must be a non-negative int, got {value!r}.")
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"`{name}` must be a non-negative int, got {number}.")
    return number
