"""TorchRL: its collector, loss and advantages on our vector of environments."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch

from textgym.wrappers import MaskObservation


def test_it_learns_to_read_prompts(scores, blind):
    before, after, random = scores("torchrl_ppo")
    assert after > blind("torchrl_ppo") > 0.1 > max(before, random)


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


@pytest.mark.parametrize("rows", [None, 3])
def test_masks_are_read_from_the_observation(rows):
    from tensordict.nn import TensorDictModule
    from torchrl.envs import ActionMask, Compose, DTypeCastTransform, GymWrapper, TransformedEnv
    from torchrl.modules import MaskedCategorical, ProbabilisticActor

    keywords = {"id": "textgym/TokenLock-v0", "min_new_tokens": 7}
    if rows is None:
        made = gym.make(**keywords)
    else:
        made = gym.make_vec(**keywords, num_envs=rows, autoreset_mode="DISABLED")
    env = GymWrapper(MaskObservation(made), categorical_action_encoding=True)
    to_bool = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
    env = TransformedEnv(env, Compose(to_bool, ActionMask()))
    would_stop = TensorDictModule(
        lambda remaining: torch.tensor([50.0] + [0.0] * 7).expand(*remaining.shape[:-1], 8),
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
        steps = env.rollout(20, policy, break_when_any_done=rows is None)
        assert steps.shape == ((7,) if rows is None else (rows, 20))
        ends = steps["next", "done"][..., 0].reshape(-1, steps.shape[-1])
        assert ends.sum(-1).tolist() == ([1] if rows is None else [2] * rows)
        # Stopping is masked throughout: the budget of seven letters ends each.
        assert (steps["action"] > 0).all()


def test_the_network_reads_the_tokens(load_recipe, one_hot):
    recipe = load_recipe("torchrl_ppo")
    env = recipe.make_env(3, "train", 0)
    network = recipe.Network(env.single_observation_space, 8)
    seen = env.rollout(1)["next"].select(*recipe.KEYS)[:, 0]
    features = [one_hot(seen[i], 8, 3) for i in range(3)]
    got = network(*(seen[key] for key in recipe.KEYS))
    torch.testing.assert_close(got, network.layers(torch.tensor(features)))
