"""Figures and texts on held-out prompts."""

from __future__ import annotations

from textgym_agents.cli.building import build_envs
from textgym_agents.cli.options import EnvOptions, ModelOptions
from textgym_agents.sb3 import LMPolicy
from textgym_agents.sb3.evaluation import EvaluationResult, evaluate

MAX_ROWS = 64


class HeldOut:
    """Evaluates a policy on the test split, always on the same prompts.

    Args:
        env, model: what the training environment is made from.
        seed: of the prompts and of the sampling.
    """

    def __init__(self, env: EnvOptions, model: ModelOptions, *, seed: int) -> None:
        self.env = env
        self.model = model
        self.seed = seed

    def __call__(
        self, policy: LMPolicy, episodes: int, *, greedy: bool = False
    ) -> EvaluationResult:
        """Play `episodes` held-out episodes; no random state of the training is touched."""
        rows = min(episodes, MAX_ROWS)
        envs = build_envs(self.env, self.model, n_envs=rows, seed=self.seed, split="test")
        try:
            return evaluate(policy, envs, episodes, deterministic=greedy, seed=self.seed)
        finally:
            envs.close()
