"""Wrappers that need a model, for agents of any library."""

from textgym_agents.wrappers.reference_log_prob import (
    ReferenceLogProb,
    SingleReferenceLogProb,
    VectorReferenceLogProb,
)

__all__ = ["ReferenceLogProb", "SingleReferenceLogProb", "VectorReferenceLogProb"]
