"""Agents with networks of their own, on what a frozen language model makes of the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3 import DQN

from textgym_agents.bench.models import is_tiny, tiny_model
from textgym_agents.sb3 import TextVecEnv, ppo_defaults
from textgym_agents.wrappers import HiddenStateObservation, PricedDepartures, TopKActions

# The price of choosing a token that the frozen model finds a nat less probable than its best.
_DEPARTURE = 0.02
# Where all tokens of a random model are equally good, as many are chosen among as there are, up to:
_MOST_CANDIDATES = 64


@dataclass
class Chooser:
    """An agent among candidates: its best ones, as exploring is for learning.

    Args:
        agent: DQN.
        wrappers: from tokens to candidates.
    """

    agent: DQN
    wrappers: Any

    def wrap(self, envs: VectorEnv) -> VectorEnv:
        """The environments that it acts in."""
        return self.wrappers(envs)

    def predict(self, observation: Any) -> NDArray[np.int64]:
        """`[B] int64`, places among the candidates."""
        return self.agent.predict(observation, deterministic=True)[0]


def dqn_topk(envs: VectorEnv, budget: int, seed: int) -> Chooser:
    """Stable-Baselines3's DQN, choosing among the best tokens of a frozen model.

    On a random model, whose odds say nothing, it chooses among up to 64 tokens, and free of charge.
    """
    tiny = is_tiny(envs)
    model: Any = tiny_model(envs, seed) if tiny else "bundled"
    k = min(int(envs.single_action_space.n), _MOST_CANDIDATES) if tiny else 2

    def wrap(inner: VectorEnv) -> VectorEnv:
        candidates = TopKActions(inner, model, k, observe_log_probs=not tiny, device="cpu")
        priced = PricedDepartures(candidates, 0.0 if tiny else _DEPARTURE)
        return HiddenStateObservation(priced, model, device="cpu")

    rows = envs.num_envs
    agent = DQN(
        "MlpPolicy",
        TextVecEnv(wrap(envs)),
        learning_rate=1e-3,
        policy_kwargs={"net_arch": [256, 256]},
        gamma=1.0,  # 0.99 would reward stopping early
        n_steps=1 if tiny else 64,  # the bundled model's tasks pay at the end
        buffer_size=min(budget, 100_000) + rows,
        batch_size=256,
        train_freq=1,
        gradient_steps=max(1, rows // 16),
        target_update_interval=1_000,
        learning_starts=min(1_000, budget // 4),
        # A random token or two can ruin a text of fifty.
        exploration_initial_eps=1.0 if tiny else 0.03,
        exploration_final_eps=0.02 if tiny else 0.005,
        exploration_fraction=0.5,
        seed=seed,
        device="cpu",
    )
    return Chooser(agent.learn(budget), wrap)


def recurrent_ppo(envs: VectorEnv, budget: int, seed: int) -> Any:
    """sb3-contrib's RecurrentPPO, with the model's hidden states as observations."""
    from sb3_contrib import RecurrentPPO

    tiny = is_tiny(envs)
    model: Any = tiny_model(envs, seed) if tiny else "bundled"

    def wrap(inner: VectorEnv) -> VectorEnv:
        return HiddenStateObservation(inner, model, device="cpu")

    arguments = ppo_defaults(TextVecEnv(envs)) | {"learning_rate": 1e-2 if tiny else 1e-3}
    arguments |= {"normalize_advantage": True, "ent_coef": 0.02 if tiny else 0.0}
    del arguments["rollout_buffer_kwargs"]  # its buffer is its own
    agent = RecurrentPPO(
        "MlpLstmPolicy",
        TextVecEnv(wrap(envs)),
        policy_kwargs={"lstm_hidden_size": 64, "net_arch": []},
        seed=seed,
        device="cpu",
        **arguments,
    )
    agent.learn(budget)
    agent.wrap = wrap
    return agent
