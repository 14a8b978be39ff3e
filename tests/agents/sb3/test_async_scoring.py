"""`AsyncScoring`: the same as without it, bit for bit, and rewards go wrong in the same words."""

from __future__ import annotations

import contextlib
import functools
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from textgym.errors import RewardError
from textgym.rewards import FunctionReward, Reward
from textgym.rewards.shaping import Shaped
from textgym.wrappers import AddReward, ReplaceReward
from textgym_agents.sb3 import (
    AsyncScoring,
    CheckpointCallback,
    HindsightRewards,
    TextMetrics,
    load_checkpoint,
    make_vec_env,
)

from .test_hindsight import ROWS, STEPS, make
from .test_hindsight import agent_on as any_agent_on

agent_on = functools.partial(any_agent_on, kl_coef=0.1)


def letters(episodes):
    return [1.1 + np.sin(3.0 * len(e.completion_text)) for e in episodes]


class Slow(Reward):
    """What `letters` says, after a while; which calls there were, and in which threads."""

    def __init__(self, name="slow", seconds=0.002, thread_safe=False):
        self.name, self.seconds, self.thread_safe = name, seconds, thread_safe
        self.calls, self.threads, self.at_once, self.most_at_once = [], set(), 0, 0

    def __call__(self, episodes):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.calls.append([e.completion_text for e in episodes])
        self.threads.add(threading.current_thread())
        time.sleep(self.seconds)
        self.at_once -= 1
        return np.array(letters(episodes), np.float32)


