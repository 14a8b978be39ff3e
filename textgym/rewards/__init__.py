"""Rewards: judgements of finished episodes, to be added to any environment."""

from textgym.rewards.base import Reward, RewardFunction
from textgym.rewards.function import FunctionReward
from textgym.rewards.keywords import Keywords
from textgym.rewards.length import Length
from textgym.rewards.repetition import Repetition
from textgym.rewards.specs import from_spec

__all__ = [
    "FunctionReward",
    "Keywords",
    "Length",
    "Repetition",
    "Reward",
    "RewardFunction",
    "from_spec",
]
