"""skrl's PPO on our vector of environments."""

from __future__ import annotations

import gymnasium as gym
import torch


def test_it_learns_to_read_prompts(scores, blind):
    before, after, random = scores("skrl_ppo")
    assert after > blind("skrl_ppo") > 0.1 > max(before, random)


def test_it_says_what_to_install(refused):
    assert 'pip install "textgym[recipes]"' in refused("skrl_ppo", "skrl")


def test_the_network_gets_back_what_skrl_has_flattened(load_recipe):
    recipe = load_recipe("skrl_ppo")
    env = recipe.make_env(3, "train")
    bare = gym.make_vec("textgym/TokenLock-v0", 3, autoreset_mode="SAME_STEP", **recipe.LOCK)
    recipe.set_seed(5)
    flat, _ = env.reset()
    observation, _ = bare.reset(seed=0)  # the wrapper took its seed when it was made
    found = recipe.unflatten_tensorized_space(env.observation_space, flat)
    for key, value in observation.items():
        assert torch.equal(found[key].long(), torch.as_tensor(value).long())


def test_the_network_reads_the_tokens(load_recipe, one_hot):
    recipe = load_recipe("skrl_ppo")
    env = recipe.make_env(3, "train")
    network = recipe.Network(env.observation_space, 8)
    env.reset()
    flat = env.step(torch.tensor([[3], [4], [5]]))[0]
    seen = recipe.unflatten_tensorized_space(env.observation_space, flat)
    features = [one_hot({k: v[i] for k, v in seen.items()}, 8, 3) for i in range(3)]
    torch.testing.assert_close(network(flat), network.layers(torch.tensor(features)))
