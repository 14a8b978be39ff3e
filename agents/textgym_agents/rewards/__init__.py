"""Rewards by neural models: log-probs, perplexity, similarity of embeddings, classifiers.

Imports torch and transformers; knows nothing of any agent library.
"""

from textgym_agents.rewards.classifier import Classifier
from textgym_agents.rewards.embedding import EmbeddingSimilarity
from textgym_agents.rewards.perplexity import LogProb, Perplexity

__all__ = ["Classifier", "EmbeddingSimilarity", "LogProb", "Perplexity"]
