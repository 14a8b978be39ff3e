"""Stable-Baselines3's own agents on text: policy, buffer, environments, defaults, checkpoints."""

from textgym_agents.sb3.defaults import a2c_defaults, ppo_defaults
from textgym_agents.sb3.policy import LMPolicy
from textgym_agents.sb3.rollout_buffer import TokenRolloutBuffer
from textgym_agents.sb3.vec_env import TextVecEnv, make_vec_env

__all__ = [
    "LMPolicy",
    "TextVecEnv",
    "TokenRolloutBuffer",
    "a2c_defaults",
    "make_vec_env",
    "ppo_defaults",
]
