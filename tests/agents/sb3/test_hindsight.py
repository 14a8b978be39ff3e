"""`HindsightRewards`: the buffer holds each token's own share, and totals stay."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym.rewards.combine import WeightedSum
from textgym.rewards.redistribute import Redistribute
from textgym.rewards.shaping import Shaped
from textgym.wrappers import AddReward, ReplaceReward
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults
from textgym_agents.sb3.hindsight import HindsightRewards

ROWS, STEPS = 8, 10


def letters(episodes):
    return [1.0 + np.sin(3.0 * len(e.completion_text)) for e in episodes]


def falling(episode):
    return np.arange(len(episode.completion_ids), 0, -1)


def tokens(episodes):
    return [0.125 * len(e.completion_ids) for e in episodes]


def make(*rewards, **keywords):
    keywords = {"prompts": ["Once upon a time", "One day"], "max_new_tokens": 6} | keywords
    return make_vec_env(
        "textgym/Continuation-v0", n_envs=ROWS, seed=0, rewards=list(rewards), **keywords
    )


class Ending(LMPolicy):
    """Ends one text in four at every token, so that lengths differ."""

    def forward(self, obs, deterministic=False):
        actions, values, log_probs = super().forward(obs, deterministic)
        ends = torch.rand(len(actions)) < 0.25
        return torch.where(ends, Tokenizer.load().eos_token_id, actions), values, log_probs


def agent_on(envs, kind=PPO, buffer=TokenRolloutBuffer, kl_coef=0.0):
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=Tokenizer.load().vocab_size
    )
    keywords = ppo_defaults(envs) if kind is PPO else {}
    if buffer is DictRolloutBuffer:
        keywords.pop("rollout_buffer_kwargs", None)
    return kind(
        Ending,
        envs,
        rollout_buffer_class=buffer,
        policy_kwargs={"model": GPT2LMHeadModel(config), "kl_coef": kl_coef},
        seed=0,
        device="cpu",
        **keywords | {"n_steps": STEPS},
    )


class Watch(BaseCallback):
    """Keeps what each step was paid (before anything moves), the records, and the buffers."""

    def __init__(self):
        super().__init__()
        self.paid, self.records, self.buffers = [], [], []

    def _on_step(self):
        self.paid.append(self.locals["rewards"].copy())
        for row, info in enumerate(self.locals["infos"]):
            if "episode_record" in info:
                self.records.append((len(self.paid) - 1, row, info["episode_record"]))
        return True

    def _on_rollout_end(self):
        buffer = self.locals["rollout_buffer"]
        self.buffers.append(np.array(buffer.rewards).reshape(STEPS, ROWS))


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Minibatches of a few episodes are warned of elsewhere."""


def watched(envs, rollouts=4, **keywords):
    watch = Watch()
    agent_on(envs, **keywords).learn(STEPS * ROWS * rollouts, callback=[watch, HindsightRewards()])
    assert len(watch.buffers) == rollouts
    assert len(watch.records) > 20
    return np.array(watch.paid), watch.records, np.concatenate(watch.buffers)


def expected(paid, records, shares_of):
    """`paid` with what belongs to earlier steps of a rollout moved there, by hand."""
    due = paid.astype(np.float64)
    for step, row, record in records:
        shares = shares_of(record)
        begin = step // STEPS * STEPS  # of this rollout
        for back, share in enumerate(shares[::-1]):
            due[max(step - back, begin), row] += share
        due[step, row] -= shares.sum()
    return due


@pytest.mark.parametrize("kind", [PPO, A2C])
@pytest.mark.parametrize("buffer", [TokenRolloutBuffer, DictRolloutBuffer])
@pytest.mark.parametrize("over", ["uniform", falling])
def test_steps_hold_their_own_share_and_totals_stay(kind, buffer, over):
    envs = make((Redistribute(letters, over), 2.0), tokens)
    paid, records, held = watched(envs, kind=kind, buffer=buffer)
    judge = Redistribute(letters, over)
    due = expected(paid, records, lambda r: 2.0 * judge.per_token_rewards([r])[0].astype(float))
    assert held == pytest.approx(due, abs=1e-6)
    assert held.sum() == pytest.approx(paid.sum(), abs=1e-4)
    whole = 0
    for step, row, record in records:
        count = len(record.completion_ids)
        first = step - count + 1
        total = paid[step, row]  # paid with the last token
        assert held[max(first, step // STEPS * STEPS) : step + 1, row].sum() == pytest.approx(
            total, abs=1e-6
        )
        if first >= step // STEPS * STEPS and count > 1:  # within this rollout: each its own
            (shares,) = judge.per_token_rewards([record])
            assert held[first:step, row] == pytest.approx(2.0 * shares[:-1], abs=1e-6)
            assert held[step, row] == pytest.approx(2.0 * shares[-1] + 0.125 * count, abs=1e-6)
            whole += 1
    assert whole > 10
    assert np.abs(held - paid).max() > 0.1


def test_sums_wrappers_and_monitors():
    sharing = WeightedSum([(Redistribute(letters), 2.0), Shaped(letters), (tokens, 0.5)])
    envs = VecMonitor(make(wrappers=[lambda e: AddReward(e, sharing, weight=0.5)]))
    paid, records, held = watched(envs)
    judge = Redistribute(letters)
    due = expected(paid, records, lambda r: judge.per_token_rewards([r])[0].astype(float))
    assert held == pytest.approx(due, abs=1e-6)


def test_what_was_replaced_is_not_moved():
    first, second = Redistribute(letters, name="first"), Redistribute(tokens, name="second")
    envs = make(first, wrappers=[lambda e: ReplaceReward(e, second)])
    paid, records, held = watched(envs)
    judge = Redistribute(tokens)
    due = expected(paid, records, lambda r: judge.per_token_rewards([r])[0].astype(float))
    assert held == pytest.approx(due, abs=1e-6)


def test_truncated_rows_have_nothing_to_move():
    watch = Watch()
    envs = make(Redistribute(letters), max_episode_steps=3)
    agent_on(envs).learn(STEPS * ROWS, callback=[watch, HindsightRewards()])
    assert len(watch.buffers) == 1


def test_nothing_is_judged_twice():
    asked = []

    def judge(episodes):
        asked.extend(episodes)
        return letters(episodes)

    _, records, _ = watched(make(Redistribute(judge)))
    assert len(asked) == len(records)


def test_what_it_cannot_serve_is_refused():
    def learn(envs):
        agent_on(envs).learn(1, callback=HindsightRewards())

    with pytest.raises(ValueError, match=r"no reward is paid late.*the rewards are: `letters`"):
        learn(make(letters))
    with pytest.raises(ValueError, match="`VecNormalize` has scaled"):
        learn(VecNormalize(make(Redistribute(letters)), norm_obs=False))
    with pytest.raises(ValueError, match=r"\(PPO, A2C\), got DQN"):
        DQN("MlpPolicy", gym.make("CartPole-v1")).learn(1, callback=HindsightRewards())
    with pytest.raises(ValueError, match="needs a `TextVecEnv`, got DummyVecEnv"):
        PPO("MlpPolicy", gym.make("CartPole-v1")).learn(1, callback=HindsightRewards())
