"""Evaluation of a policy: means over whole episodes, whatever each of them has."""

from __future__ import annotations

import numpy as np
import pytest

from textgym_agents.sb3 import LMPolicy, evaluate, make_vec_env


def test_dialogues_some_of_which_nobody_replied_to():
    # So small a budget that some episodes end before their first turn does.
    envs = make_vec_env("textgym/Recommendation-v0", n_envs=8, max_new_tokens=3, split="test")
    policy = LMPolicy(
        envs.observation_space, envs.action_space, lambda _: 1e-4, kl_coef=0.0, temperature=4.0
    )
    result = evaluate(policy, envs, 256, seed=0)
    replied = [any(turn.role == "task" for turn in e.turns) for e in result.episodes]
    assert any(replied)
    assert not all(replied)
    task = envs.envs.unwrapped.task
    assert result.mean_score == pytest.approx(np.mean([task.score(e) for e in result.episodes]))
    expected = [task.metrics(e) for e in result.episodes]
    assert set(result.metrics) == set(task.metric_names)
    for name, value in result.metrics.items():
        assert value == pytest.approx(np.mean([one[name] for one in expected]))
    assert result.rewards["score"] == pytest.approx(result.mean_score)
    assert result.rewards.get("replies", 0.0) == 0.0
