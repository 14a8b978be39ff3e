"""The recipe runs, with few steps."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import torch

import textgym  # noqa: F401  # registers the environments

RECIPE = Path(__file__).resolve().parents[3] / "agents" / "recipes" / "trl_grpo.py"


def test_the_recipe_trains_scores_and_saves(monkeypatch, capsys, tmp_path):
    options = {"env": "textgym/Sorting-v0", "steps": 1, "prompts": 2, "group": 2, "episodes": 128}
    typed = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr(
        sys, "argv", ["trl_grpo.py", *typed, "--reward=length:max=8", f"--out={tmp_path}"]
    )
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(RECIPE), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    *_, line = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(
        r"mean return: \d\.\d{3} before, \d\.\d{3} after, \d\.\d{3} of a random policy", line
    )
    before, after, random = map(float, re.findall(r"\d\.\d{3}", line))
    assert random == pytest.approx(random_tokens(), abs=0.05)
    assert before > random
    assert 0 <= after <= 2
    assert (tmp_path / "model.safetensors").is_file()


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
