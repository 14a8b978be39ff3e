"""Stable-Baselines3's own agents on text: policy, buffer, environments, defaults, checkpoints."""

from textgym_agents.sb3.alarms import Alarm, HackingAlarms, Watch
from textgym_agents.sb3.async_scoring import AsyncScoring
from textgym_agents.sb3.callbacks import TextMetrics
from textgym_agents.sb3.checkpoint import (
    CheckpointCallback,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from textgym_agents.sb3.defaults import a2c_defaults, ppo_defaults
from textgym_agents.sb3.evaluation import EvaluationResult, evaluate
from textgym_agents.sb3.expert_iteration import ExpertIteration
from textgym_agents.sb3.features import LMFeatures, dqn_defaults, features_kwargs
from textgym_agents.sb3.grpo import GRPO
from textgym_agents.sb3.hindsight import HindsightRewards
from textgym_agents.sb3.nlpo import NLPO, NLPOPolicy
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.reinforce import REINFORCE
from textgym_agents.sb3.rloo import RLOO
from textgym_agents.sb3.rollout_buffer import TokenRolloutBuffer
from textgym_agents.sb3.trpo import TRPOPolicy, trpo_defaults
from textgym_agents.sb3.vec_env import TextVecEnv, make_vec_env

__all__ = [
    "GRPO",
    "NLPO",
    "REINFORCE",
    "RLOO",
    "Alarm",
    "AsyncScoring",
    "CheckpointCallback",
    "EvaluationResult",
    "ExpertIteration",
    "HackingAlarms",
    "HindsightRewards",
    "LMFeatures",
    "LMPolicy",
    "NLPOPolicy",
    "TRPOPolicy",
    "TextMetrics",
    "TextVecEnv",
    "TokenRolloutBuffer",
    "Watch",
    "a2c_defaults",
    "dqn_defaults",
    "evaluate",
    "features_kwargs",
    "latest_checkpoint",
    "load_checkpoint",
    "make_vec_env",
    "ppo_defaults",
    "save_checkpoint",
    "trpo_defaults",
]
