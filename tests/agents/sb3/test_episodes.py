"""Rollouts of whole episodes: rows are parked, prompts shared, tokens counted, all of it exact."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from textgym_agents.lm import SamplingRule, unpack_support
from textgym_agents.lm.episodes import BranchingCache, chooser, play
from textgym_agents.sb3 import (
    HackingAlarms,
    LMPolicy,
    TextMetrics,
    latest_checkpoint,
    load_checkpoint,
    make_vec_env,
    save_checkpoint,
)
from textgym_agents.sb3.grpo import GRPO
from textgym_agents.sb3.reinforce import REINFORCE
from textgym_agents.sb3.rloo import RLOO

BUNDLED = {"prompts": ["Once upon a time there was a fox", "One day"], "max_new_tokens": 12}


@pytest.fixture(scope="module")
def story():
    """Rows of the bundled model: ragged prompts, ends at different times."""
    envs = make_vec_env("textgym/Continuation-v0", n_envs=24, rewards=["length:max=20"], **BUNDLED)
    policy = LMPolicy(envs.observation_space, envs.action_space, lambda _: 1e-4, kl_coef=0.0)
    return envs.envs, policy.lm


def instances_of(envs, count, copies):
    rng = np.random.default_rng(0)
    drawn = [envs.unwrapped.task.draw(rng, "train") for _ in range(count)]
    return [instance for instance in drawn for _ in range(copies)]


def shorter(lm):
    """Samples, with the end-of-sequence token likely enough that rows end at all times."""
    plain, eos = chooser(lm, SamplingRule()), 0

    def choose(hidden, observation):
        tokens, log_probs, support = plain(hidden, observation)
        lengths = observation["attention_mask"].sum(dim=1)
        stop = (torch.arange(len(tokens)) * 7 + lengths) % 5 == 0
        return torch.where(stop, eos, tokens), log_probs, support

    return choose


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP"])
def test_one_episode_a_row_on_its_instance(story, mode):
    _, lm = story
    scored = []

    def count(episodes):
        scored.extend(episodes)
        return [0.0] * len(episodes)

    envs = gym.make_vec(
        "textgym/Continuation-v0",
        num_envs=24,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        rewards=["length:max=20", count],
        **BUNDLED,
    )
    assert envs.unwrapped.tokenizer.eos_token_id == 0
    instances = instances_of(envs, 6, 4)
    torch.manual_seed(0)
    steps = list(play(envs, instances, lm, shorter(lm)))
    records = {row: info for step in steps for row, info in step.infos.items()}
    assert sorted(records) == list(range(24))
    assert len(scored) == 24  # what is parked is never scored
    sizes = [len(step.rows) for step in steps]
    assert sizes[0] == 24 > 12 > sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    for row, info in records.items():
        episode = info["episode_record"]
        assert episode.instance == instances[row]
        chosen = [int(s.tokens[s.rows == row][0]) for s in steps if row in s.rows]
        assert episode.completion_ids.tolist() == chosen
        assert sum(step.rewards[row] for step in steps) == pytest.approx(info["rewards"]["length"])


def test_log_probs_are_those_of_whole_contexts(story, naive_log_probs):
    envs, lm = story
    torch.manual_seed(0)
    steps = list(play(envs, instances_of(envs, 6, 4), lm, chooser(lm, SamplingRule())))
    for row in range(0, 24, 5):
        (episode,) = (s.infos[row]["episode_record"] for s in steps if row in s.infos)
        got = [s.log_probs[s.rows == row][0] for s in steps if row in s.rows]
        with torch.no_grad():
            naive = naive_log_probs(lm, episode.input_ids, episode.completion_mask)
        assert np.allclose(got, naive.numpy(), atol=1e-4)


def test_the_live_rows_alone_are_read(story, monkeypatch):
    """Prompts once an instance; of parked rows never more than ride along with as many others."""
    envs, lm = story
    seen = []
    last_hidden = BranchingCache.last_hidden

    def spy(self, ids, lengths, *prompts):
        seen.append(len(ids))
        return last_hidden(self, ids, lengths, *prompts)

    monkeypatch.setattr(BranchingCache, "last_hidden", spy)
    torch.manual_seed(0)
    steps = list(play(envs, instances_of(envs, 1, 24), lm, shorter(lm)))
    assert seen[0] == 1
    live = [len(step.rows) for step in steps]
    assert all(n <= read < 2 * n for n, read in zip(live[1:], seen[1:], strict=True))


def test_rows_branch(story):
    _, lm = story
    ids = np.random.default_rng(0).integers(1, lm.vocab_size, (3, lm.context_size))
    lengths = np.array([4, 9, 6])
    ids[np.arange(lm.context_size) >= lengths[:, None]] = 0
    cache = BranchingCache(lm, 3, lm.context_size)
    cache.last_hidden(ids, lengths)
    rows = np.array([2, 0, 2, 1, 1])
    cache.take(rows)
    longer, more = ids[rows], lengths[rows] + 1
    longer[np.arange(5), more - 1] = np.arange(5) + 10
    exact = lm.last_hidden(torch.from_numpy(longer), more)
    assert torch.allclose(cache.last_hidden(longer, more), exact, atol=1e-4)


def test_disabled_environments_are_refused(story):
    _, lm = story
    envs = gym.make_vec(
        "textgym/TokenLock-v0", num_envs=2, vectorization_mode="vector_entry_point",
        autoreset_mode="DISABLED",
    )  # fmt: skip
    with pytest.raises(ValueError, match='autoreset_mode="SAME_STEP"'):
        next(play(envs, [], lm, chooser(lm, SamplingRule())))


# ---------------------------------------------------------------------- the learners' rollouts
class Counter(BaseCallback):
    def __init__(self, stop_after=10**9):
        super().__init__()
        self.tokens, self.ended, self.stop_after = [], 0, stop_after

    def _on_step(self):
        self.tokens.append(self.num_timesteps)
        self.ended += int(self.locals["dones"].sum())
        return len(self.tokens) < self.stop_after


def test_timesteps_are_the_tokens_written(lock):
    agent = lock.agent(GRPO)
    counter = Counter()
    agent.learn(1, callback=[counter, TextMetrics(), HackingAlarms()], log_interval=None)
    buffer = agent.rollout_buffer
    episodes = [buffer.episode(row) for row in range(64)]
    written = sum(len(episode.completion_ids) for episode in episodes)
    assert agent.num_timesteps == written == len(buffer.actions) == buffer.counts.sum()
    assert written < 64 * 3
    assert counter.ended == 64
    assert counter.tokens[-1] == written
    lengths = [len(episode.completion_ids) for episode in episodes]
    assert np.mean([i["l"] for i in agent.ep_info_buffer]) == np.mean(lengths)
    logged = agent.logger.name_to_value
    returns = [lock.task.score(episode) for episode in episodes]
    assert logged["rollout/score"] == pytest.approx(np.mean(returns))
    for first in range(0, 64, 8):
        assert len({episode.instance for episode in episodes[first : first + 8]}) == 1
    assert len({episode.instance for episode in episodes}) > 1


def test_a_callback_stops_a_rollout(lock):
    agent = lock.agent(GRPO)
    agent.learn(10**6, callback=Counter(stop_after=2))
    assert agent.num_timesteps <= 128


def test_the_buffer_holds_what_happened(lock, collect):
    agent = lock.agent(RLOO, kl_coef=0.3, env={"reward": "dense"})
    buffer = collect(agent)
    ref = agent.policy.reference
    with torch.no_grad():
        for parameter in ref.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    buffer = collect(agent)
    assert (buffer.log_probs != buffer.ref_log_probs).any()
    paid, first = [], 0
    for row, count in enumerate(buffer.counts):
        episode = buffer.episode(row)
        own = slice(first, first + count)
        assert buffer.actions[own].tolist() == episode.completion_ids.tolist()
        assert buffer.positions[own].tolist() == list(range(count))
        (task_rewards,) = agent.env.envs.unwrapped.task.token_rewards([episode])
        kl = buffer.log_probs[own] - buffer.ref_log_probs[own]
        assert np.allclose(buffer.rewards[own], task_rewards - 0.3 * kl, atol=1e-6)
        to_go = np.cumsum(buffer.rewards[own][::-1], dtype=float)[::-1]
        assert np.allclose(buffer.returns_to_go()[own], to_go, atol=1e-6)
        paid.append(buffer.rewards[own].sum())
        first += count
    assert np.allclose(buffer.episode_returns(), paid, atol=1e-6)
    stats = agent.policy.kl_stats
    log_ratio = buffer.log_probs - buffer.ref_log_probs
    assert stats["per_sequence"] == pytest.approx(log_ratio.sum() / 64, rel=1e-5)


def test_minibatches_are_whole_episodes_and_hold_every_token_once(lock, collect):
    agent = lock.agent(GRPO)
    buffer = collect(agent)
    buffer.advantages = np.arange(len(buffer.actions), dtype=np.float32)
    parts = list(buffer.get(40))
    assert len(parts) == round(len(buffer.actions) / 40)
    seen = torch.cat([part.advantages for part in parts])
    assert sorted(seen.tolist()) == buffer.advantages.tolist()
    for part in parts:
        where = part.advantages.long().numpy()
        assert part.actions.tolist() == buffer.actions[where].tolist()
        assert part.counts.sum() == len(where)
        assert torch.allclose(
            agent.policy.packed_log_probs(part.observations), part.old_log_prob, atol=1e-5
        )


def test_top_p_keeps_what_tokens_were_chosen_among(lock, collect):
    agent = lock.agent(GRPO, policy_kwargs={"top_p": 0.7, "temperature": 0.8})
    buffer = collect(agent)
    (samples,) = buffer.get()
    log_prob = agent.policy.packed_log_probs(samples.observations)
    assert torch.allclose(log_prob, samples.old_log_prob, atol=1e-5)
    among = unpack_support(samples.observations.support, 5)
    assert among.sum(dim=1).max() < 5
    assert among.gather(1, samples.actions[:, None]).all()


def test_saved_agents_go_on_with_the_next_instances(lock, tmp_path):
    one, other = lock.agent(REINFORCE, rows=16), lock.agent(REINFORCE, rows=16)
    one.learn(1)
    one.save(tmp_path / "agent.zip")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="a learning rate of")
        loaded = REINFORCE.load(tmp_path / "agent.zip", env=lock.envs(16), device="cpu")
    assert (loaded.means.of(None, 3) == one.means.of(None, 3)).all()
    assert loaded._draw() == one._draw()
    assert loaded._draw() != other._draw()


@pytest.mark.parametrize("cls", [GRPO, REINFORCE])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(lock, tmp_path, cls):
    def states(agent):
        return {k: v for k, v in agent.policy.state_dict().items() if isinstance(v, torch.Tensor)}

    straight = lock.agent(cls, rows=16, group_size=4)
    straight.learn(200)
    save_checkpoint(tmp_path, straight)
    straight.learn(200, reset_num_timesteps=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="a learning rate of")
        resumed = load_checkpoint(
            latest_checkpoint(tmp_path), lock.envs(16), algorithm=cls, device="cpu"
        )
    resumed.learn(200, reset_num_timesteps=False)
    assert resumed.num_timesteps == straight.num_timesteps
    expected = states(straight)
    for name, value in states(resumed).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 7}, "must divide the 64 rows"),
        ({"group_size": 1}, "at least 2"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"loss_average": "mean"}, "`loss_average`"),
        ({"kl": "k1"}, "`kl`"),
        ({"clip_range": 0.0}, "`clip_range`"),
    ],
)
def test_wrong_options(lock, options, message):
    with pytest.raises(ValueError, match=message):
        lock.agent(GRPO, **options)


@pytest.mark.filterwarnings("ignore:The environment is already wrapped")
def test_wrong_policies_and_environments(lock):
    with pytest.raises(ValueError, match="`LMPolicy`"):
        GRPO("MlpPolicy", lock.envs())
    with pytest.raises(ValueError, match="make_vec_env"):
        GRPO(LMPolicy, VecMonitor(lock.envs()))
