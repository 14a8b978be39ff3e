"""Wrappers for token environments, single and vector."""

from textgym.wrappers.add_reward import (
    AddReward,
    ReplaceReward,
    SingleAddReward,
    SingleReplaceReward,
    VectorAddReward,
    VectorReplaceReward,
    reward_payers_of,
    reward_terms_of,
)
from textgym.wrappers.completion_actions import CompletionActions, CompletionSpace
from textgym.wrappers.ending import ended
from textgym.wrappers.flat_observation import (
    FlatObservation,
    SingleFlatObservation,
    VectorFlatObservation,
)
from textgym.wrappers.mask_observation import (
    MaskObservation,
    SingleMaskObservation,
    VectorMaskObservation,
)
from textgym.wrappers.masked_actions import (
    MaskedActions,
    SingleMaskedActions,
    VectorMaskedActions,
)
from textgym.wrappers.remaining_budget import (
    RemainingBudget,
    SingleRemainingBudget,
    VectorRemainingBudget,
)
from textgym.wrappers.snapshots import get_state, set_state
from textgym.wrappers.text_observation import (
    SingleTextObservation,
    TextObservation,
    UnicodeText,
    VectorTextObservation,
)

__all__ = [
    "AddReward",
    "CompletionActions",
    "CompletionSpace",
    "FlatObservation",
    "MaskObservation",
    "MaskedActions",
    "RemainingBudget",
    "ReplaceReward",
    "SingleAddReward",
    "SingleFlatObservation",
    "SingleMaskObservation",
    "SingleMaskedActions",
    "SingleRemainingBudget",
    "SingleReplaceReward",
    "SingleTextObservation",
    "TextObservation",
    "UnicodeText",
    "VectorAddReward",
    "VectorFlatObservation",
    "VectorMaskObservation",
    "VectorMaskedActions",
    "VectorRemainingBudget",
    "VectorReplaceReward",
    "VectorTextObservation",
    "ended",
    "get_state",
    "reward_payers_of",
    "reward_terms_of",
    "set_state",
]
