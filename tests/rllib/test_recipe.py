"""The recipe runs, with few tokens."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import gymnasium as gym
import pytest

import textgym  # noqa: F401  # registers the environments

RECIPE = Path(__file__).parents[2] / "agents" / "recipes" / "rllib_ppo.py"


def test_the_recipe_trains_scores_and_saves(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("recipe_rllib_ppo", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    typed = ["--env=textgym/Sorting-v0", "--reward=length:max=8", "--runners=0", "--rows=16"]
    code = recipe.main([*typed, "--timesteps=4000", f"--out={tmp_path}"])
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(
        r"mean return: \d\.\d{3} before, \d\.\d{3} after, \d\.\d{3} of a random policy", last
    )
    before, after, random = map(float, re.findall(r"\d\.\d{3}", last))
    assert random == pytest.approx(random_tokens(), abs=0.05)
    assert min(before, after) > random
    assert code == int(after <= before)
    assert any(line.startswith(f"model: {tmp_path / 'model'}") for line in lines)
    assert (tmp_path / "model" / "model.safetensors").is_file()


def random_tokens(episodes=300):
    """The mean return of random tokens, one episode after the other."""
    env = gym.make("textgym/Sorting-v0", rewards=["length:max=8"], split="test")
    env.action_space.seed(1)
    total = 0.0
    for episode in range(episodes):
        env.reset(seed=episode)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += reward
            over = terminated or truncated
    return total / episodes
