"""PPO in one file, on the vector of environments itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def test_it_learns_to_read_prompts(scores, blind):
    before, after, random = scores("cleanrl_ppo")
    assert after > blind("cleanrl_ppo") > 0.1 > max(before, random)


def test_it_says_when_it_has_not_learned(load_recipe, monkeypatch, capsys):
    recipe = load_recipe("cleanrl_ppo")
    monkeypatch.setattr(recipe, "mean_return", lambda *_, seed: 0.5)
    assert recipe.main(["--steps", "1"]) == 1
    printed = capsys.readouterr().out
    assert "0.500 after" in printed
    assert "does not beat" in printed


def test_the_loss_of_a_first_minibatch_is_that_of_a_policy_gradient(load_recipe):
    """All ratios are 1: the policy's part is minus the mean of whitened advantages, which is 0."""
    recipe = load_recipe("cleanrl_ppo")
    options = recipe.arguments(["--entropy", "0.5", "--value", "2"])
    space = recipe.gym.make("textgym/TokenLock-v0", **recipe.LOCK).observation_space
    torch.manual_seed(0)
    agent, features = recipe.Agent(space, 8), torch.rand(6, 4 * 8 + 1)
    policy, values = agent(features)
    actions = torch.arange(6)
    old, advantages, returns = policy.log_prob(actions), torch.randn(6), torch.randn(6)
    got = recipe.loss(agent, features, actions, old.detach(), advantages, returns, options)
    logits = agent.actor(features).detach().numpy().astype(float)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -(chances * np.log(chances)).sum(1).mean()
    squares = ((values - returns) ** 2).mean().item()
    assert got.item() == pytest.approx(2 * 0.5 * squares - 0.5 * entropy, abs=1e-5)


def test_features_are_one_hot_and_padding_is_zero(load_recipe):
    recipe = load_recipe("cleanrl_ppo")
    envs = recipe.gym.make_vec("textgym/TokenLock-v0", 2, **recipe.LOCK)
    observation, _ = envs.reset(seed=0)
    observation = envs.step(np.array([3, 4]))[0]
    agent = recipe.Agent(envs.single_observation_space, 8)
    features = agent.features(observation)
    tokens = features[:, :-1].reshape(2, -1, 8)
    assert tokens[:, :2].argmax(-1).tolist() == observation["input_ids"][:, :2].tolist()
    assert tokens.sum((1, 2)).tolist() == [2, 2]
    assert features[:, -1].tolist() == pytest.approx([2 / 3] * 2)
