"""The bridge to SB3's `VecEnv`."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from transformers import GPT2Config, GPT2LMHeadModel

import textgym  # noqa: F401
from textgym import Tokenizer
from textgym.wrappers import AddReward, MaskObservation
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

EOS = Tokenizer.load().eos_token_id
V = Tokenizer.load().vocab_size


def make(n_envs=3, **keywords):
    keywords = {"prompts": ["Once upon a time", "One day"], "max_new_tokens": 4} | keywords
    return make_vec_env("textgym/Continuation-v0", n_envs=n_envs, seed=0, **keywords)


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=V)
    return GPT2LMHeadModel(config)


def agent_on(envs, **policy):
    keywords = ppo_defaults(envs) | {"n_steps": 8, "batch_size": 8 * envs.num_envs}
    return PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": gpt2()} | policy,
        seed=0,
        device="cpu",
        **keywords,
    )


def test_infos_of_ended_rows():
    envs = make(rewards=["length:max=10"])
    envs.reset()
    contexts = []
    for step in range(4):
        actions = np.array([5, 6, EOS if step == 1 else 7])
        observations, rewards, dones, infos = envs.step(actions)
        assert observations["input_ids"].dtype == np.int64
        assert rewards.dtype == np.float32
        contexts.append(observations)
        if step == 1:
            assert dones.tolist() == [False, False, True]
            assert infos[0] == infos[1] == {}
            info = infos[2]
            assert info["finish_reason"] == "stop"
            assert info["episode"]["l"] == 2
            assert info["episode"]["r"] == pytest.approx(sum(info["rewards"].values()))
            assert info["TimeLimit.truncated"] is False
            last = info["terminal_observation"]
            length = int(last["attention_mask"].sum())
            np.testing.assert_array_equal(
                last["input_ids"][:length], info["episode_record"].input_ids[:length]
            )
            assert int(last["remaining"][0]) == 2
            # The observation returned is already that of the next episode.
            assert int(observations["remaining"][2, 0]) == 4
    assert dones.tolist() == [True, True, False]
    assert infos[0]["finish_reason"] == "length"
    # Observations returned earlier were not written to later.
    assert int(contexts[0]["remaining"][0, 0]) == 3


def test_truncation_is_told_and_bootstrapped():
    envs = make(max_episode_steps=2)
    envs.reset()
    envs.step(np.array([5, 5, 5]))
    _, rewards, dones, infos = envs.step(np.array([5, EOS, 5]))
    assert dones.all()
    assert [i["TimeLimit.truncated"] for i in infos] == [True, False, True]
    assert "episode_record" not in infos[0]
    assert "terminal_observation" in infos[0]
    assert rewards.tolist() == [0.0, 0.0, 0.0]
    agent_on(make(n_envs=16, max_episode_steps=2)).learn(128)


@pytest.mark.filterwarnings("ignore:a minibatch of")
def test_evaluate_policy_with_another_number_of_rows():
    agent = agent_on(make(n_envs=8, rewards=["length:max=10"]))
    agent.learn(64)
    envs = make(n_envs=3, rewards=["length:max=10"], split="test")
    assert envs.env_is_wrapped(Monitor) == [True] * 3
    for deterministic in (True, False):
        returns, lengths = evaluate_policy(
            agent, envs, 7, deterministic=deterministic, return_episode_rewards=True
        )
        assert len(returns) == 7
        assert all(1 <= n <= 4 for n in lengths)
        assert all(0 <= r <= 1 for r in returns)


def test_state_goes_on_bit_for_bit_with_wrappers():
    def wrapped():
        return make(wrappers=[lambda e: AddReward(e, "length:max=10"), MaskObservation],
                    min_new_tokens=2)  # fmt: skip

    rng = np.random.default_rng(0)
    actions = rng.integers(1, 200, (20, 3))
    envs = wrapped()
    envs.reset()
    for row in actions[:6]:
        envs.step(row)
    state = pickle.loads(pickle.dumps(envs.get_state()))
    other = wrapped()
    other.reset()
    other.set_state(state)
    for row in actions[6:]:
        for first, second in zip(envs.step(row)[:3], other.step(row)[:3], strict=True):
            if isinstance(first, dict):
                for key, value in first.items():
                    np.testing.assert_array_equal(value, second[key])
            else:
                np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("ignore:a minibatch of")
def test_masked_tokens_are_never_written():
    banned = list(range(1, V, 2))
    envs = make(
        n_envs=8, banned_tokens=banned, min_new_tokens=3, max_new_tokens=6,
        wrappers=[MaskObservation],
    )  # fmt: skip
    agent = agent_on(envs)
    agent.learn(256)  # a masked action would raise
    buffer = agent.rollout_buffer
    assert (buffer.actions % 2 == 0).all()
    assert np.isfinite(buffer.log_probs).all()
    # Half of the tokens share all of the probability: about uniform over them at the start.
    assert buffer.log_probs.mean() == pytest.approx(-np.log(V / 2), abs=0.2)


def test_wrong_autoreset_mode_is_refused():
    envs = gym.make_vec(
        "textgym/Continuation-v0", num_envs=2, vectorization_mode="vector_entry_point"
    )
    with pytest.raises(ValueError, match="SAME_STEP"):
        make_vec_env(envs)


def test_keyword_arguments_go_with_an_id():
    with pytest.raises(TypeError, match="go with an id"):
        make_vec_env(make().envs, split="test")
    with pytest.raises(TypeError, match="max_new_token"):
        make(max_new_token=3)
