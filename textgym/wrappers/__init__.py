"""Wrappers for token environments, single and vector."""

from textgym.wrappers.add_reward import (
    AddReward,
    ReplaceReward,
    SingleAddReward,
    SingleReplaceReward,
    VectorAddReward,
    VectorReplaceReward,
    reward_terms_of,
)
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
    "ReplaceReward",
    "SingleAddReward",
    "SingleMaskObservation",
    "SingleReplaceReward",
    "VectorAddReward",
    "VectorMaskObservation",
    "VectorReplaceReward",
    "ended",
    "get_state",
    "reward_terms_of",
    "set_state",
]
