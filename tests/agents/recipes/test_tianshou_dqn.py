"""Tianshou's DQN on masked actions, in an environment of its own: `make test-tianshou`."""

from __future__ import annotations

import torch


def test_it_learns_to_read_prompts(scores, blind):
    before, after, random = scores("tianshou_dqn", "--steps", "3000")
    assert after > blind("tianshou_dqn") > 0.1 > max(before, random)


def test_it_says_what_to_install(refused):
    assert 'pip install "textgym[tianshou]"' in refused("tianshou_dqn", "tianshou")


def test_no_masked_token_is_taken(load_recipe):
    recipe = load_recipe("tianshou_dqn")
    env = recipe.make_env("train")
    policy = recipe.DiscreteQLearningPolicy(
        model=recipe.Network(env.observation_space, 8), action_space=env.action_space
    )
    policy.model.layers[-1].bias.data[0] = 50.0  # would stop at once
    assert recipe.mean_return(policy, 8) == recipe.mean_return(policy, 8) < 1.0
    recipe.mean_return(policy, 64, random=True)  # a masked token would raise


def test_the_network_reads_the_tokens(load_recipe, one_hot):
    from tianshou.data import Batch

    recipe = load_recipe("tianshou_dqn")
    env = recipe.make_env("train")
    env.reset(seed=0)
    seen = env.step(3)[0]
    network = recipe.Network(env.observation_space, 8)
    batch = Batch({key: value[None] for key, value in seen.items()})
    expected = network.layers(torch.tensor([one_hot(seen, 8, 3)]))
    torch.testing.assert_close(network(batch)[0], expected)
