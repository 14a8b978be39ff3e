"""SB3's agents with their default networks, on observations and actions that suit these."""

import importlib.util
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import textgym  # noqa: F401  # registers the environments
from textgym.wrappers.flat_observation import FlatObservation
from textgym_agents.sb3 import make_vec_env
from textgym_agents.wrappers.hidden_state import HiddenStateObservation
from textgym_agents.wrappers.top_k_actions import TopKActions

AGENTS = {
    "ppo": lambda envs: PPO("MlpPolicy", envs, n_steps=64, batch_size=64, device="cpu", seed=0),
    "dqn": lambda envs: DQN(
        "MlpPolicy", envs, learning_starts=50, buffer_size=500, device="cpu", seed=0
    ),
}
RECIPE = Path(__file__).parents[3] / "agents" / "recipes" / "dqn_topk.py"


@pytest.fixture(params=AGENTS.values(), ids=AGENTS)
def agent_on(request):
    return request.param


def weights(agent):
    return np.concatenate([p.detach().numpy().ravel() for p in agent.policy.parameters()])


def learns(agent):
    before = weights(agent)
    agent.learn(200)
    after = weights(agent)
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)
    assert len(agent.ep_info_buffer) > 0


def test_flat_observations(agent_on):
    def make():
        env = gym.make("textgym/TokenLock-v0", keys=2, pins=2)
        return FlatObservation(env, "one_hot", last=4)

    learns(agent_on(DummyVecEnv([monitored(make)] * 2)))


def test_hidden_states_and_candidates(agent_on, model):
    def make():
        env = gym.make("textgym/Story-v0", max_new_tokens=12)
        env = TopKActions(env, model, 3, observe_log_probs=True)
        return HiddenStateObservation(env, model)

    learns(agent_on(DummyVecEnv([monitored(make)] * 2)))


def test_all_rows_read_together(agent_on, model):
    envs = make_vec_env(
        "textgym/Story-v0",
        4,
        max_new_tokens=8,
        wrappers=[
            lambda env: TopKActions(env, model, 3),
            lambda env: HiddenStateObservation(env, model),
        ],
    )
    learns(agent_on(envs))
    observations = envs.reset()
    for _ in range(8):
        observations, _, dones, infos = envs.step(np.zeros(4, np.int64))
        for row in np.flatnonzero(dones):
            assert infos[row]["terminal_observation"].shape == observations[row].shape


def test_the_recipe_runs(capsys):
    spec = importlib.util.spec_from_file_location("dqn_topk", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    small = "--timesteps 1100 --num-envs 8 --episodes 8 --gradient-steps 1"
    assert recipe.main(small.split()) in (0, 1)
    assert "first choices" in capsys.readouterr().out


def monitored(make):
    from stable_baselines3.common.monitor import Monitor

    return lambda: Monitor(make())
