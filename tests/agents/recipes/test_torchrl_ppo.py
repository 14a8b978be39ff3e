"""TorchRL: its collector, loss and advantages on our vector of environments."""

from __future__ import annotations

import gymnasium as gym
import torch

from textgym.wrappers import MaskObservation


def test_it_learns(scores):
    before, after, random = scores("torchrl_ppo", "--steps", "6000")
    assert after > 0.1 > 2 * max(before, random)


def test_it_says_what_to_install(refused):
    assert 'pip install "textgym[recipes]"' in refused("torchrl_ppo", "torchrl")


def test_collected_rows_are_whole_episodes(load_recipe):
    """Rows that ended are reset, and only they: what follows an end is a prompt of one token."""
    recipe = load_recipe("torchrl_ppo")
    steps = recipe.make_env(4, "train", 0).rollout(30, break_when_any_done=False)
    lengths = steps["attention_mask"].long().sum(-1)  # [4, 30]
    done = steps["next", "done"][..., 0]
    assert 10 < done.sum() < 110
    assert (lengths[:, 1:][done[:, :-1]] == 1).all()
    assert (lengths[:, 1:] == lengths[:, :-1] + 1)[~done[:, :-1]].all()
    assert steps["input_ids"].dtype == torch.int64


def test_masks_are_read_from_the_observation():
    from tensordict.nn import TensorDictModule
    from torchrl.envs import ActionMask, Compose, DTypeCastTransform, GymWrapper, TransformedEnv
    from torchrl.modules import MaskedCategorical, ProbabilisticActor

    env = GymWrapper(
        MaskObservation(gym.make("textgym/TokenLock-v0", min_new_tokens=7)),
        categorical_action_encoding=True,
    )
    to_bool = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
    env = TransformedEnv(env, Compose(to_bool, ActionMask()))
    would_stop = TensorDictModule(
        lambda remaining: torch.tensor([50.0] + [0.0] * 7),
        in_keys=["remaining"],
        out_keys=["logits"],
    )
    actor = ProbabilisticActor(
        would_stop,
        in_keys={"logits": "logits", "mask": "action_mask"},
        distribution_class=MaskedCategorical,
        spec=env.action_spec,
    )
    for policy in (actor, None):  # None: the random policy, which `ActionMask` masks
        assert env.rollout(20, policy)["action"].shape[0] == 7


def test_the_network_reads_the_tokens(load_recipe, one_hot):
    recipe = load_recipe("torchrl_ppo")
    env = recipe.make_env(3, "train", 0)
    network = recipe.Network(env.single_observation_space, 8)
    seen = env.rollout(1)["next"].select(*recipe.KEYS)[:, 0]
    features = [one_hot(seen[i], 8, 7) for i in range(3)]
    got = network(*(seen[key] for key in recipe.KEYS))
    torch.testing.assert_close(got, network.layers(torch.tensor(features)))
