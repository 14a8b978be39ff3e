"""Wrappers that need a model, for agents of any library."""

from textgym_agents.wrappers.hidden_state import (
    HiddenStateObservation,
    SingleHiddenStateObservation,
    VectorHiddenStateObservation,
)
from textgym_agents.wrappers.priced_departures import PricedDepartures
from textgym_agents.wrappers.reference_log_prob import (
    ReferenceLogProb,
    SingleReferenceLogProb,
    VectorReferenceLogProb,
)
from textgym_agents.wrappers.top_k_actions import SingleTopKActions, TopKActions, VectorTopKActions
from textgym_agents.wrappers.top_p_mask import SingleTopPMask, TopPMask, VectorTopPMask

__all__ = [
    "HiddenStateObservation",
    "PricedDepartures",
    "ReferenceLogProb",
    "SingleHiddenStateObservation",
    "SingleReferenceLogProb",
    "SingleTopKActions",
    "SingleTopPMask",
    "TopKActions",
    "TopPMask",
    "VectorHiddenStateObservation",
    "VectorReferenceLogProb",
    "VectorTopKActions",
    "VectorTopPMask",
]
