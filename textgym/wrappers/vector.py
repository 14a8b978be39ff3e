"""`VectorWrapper` with its types: that of Gymnasium 1.2 cannot be subscripted when run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray

from textgym.envs.contexts import Observation

if TYPE_CHECKING:
    # Observations and actions of a token environment, inside and out.
    TokenVectorWrapper = VectorWrapper[
        Observation, NDArray[np.int64], Observation, NDArray[np.int64], NDArray[Any]
    ]
    # Of any, for wrappers that change them.
    AnyVectorWrapper = VectorWrapper[Any, Any, Any, Any, Any]
else:
    TokenVectorWrapper = AnyVectorWrapper = VectorWrapper
