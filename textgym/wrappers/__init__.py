"""Wrappers for token environments, single and vector."""

from textgym.wrappers.add_reward import AddReward, SingleAddReward, VectorAddReward
from textgym.wrappers.ending import ended
from textgym.wrappers.mask_observation import (
    MaskObservation,
    SingleMaskObservation,
    VectorMaskObservation,
)
from textgym.wrappers.snapshots import get_state, set_state

__all__ = [
    "AddReward",
    "MaskObservation",
    "SingleAddReward",
    "SingleMaskObservation",
    "VectorAddReward",
    "VectorMaskObservation",
    "ended",
    "get_state",
    "set_state",
]
