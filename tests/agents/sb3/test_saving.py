"""Saving and loading: the agent, the policy, and the model as Hugging Face files."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym_agents.lm import load_model
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

TOKENIZER = Tokenizer.load()


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "model"
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=TOKENIZER.vocab_size
    )
    GPT2LMHeadModel(config).save_pretrained(path)
    TOKENIZER.save(path)
    return path


def make_envs(**keywords):
    return make_vec_env(
        "textgym/Continuation-v0", n_envs=16, prompts=["One day"], max_new_tokens=8,
        rewards=["length:max=20"], **keywords,
    )  # fmt: skip


def make_agent(model, **policy):
    envs = make_envs()
    keywords = ppo_defaults(envs, learning_rate=1e-2) | {"n_steps": 16}
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model} | policy,
        seed=0,
        device="cpu",
        **keywords,
    )
    agent.learn(512)
    return agent


def observation():
    envs = make_envs()
    envs.seed(3)
    return envs.reset()


def log_probs(policy):
    with torch.no_grad():
        obs, _ = policy.obs_to_tensor(observation())
        return policy.get_distribution(obs).distribution.logits


@pytest.mark.parametrize("gone", [False, True])
def test_ppo_save_and_load(folder, tmp_path, gone):
    agent = make_agent(str(folder), top_p=0.9, kl_target=2.0)
    agent.save(tmp_path / "agent")
    if gone:
        shutil.rmtree(folder)
        with pytest.warns(UserWarning, match="Right only while loading"):
            loaded = PPO.load(tmp_path / "agent", device="cpu")
    else:
        loaded = PPO.load(tmp_path / "agent", device="cpu")
    assert torch.equal(log_probs(agent.policy), log_probs(loaded.policy))
    assert loaded.policy.kl_coef == agent.policy.kl_coef
    assert loaded.policy.rule == agent.policy.rule
    first, _ = agent.predict(observation(), deterministic=True)
    second, _ = loaded.predict(observation(), deterministic=True)
    np.testing.assert_array_equal(first, second)
    moments = loaded.policy.optimizer.state_dict()["state"]
    assert moments.keys() == agent.policy.optimizer.state_dict()["state"].keys()
    loaded.set_env(make_envs())
    loaded.learn(256)
    loaded.policy.save_pretrained(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").hash == TOKENIZER.hash


def test_policy_save_and_load(folder, tmp_path):
    policy = make_agent(str(folder), temperature=1.5).policy
    policy.save(tmp_path / "policy.pt")
    shutil.rmtree(folder)
    loaded = LMPolicy.load(tmp_path / "policy.pt")
    assert torch.equal(log_probs(policy), log_probs(loaded))
    assert loaded.rule.temperature == 1.5


def test_a_model_given_as_a_module(folder, tmp_path):
    agent = make_agent(load_model(folder))
    agent.save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent", device="cpu")
    assert torch.equal(log_probs(agent.policy), log_probs(loaded.policy))


def test_save_pretrained_is_hugging_face(folder, tmp_path):
    agent = make_agent(str(folder), temperature=0.8, top_k=50, top_p=0.95)
    agent.policy.save_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = torch.tensor([TOKENIZER.encode("One day")])
    assert tokenizer("One day")["input_ids"] == ids[0].tolist()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, agent.policy.lm.model(ids).logits)
    settings = model.generation_config
    assert (settings.do_sample, settings.temperature) == (True, 0.8)
    assert (settings.top_k, settings.top_p) == (50, 0.95)
    assert settings.eos_token_id == TOKENIZER.eos_token_id
    assert model.generate(ids, max_new_tokens=4).shape[1] <= ids.shape[1] + 4


def test_a_missing_model_raises_at_first_use(tmp_path):
    with pytest.warns(UserWarning, match="no such folder"):
        agent = PPO(
            LMPolicy, make_envs(), policy_kwargs={"model": str(tmp_path / "none")}, device="cpu"
        )
    with pytest.raises(FileNotFoundError, match="no such folder"):
        agent.learn(1)


def test_another_tokenizer_is_refused(folder):
    other = Tokenizer(TOKENIZER.backend, eos_token="a", name="other")
    envs = make_envs(tokenizer=other)
    with pytest.raises(ValueError, match="another tokenizer"):
        PPO(LMPolicy, envs, policy_kwargs={"model": str(folder)}, **ppo_defaults(envs) | {"rollout_buffer_kwargs": {}})  # fmt: skip  # noqa: E501


def test_a_context_longer_than_the_model_is_refused(folder):
    envs = make_vec_env("textgym/Continuation-v0", n_envs=2, max_new_tokens=100)
    keywords = ppo_defaults(envs) | {"rollout_buffer_kwargs": {}}
    with pytest.raises(ValueError, match="64 positions"):
        PPO(LMPolicy, envs, policy_kwargs={"model": str(folder)}, **keywords)


def test_sb3s_own_defaults_warn(folder):
    with pytest.warns(UserWarning, match="ppo_defaults"):
        PPO(
            LMPolicy,
            make_envs(),
            rollout_buffer_class=TokenRolloutBuffer,
            policy_kwargs={"model": str(folder)},
            device="cpu",
        )


def test_adaptive_kl_moves_towards_its_target(folder):
    agent = make_agent(str(folder), kl_target=2.0, kl_coef=0.1)
    policy = agent.policy
    before = float(policy.kl_coef)
    policy.adapt_kl(4.0)  # too far away: the coefficient grows, by at most a tenth
    assert float(policy.kl_coef) == pytest.approx(1.1 * before)
    policy.adapt_kl(1.9)  # 5% below the target
    assert float(policy.kl_coef) == pytest.approx(1.1 * before * 0.975)
    fixed = make_agent(str(folder), kl_coef=0.1).policy
    assert float(fixed.kl_coef) == 0.1
