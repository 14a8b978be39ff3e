"""Checkpoints: going on equals never having stopped, and a kill never leaves a broken one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym_agents.sb3 import (
    CheckpointCallback,
    LMPolicy,
    TokenRolloutBuffer,
    a2c_defaults,
    evaluate,
    latest_checkpoint,
    load_checkpoint,
    make_vec_env,
    ppo_defaults,
    save_checkpoint,
)

pytestmark = pytest.mark.filterwarnings("ignore:a minibatch of")  # small ones, to be quick
TOTAL = 6 * 8 * 16


def tiny_model():
    torch.manual_seed(0)
    tokenizer = Tokenizer.load()
    end = tokenizer.eos_token_id
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = GPT2Config(
        **sizes, vocab_size=tokenizer.vocab_size, bos_token_id=end, eos_token_id=end
    )
    return GPT2LMHeadModel(config)


def make_envs():
    return make_vec_env(
        "textgym/Continuation-v0",
        n_envs=8,
        prompts=["Once upon a time", "One day"],
        max_new_tokens=12,
        rewards=["length:max=20"],
    )


def make_agent(cls=PPO, **policy):
    envs = make_envs()
    defaults = {PPO: ppo_defaults, A2C: a2c_defaults}[cls](envs) | {"n_steps": 16}
    if cls is PPO:
        defaults["batch_size"] = 64
    return cls(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": tiny_model(), **policy},
        seed=0,
        device="cpu",
        **defaults,
    )


def states(agent):
    policy = {k: v for k, v in agent.policy.state_dict().items() if isinstance(v, torch.Tensor)}
    optimizer = agent.policy.optimizer.state_dict()["state"]
    moments = {f"{i}.{k}": v for i, s in optimizer.items() for k, v in s.items()}
    return policy | moments


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("cls", [PPO, A2C])
def test_resumed_equals_never_stopped(cls, tmp_path):
    policy = {"temperature": 1.2, "top_p": 0.9, "kl_coef": 0.1, "kl_target": 1.0}
    agent = make_agent(cls, **policy)
    agent.learn(TOTAL, callback=CheckpointCallback(tmp_path, 1, keep=100))
    after = (random.random(), np.random.rand(), torch.rand(1).item())
    middle = sorted(tmp_path.iterdir())[2]
    # Whatever the process did in between must not matter.
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    again = load_checkpoint(middle, make_envs())
    assert 0 < again.num_timesteps < agent.num_timesteps
    again.learn(TOTAL - again.num_timesteps, reset_num_timesteps=False)
    assert again.num_timesteps == agent.num_timesteps
    assert_same(states(agent), states(again))
    for key, value in agent._last_obs.items():
        np.testing.assert_array_equal(value, again._last_obs[key])
    assert after == (random.random(), np.random.rand(), torch.rand(1).item())


def test_other_environments_are_refused(tmp_path):
    agent = make_agent()
    agent.learn(1)
    folder = save_checkpoint(tmp_path, agent)
    other = make_vec_env("textgym/Continuation-v0", n_envs=4, prompts=["One day"])
    with pytest.raises(ValueError, match="Make both alike"):
        load_checkpoint(folder, other)


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="is not a checkpoint"):
        load_checkpoint(tmp_path, make_envs())


def test_keeps_the_newest(tmp_path):
    agent = make_agent()
    agent.learn(TOTAL, callback=CheckpointCallback(tmp_path, 1, keep=2))
    left = sorted(p.name for p in tmp_path.iterdir())
    assert len(left) == 2
    assert latest_checkpoint(tmp_path).name == left[-1]


def test_a_stop_while_an_old_one_is_removed_leaves_no_half(tmp_path, monkeypatch):
    agent = make_agent()
    agent.learn(1)
    save_checkpoint(tmp_path, agent)
    agent.learn(1, reset_num_timesteps=False)

    def killed(folder, **_):
        (folder / "state.pkl").unlink(missing_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("textgym_agents.sb3.checkpoint.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, agent, keep=1)
    monkeypatch.undo()
    (left,) = tmp_path.glob("step-*")
    assert load_checkpoint(left, make_envs()).num_timesteps == agent.num_timesteps


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    agent = make_agent()
    agent.learn(1)

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(agent, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, agent)
    assert list(tmp_path.iterdir()) == []
    assert latest_checkpoint(tmp_path) is None


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from test_checkpoint import make_agent, TOTAL
from textgym_agents.sb3 import CheckpointCallback
import torch
torch.set_num_threads(1)
agent = make_agent()
print("ready", flush=True)
agent.learn(10**9, callback=CheckpointCallback(sys.argv[2], 1, keep=3))
"""


def test_sigkill_never_leaves_an_unreadable_checkpoint(tmp_path):
    delays = np.random.default_rng(0).uniform(0.1, 0.6, size=2)
    for delay in delays:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CHILD, os.path.dirname(__file__), tmp_path],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline().strip() == "ready"
        deadline = time.monotonic() + 120
        while latest_checkpoint(tmp_path) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = sorted(tmp_path.glob("step-*"))
        assert found
        for folder in found:
            agent = load_checkpoint(folder, make_envs())
            named = int(folder.name.removeprefix("step-"))
            about = json.loads((folder / "checkpoint.json").read_text())
            assert agent.num_timesteps == named == about["num_timesteps"]
        # Every rollout start was a checkpoint: at most one rollout and update are lost.
        agent.learn(1, reset_num_timesteps=False)


def test_evaluation_is_repeatable_and_leaves_random_states_alone():
    agent = make_agent(top_p=0.9)
    envs = make_vec_env(
        "textgym/Continuation-v0", n_envs=4, prompts=["One day"], max_new_tokens=6,
        rewards=["length:max=20"], split="test",
    )  # fmt: skip
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = evaluate(agent.policy, envs, 10, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    second = evaluate(agent.policy, envs, 10, seed=3)
    assert [e.completion_text for e in first.episodes] == [
        e.completion_text for e in second.episodes
    ]
    assert len(first.episodes) == len(first.returns) == 10
    assert first.mean_score is None  # Continuation has no score of its own
    assert first.mean_reward == pytest.approx(first.rewards["length"])
    # The reference is the model itself before any update, over the same support.
    assert first.mean_kl_per_token == pytest.approx(0.0, abs=1e-5)
