"""Rewards: judgements of finished episodes, to be added to any environment."""

from textgym.rewards.answer import Answer, extract_answer
from textgym.rewards.avoidance import Avoid
from textgym.rewards.base import Reward, RewardFunction
from textgym.rewards.budget import Budget
from textgym.rewards.combine import Clip, Gate, Minimum, Product, WeightedSum
from textgym.rewards.distinct import Distinct
from textgym.rewards.fallible import Fallible
from textgym.rewards.format import Format
from textgym.rewards.function import FunctionReward
from textgym.rewards.grammar import Grammar
from textgym.rewards.json_schema import JSONSchema
from textgym.rewards.keywords import Keywords
from textgym.rewards.lagrangian import Constraint
from textgym.rewards.language import Language
from textgym.rewards.length import Length
from textgym.rewards.loops import Loops
from textgym.rewards.normalize import Normalize
from textgym.rewards.novelty import Novelty
from textgym.rewards.partial import PartialScores, prefix_episodes
from textgym.rewards.readability import Readability
from textgym.rewards.redistribute import Redistribute
from textgym.rewards.regex import Regex
from textgym.rewards.repetition import Repetition
from textgym.rewards.schedule import Schedule
from textgym.rewards.shaping import Shaped
from textgym.rewards.specs import from_spec, known_rewards
from textgym.rewards.target import Target
from textgym.rewards.task_score import TaskScore

__all__ = [
    "Answer",
    "Avoid",
    "Budget",
    "Clip",
    "Constraint",
    "Distinct",
    "Fallible",
    "Format",
    "FunctionReward",
    "Gate",
    "Grammar",
    "JSONSchema",
    "Keywords",
    "Language",
    "Length",
    "Loops",
    "Minimum",
    "Normalize",
    "Novelty",
    "PartialScores",
    "Product",
    "Readability",
    "Redistribute",
    "Regex",
    "Repetition",
    "Reward",
    "RewardFunction",
    "Schedule",
    "Shaped",
    "Target",
    "TaskScore",
    "WeightedSum",
    "extract_answer",
    "from_spec",
    "known_rewards",
    "prefix_episodes",
]