class Watch(BaseCallback):
    """Keeps buffers, what was logged, and the infos of episodes."""

    def __init__(self):
        super().__init__()
        self.buffers, self.logged, self.infos = [], [], []

    def _on_step(self):
        self.infos += [info for info in self.locals["infos"] if "episode_record" in info]
        return True

    def _on_rollout_end(self):
        buffer = self.locals["rollout_buffer"]
        self.buffers.append((buffer.rewards.copy(), buffer.advantages.copy()))
        mean = np.mean([one["r"] for one in self.model.ep_info_buffer])
        self.logged.append((mean, dict(self.logger.name_to_value)))


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Minibatches of a few episodes are warned of elsewhere."""


def trained(envs, *callbacks, rollouts=4, **keywords):
    watch = Watch()
    agent = agent_on(envs, **keywords)
    agent.learn(STEPS * ROWS * rollouts, callback=[*callbacks, TextMetrics(), watch])
    return agent, watch


def assert_same(one, other):
    (agent, watch), (agent2, watch2) = one, other
    assert len(watch.infos) > 20
    for info, info2 in zip(watch.infos, watch2.infos, strict=True):
        assert info["episode_record"] == info2["episode_record"]
        assert info["rewards"] == info2["rewards"]
        assert info["episode"]["r"] == info2["episode"]["r"]
    for arrays, arrays2 in zip(watch.buffers, watch2.buffers, strict=True):
        for array, array2 in zip(arrays, arrays2, strict=True):
            np.testing.assert_array_equal(array, array2)
    for (mean, logged), (mean2, logged2) in zip(watch.logged, watch2.logged, strict=True):
        assert mean == mean2
        assert {k: v for k, v in logged.items() if k.startswith("rollout")} == {
            k: v for k, v in logged2.items() if k.startswith("rollout")
        }
    for key, value in agent.policy.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, agent2.policy.state_dict()[key]), key


@pytest.mark.parametrize("kind", [PPO, A2C])
@pytest.mark.parametrize("thread_safe", [False, True])
def test_equals_synchronous_scoring(kind, thread_safe):
    def run(*callbacks):
        slow = Slow(thread_safe=thread_safe)
        rewards = [Shaped("length:10"), "length:max=4", (slow, 0.3), (letters, -0.7)]
        return trained(make(*rewards), *callbacks, kind=kind), slow

    one, slow = run()
    other, slow_async = run(AsyncScoring(3))
    assert_same(one, other)
    main = threading.current_thread()
    assert slow.threads == {main}
    assert main not in slow_async.threads
    assert len(slow_async.threads) == (3 if thread_safe else 1)
    if thread_safe:
        assert slow_async.most_at_once > 1
    else:  # the very calls, in the very order
        assert slow_async.most_at_once == 1
        assert slow_async.calls == slow.calls


def test_equals_synchronous_scoring_in_wrappers():
    def run(*callbacks):
        def inner(episodes):
            return [100.0] * len(episodes)

        wrappers = [
            lambda envs: AddReward(envs, inner, name="slow"),
            lambda envs: ReplaceReward(envs, Slow()),
            lambda envs: AddReward(envs, letters, weight=2.0),
        ]
        envs = make_vec_env(
            "textgym/Continuation-v0",
            n_envs=ROWS,
            seed=0,
            prompts=["One day"],
            max_new_tokens=6,
            wrappers=wrappers,
        )
        return trained(envs, *callbacks)

    one, other = run(), run(AsyncScoring(2))
    assert_same(one, other)
    assert set(other[1].infos[0]["rewards"]) == {"slow", "letters"}


def test_with_shares_that_another_callback_moves():
    """The reward that is moved, and one that is filled in, meet in the step of the last token."""

    def run(*callbacks):
        envs = make("redistribute(length:10; over=uniform)", Slow())
        return trained(envs, HindsightRewards(), *callbacks, kl_coef=0.0)

    (_, watch), (_, watch2) = run(), run(AsyncScoring(2))
    for (rewards, _), (rewards2, _) in zip(watch.buffers, watch2.buffers, strict=True):
        np.testing.assert_allclose(rewards, rewards2, atol=1e-6)


def test_rows_that_are_cut_are_not_waited_for():
    def run(*callbacks):
        return trained(make(Slow(), max_episode_steps=4), *callbacks)

    assert_same(run(), run(AsyncScoring(2)))


def test_generation_does_not_wait_for_scores():
    """No score comes before the rollout is over, or it would never be."""
    over = threading.Event()

    def patient(episodes):
        return letters(episodes) if over.wait(60) else None

    envs = make(patient)
    agent = agent_on(envs)
    compute = agent.rollout_buffer.compute_returns_and_advantage

    def now_over(*arguments, **keywords):
        assert agent.rollout_buffer.full
        over.set()
        compute(*arguments, **keywords)

    agent.rollout_buffer.compute_returns_and_advantage = now_over
    agent.learn(STEPS * ROWS, callback=AsyncScoring(1))
    assert over.is_set()


class Cracks(Reward):
    """Goes wrong over one text of every rollout, in a way of its own."""

    name = "cracks"

    def __init__(self, how, thread_safe):
        self.how, self.thread_safe = how, thread_safe
        self.timeout = 0.2 if how == "hangs" else None

    def __call__(self, episodes):
        bad = [len(e.completion_ids) == 4 for e in episodes]
        if any(bad) and self.how == "raises":
            raise ZeroDivisionError("nothing to divide")
        if any(bad) and self.how == "hangs":
            time.sleep(30)
        values = np.where(bad, np.nan, letters(episodes))
        return values[:, None] if any(bad) and self.how == "shape" else values


@pytest.mark.parametrize("thread_safe", [False, True])
@pytest.mark.parametrize("how", ["raises", "hangs", "shape", "nan"])
def test_goes_wrong_in_the_same_words(how, thread_safe):
    said = []
    for callbacks in ([], [AsyncScoring(2)]):
        with pytest.raises(RewardError) as caught:
            trained(make("length:4", Cracks(how, thread_safe)), *callbacks, rollouts=1)
        error = caught.value
        said.append((str(error), error.reward_name, error.row, error.episode))
    assert said[0] == said[1]
    assert "for the completion" in said[0][0]


def test_a_failure_that_passes_costs_nothing():
    calls = []

    def flaky(episodes):
        calls.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            raise OSError("not now")
        return letters(episodes)

    assert_same(
        trained(make(FunctionReward(letters, name="flaky"))),
        trained(make(flaky), AsyncScoring(2)),
    )
    assert len(set(calls)) == 2


def test_a_call_that_hangs_for_once_costs_nothing():
    hung = threading.Event()

    def late(episodes):
        if not hung.is_set() and threading.current_thread() is not threading.main_thread():
            hung.set()
            time.sleep(30)
        return letters(episodes)

    envs = make(FunctionReward(late, timeout=0.2))
    other = trained(envs, AsyncScoring(2))
    assert hung.is_set()
    assert_same(trained(make(FunctionReward(letters, name="late"))), other)


@pytest.mark.parametrize(
    ("rewards", "keywords", "told"),
    [
        (["normalize(length:4)"], {}, "`normalize` learns as it is used"),
        (["constraint(length:4; at_most=0.1)"], {}, "`constraint` learns as it is used"),
        (["clip(normalize(length:4); low=0; high=1)"], {}, "`clip` learns as it is used"),
        ([Shaped("length:10")], {}, "`shaped` is paid token by token"),
        ([], {}, "no reward is added to the score"),
        ([letters], {"buffer": DictRolloutBuffer, "kl_coef": 0.0}, "not DictRolloutBuffer"),
    ],
)
def test_what_cannot_wait_is_scored_at_once(rewards, keywords, told):
    with pytest.warns(UserWarning, match=told):
        other = trained(make(*rewards), AsyncScoring(2), **keywords)
    assert_same(trained(make(*rewards), **keywords), other)


def test_rewards_that_others_would_miss_are_paid_at_once():
    class Doubles(gym.vector.VectorRewardWrapper):
        def rewards(self, reward):
            return 2 * reward

    def run(*callbacks):
        wrapped = {"wrappers": [Doubles], "prompts": ["One day"], "max_new_tokens": 6}
        envs = make_vec_env(
            "textgym/Continuation-v0", n_envs=ROWS, seed=0, rewards=[letters], **wrapped
        )
        return trained(envs, *callbacks)

    with pytest.warns(UserWarning, match="Doubles might change rewards"):
        other = run(AsyncScoring(2))
    assert_same(run(), other)
    with pytest.warns(UserWarning, match="VecMonitor would not see"):
        other = trained(VecMonitor(make(letters)), AsyncScoring(2))
    assert_same(trained(VecMonitor(make(letters))), other)


def test_environments_pay_for_themselves_afterwards():
    envs = make(letters)

    def earned():
        envs.seed(0)
        envs.reset()
        for _ in range(6):
            _, rewards, _, infos = envs.step(np.full(ROWS, 5))
        assert not np.isnan([info["rewards"]["letters"] for info in infos]).any()
        return rewards

    before = earned()
    agent = agent_on(envs)
    agent.learn(STEPS * ROWS, callback=AsyncScoring(2))
    assert agent.rollout_buffer.settle is None
    assert envs.late is None
    np.testing.assert_array_equal(earned(), before)

    class Stops(BaseCallback):
        def _on_step(self):
            if self.num_timesteps > 6 * ROWS:
                raise KeyError("in the middle")
            return True

    with pytest.raises(KeyError):
        agent.learn(STEPS * ROWS, callback=[AsyncScoring(2), Stops()])
    np.testing.assert_array_equal(earned(), before)


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("error", [True, False])
def test_a_rollout_broken_off_leaves_nothing_behind(again, error):
    """What ended in it counts as an episode, but is not paid in the next one's buffer."""

    class Breaks(BaseCallback):
        def _on_step(self):
            middle = self.num_timesteps == (STEPS - 2) * ROWS
            if middle and error:
                raise KeyError("in the middle")
            return not middle

    def run(*kinds):
        agent, watch = agent_on(make(letters)), Watch()
        with contextlib.suppress(KeyError):
            agent.learn(STEPS * ROWS, callback=[*(kind(2) for kind in kinds), Breaks()])
        assert agent.num_timesteps == (STEPS - 2) * ROWS
        more = [*(kind(2) for kind in kinds if again), watch, TextMetrics()]
        agent.learn(3 * STEPS * ROWS, callback=more, reset_num_timesteps=False)
        return agent, watch

    assert_same(run(), run(AsyncScoring))


def test_resumed_equals_never_stopped(tmp_path):
    agent, _ = trained(
        make(Slow(thread_safe=True)), AsyncScoring(3), CheckpointCallback(tmp_path, 1, keep=9)
    )
    middle = sorted(tmp_path.iterdir())[1]
    again = load_checkpoint(middle, make(Slow(thread_safe=True)))
    left = agent.num_timesteps - again.num_timesteps
    assert left > 0
    again.learn(left, callback=AsyncScoring(3), reset_num_timesteps=False)
    for key, value in agent.policy.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, again.policy.state_dict()[key]), key


def test_threads_end_with_the_training():
    before = set(threading.enumerate())
    slow = Slow(thread_safe=True)
    trained(make(slow, letters), AsyncScoring(3), rollouts=1)
    assert len(slow.threads) == 3
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("workers", [0, -1, True, 2.0])
def test_refuses_what_is_no_number_of_workers(workers):
    with pytest.raises((TypeError, ValueError), match="`workers` must be a positive int"):
        AsyncScoring(workers)
