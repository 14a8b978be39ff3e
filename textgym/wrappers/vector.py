"""What every vector wrapper here is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper
from numpy.typing import NDArray

from textgym.envs.contexts import Observation

if TYPE_CHECKING:
    # Observations and actions of a token environment, inside and out.
    _OfTokens = VectorWrapper[
        Observation, NDArray[np.int64], Observation, NDArray[np.int64], NDArray[Any]
    ]
    # Of any, for wrappers that change them.
    _OfAny = VectorWrapper[Any, Any, Any, Any, Any]
else:
    _OfTokens = _OfAny = VectorWrapper  # that of Gymnasium 1.2 cannot be subscripted when run


class _Declared:
    """Declares the autoreset mode as the environment does: Gymnasium forwards no attributes."""

    unwrapped: Any

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """How rows that ended begin anew."""
        mode: AutoresetMode = self.unwrapped.autoreset_mode
        return mode


class TokenVectorWrapper(_Declared, _OfTokens):
    """Around a vector token environment whose observations and actions stay as they are."""


class AnyVectorWrapper(_Declared, _OfAny):
    """Around any vector environment, to change what is observed or done."""
