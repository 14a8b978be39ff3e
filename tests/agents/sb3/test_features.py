"""`LMFeatures`: exact hidden states of one frozen model, read once."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from transformers import GPT2Config, GPT2LMHeadModel

from textgym_agents.sb3 import make_vec_env
from textgym_agents.sb3.features import LMFeatures, dqn_defaults, features_kwargs

V, D = 5, 16


def model(seed=0):
    torch.manual_seed(seed)
    sizes = {"n_embd": D, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": V}
    return GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=0, bos_token_id=0)).eval()


def make_envs(n_envs=6, **keywords):
    lock = {"vocab_size": V, "keys": 2, "pins": 2, "max_new_tokens": 4, "prompt_length": 2}
    return make_vec_env("textgym/TokenLock-v0", n_envs=n_envs, seed=0, **lock | keywords)


def tensors(observation, dtype=torch.float32):
    return {k: torch.from_numpy(v).to(dtype) for k, v in observation.items()}


@torch.no_grad()
def by_hugging_face(own, observation):
    """One context at a time."""
    rows = []
    for i in range(len(observation["input_ids"])):
        length = int(observation["attention_mask"][i].sum())
        ids = torch.from_numpy(observation["input_ids"][i, :length])[None]
        hidden = own.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        left = torch.tensor([observation["remaining"][i, 0] / 4])
        rows.append(torch.cat([hidden, left.float()]))
    return torch.stack(rows)


def play(envs, steps, seed=0):
    rng = np.random.default_rng(seed)
    observation = envs.reset()
    for _ in range(steps):
        yield observation
        observation, *_ = envs.step(rng.integers(0, V, envs.num_envs))


def fed(features):
    """The tokens of every forward from now on."""
    found = []
    hook = features._body.lm.base
    hook.register_forward_pre_hook(
        lambda _, args, kwargs: found.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return found


def test_hidden_states_and_budget_whatever_the_mode():
    own, envs = model(), make_envs()
    features = LMFeatures(envs.observation_space, own)
    assert features.features_dim == D + 1
    for mode in (False, True):
        features.train(mode)
        for observation in play(envs, 12):
            expected = by_hugging_face(own, observation)
            for dtype in (torch.float32, torch.int64):
                assert torch.allclose(features(tensors(observation, dtype)), expected, atol=1e-5)


def test_acting_reads_new_tokens_only_and_learning_leaves_the_slots_alone():
    envs = make_envs(6, max_new_tokens=20, prompt_length=4, pins=3)
    torch.manual_seed(0)
    sizes = {"n_embd": D, "n_layer": 1, "n_head": 2, "n_positions": 32, "vocab_size": V}
    own = GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=0, bos_token_id=0))
    agent = DQN(
        "MultiInputPolicy",
        envs,
        policy_kwargs=features_kwargs(envs, own),
        learning_starts=0,
        batch_size=6,  # as many as there are environments: the slots would be taken for theirs
        device="cpu",
        seed=0,
    )
    for key in ("q_net", "q_net_target"):
        lm = getattr(agent.policy, key).features_extractor._body.lm
        assert lm.incremental
        lm.lean = False  # what the model itself is fed is looked at
    observation = envs.reset()
    agent.predict(observation, deterministic=True)
    read = fed(agent.policy.q_net.features_extractor)
    observation, *_ = envs.step(np.full(6, 1))
    agent.predict(observation, deterministic=True)
    assert read == [(6, 1)]
    agent.learn(60)
    agent.predict(observation, deterministic=True)
    read.clear()
    agent.train(gradient_steps=2, batch_size=6)
    assert len(read) == 4  # twice the network and its target
    assert all(width > 1 for _, width in read)
    read.clear()
    observation = copy.deepcopy(observation)
    observation["input_ids"][:, 5], observation["attention_mask"][:, 5] = 2, 1
    agent.predict(observation, deterministic=True)
    assert read == [(6, 1)]


def test_one_frozen_model_outside_parameters_and_state():
    own, envs = model(), make_envs()
    agent = DQN(
        "MultiInputPolicy",
        envs,
        policy_kwargs=features_kwargs(envs, own),
        device="cpu",
        seed=0,
        **dqn_defaults(envs) | {"learning_starts": 24, "target_update_interval": 6, "tau": 0.5},
    )
    policy = agent.policy
    body = policy.q_net.features_extractor._body
    assert policy.q_net_target.features_extractor._body is body
    assert copy.deepcopy(policy).q_net.features_extractor._body is body
    shared = {id(p) for p in body.lm.parameters()}
    assert not shared & {id(p) for p in policy.parameters()}
    assert not any("lm" in key for key in policy.state_dict())
    assert not {id(p) for p in own.parameters()} & shared  # copied
    agent.learn(120)
    assert agent._n_updates > 5
    for before, after in zip(own.parameters(), body.lm.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.grad is None


def test_loaded_from_what_was_saved():
    envs = make_envs()
    agent = PPO(
        "MultiInputPolicy",
        envs,
        policy_kwargs=features_kwargs(envs, model()),
        n_steps=8,
        batch_size=48,
        device="cpu",
    )
    agent.learn(48)
    file = io.BytesIO()
    agent.save(file)
    loaded = PPO.load(file, device="cpu")
    observation = envs.reset()
    with torch.no_grad():
        ours, theirs = (
            a.policy.get_distribution(tensors(observation)).distribution.probs
            for a in (agent, loaded)
        )
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_folder_that_was_written_again_is_read_again(tmp_path):
    space = make_envs().observation_space
    model(0).save_pretrained(tmp_path)
    first = LMFeatures(space, tmp_path)
    assert LMFeatures(space, tmp_path)._body is first._body
    model(1).save_pretrained(tmp_path)
    assert LMFeatures(space, tmp_path)._body is not first._body


def test_many_rows_are_read_in_parts(monkeypatch):
    monkeypatch.setattr("textgym_agents.sb3.features._PART_TOKENS", 9)
    own, envs = model(), make_envs(7)
    features = LMFeatures(envs.observation_space, own).train(True)
    for observation in play(envs, 3):
        found = features(tensors(observation))
        assert torch.allclose(found, by_hugging_face(own, observation), atol=1e-5)


def test_wrong_environments_are_refused():
    envs = make_envs(2, min_new_tokens=1)
    with pytest.raises(ValueError, match="an action mask applies in these environments, and DQN"):
        dqn_defaults(envs)
    with pytest.raises(ValueError, match="another tokenizer"):
        features_kwargs(envs, "bundled")
    with pytest.raises(ValueError, match="observations with `input_ids`"):
        LMFeatures(spaces.Box(0, 1, (3,)), model())
    with pytest.raises(ValueError, match="5 token embeddings"):
        LMFeatures(make_envs(2, vocab_size=6).observation_space, model())


@pytest.mark.parametrize("mode", [False, True])
def test_rows_without_a_token_are_zero(mode):
    """RecurrentPPO fills up its sequences with them."""
    own, envs = model(), make_envs()
    features = LMFeatures(envs.observation_space, own).train(mode)
    given = envs.reset()
    observation, expected = tensors(given), by_hugging_face(own, given)
    for key in observation:
        observation[key][[1, 4]] = 0
    found = features(observation)
    assert (found[[1, 4]] == 0).all()
    rest = [0, 2, 3, 5]
    torch.testing.assert_close(found[rest], expected[rest], atol=1e-5, rtol=1e-5)
    for key in observation:
        observation[key][:] = 0
    assert (features(observation) == 0).all()
