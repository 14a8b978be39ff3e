"""`FunctionReward`: any function of a batch of episodes, as a reward."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import near_matches
from textgym.rewards.base import Reward, RewardFunction


class FunctionReward(Reward):
    """A user's function as a reward.

    Args:
        function: takes a list of B episodes, returns B floats. Where it has an attribute
            `thread_safe` that is true, so is the reward.
        name: its name in `info["rewards"]`; that of the function by default, and ``"reward"`` for
            a lambda.
        range: the least and the greatest value it can give, where known.
        timeout: seconds that one call may take; None is no limit.

    Example:
        >>> brevity = FunctionReward(lambda episodes: [-len(e.completion_text) for e in episodes])
        >>> brevity.name
        'reward'
    """

    def __init__(
        self,
        function: RewardFunction,
        name: str | None = None,
        range: tuple[float, float] = (-float("inf"), float("inf")),
        timeout: float | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"`reward` must be a `Reward` or a function of episodes, got {function!r}."
            )
        own_name = getattr(function, "__name__", type(function).__name__)
        self.function = function
        self.name = name or ("reward" if own_name == "<lambda>" else own_name)
        self.range = range
        self.timeout = timeout
        self.thread_safe = bool(getattr(function, "thread_safe", False))

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, what the function returns; an array of its shape if that is not [B]."""
        return np.asarray(self.function(episodes), dtype=np.float32)


class PythonReward(FunctionReward):
    """What ``python:package.module:function`` and ``python:path/to/file.py:function`` name.

    Args:
        where: the module or file, and the name in it.
        function: what is found there, where it was loaded already.
    """

    def __init__(self, where: str, function: RewardFunction | None = None) -> None:
        super().__init__(load_attribute(where) if function is None else function)
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        # A function out of a file cannot be pickled; where it came from can.
        return (type(self), (self.where,))

    @classmethod
    def from_arguments(cls, text: str) -> Reward:  # type: ignore[override]
        """The `Reward`, or function of episodes, that `text` names.

        Raises:
            ValueError: where there is no such module, file or name (near matches are listed).
        """
        found = load_attribute(text)
        if isinstance(found, type) and issubclass(found, Reward):
            found = found()
        return found if isinstance(found, Reward) else cls(text, found)


def load_attribute(where: str) -> Any:
    """What ``package.module:name`` or ``path/to/file.py:name`` names.

    Raises:
        ValueError: where there is no such module, file or name (near matches are listed).
    """
    module_name, _, attribute = where.rpartition(":")
    if not module_name or not attribute:
        raise ValueError("expected `package.module:function` or `path/to/file.py:function`.")
    module = _load_module(module_name)
    if not hasattr(module, attribute):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ValueError(f"{module_name} has no {attribute!r}; {near_matches(attribute, names)}")
    return getattr(module, attribute)


def _load_module(where: str) -> Any:
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ValueError(f"no module {error.name!r}. Is it on the path?") from error
    path = Path(where)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"no such file: {where}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
