"""Observations made flat, or text: by hand, in every autoreset mode, and back again."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym import RewardError
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.wrappers import get_state, set_state
from textgym.wrappers.completion_actions import CompletionActions
from textgym.wrappers.flat_observation import (
    FlatObservation,
    SingleFlatObservation,
    VectorFlatObservation,
)
from textgym.wrappers.remaining_budget import RemainingBudget
from textgym.wrappers.text_observation import TextObservation, UnicodeText

MODES = list(AutoresetMode)
by_name = {"ids": lambda mode: mode.name}
WRAPPERS = {
    "ids": lambda env: FlatObservation(env, "ids", last=5),
    "whole": lambda env: FlatObservation(env, "ids", last=None, remaining=False),
    "one_hot": lambda env: FlatObservation(env, "one_hot", last=2),
    "budget": lambda env: RemainingBudget(FlatObservation(env, "ids", last=5, remaining=False)),
    "text": TextObservation,
}


@pytest.fixture(params=WRAPPERS.values(), ids=WRAPPERS)
def wrap(request):
    return request.param


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version")
def test_gymnasium_check_env_without_warnings(copy_task, tokenizer, wrap):
    check_env(wrap(TokenEnv(copy_task, tokenizer=tokenizer)), skip_render_check=True)


def test_the_last_tokens_by_hand(copy_task, tokenizer):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    plain, _ = env.reset(seed=0)
    context = plain["input_ids"][: plain["attention_mask"].sum()].tolist()
    size, capacity = tokenizer.vocab_size, env.context_size
    ids = FlatObservation(env, "ids", last=3)
    assert isinstance(ids, SingleFlatObservation)
    assert ids.reset(seed=0)[0].tolist() == [*context[-3:], 1.0]
    assert ids.step(70)[0].tolist() == pytest.approx([*context[-2:], 70, 5 / 6])
    whole = FlatObservation(env, "ids", last=None, remaining=False)
    padding = [-1] * (capacity - len(context))
    assert whole.reset(seed=0)[0].tolist() == [*padding, *context]
    hot = FlatObservation(env, "one_hot", last=capacity, remaining=False)
    observation, _ = hot.reset(seed=0)
    table = observation.reshape(capacity, size)
    assert observation.dtype == np.float32
    assert table.sum(axis=1).tolist() == [0] * len(padding) + [1] * len(context)
    assert table[len(padding) :].argmax(axis=1).tolist() == context


@pytest.mark.parametrize("mode", MODES, **by_name)
def test_vector_equals_single_ones(task, tokenizer, wrap, random_actions, same, mode):
    limit = {"tokenizer": tokenizer, "max_episode_steps": 5}
    native = wrap(TokenVectorEnv(task, 3, autoreset_mode=mode, **limit))
    sync = SyncVectorEnv([lambda: wrap(TokenEnv(task, **limit))] * 3, autoreset_mode=mode)
    assert native.single_observation_space == sync.single_observation_space
    assert native.observation_space == sync.observation_space
    assert same(native.reset(seed=[3, 1, 4]), sync.reset(seed=[3, 1, 4]))
    finals = 0
    for actions in random_actions(0, (40, 3)):
        step = native.step(actions)
        assert same(step, sync.step(actions))
        assert step[0] in native.observation_space
        over = step[2] | step[3]
        if mode is AutoresetMode.SAME_STEP and over.any():
            finals += over.sum()
            row = np.flatnonzero(over)[0]
            assert step[4]["final_obs"][row] in native.single_observation_space
        if mode is AutoresetMode.DISABLED and over.any():
            options = [{"reset_mask": over.copy()} for _ in range(2)]
            assert same(native.reset(options=options[0]), sync.reset(options=options[1]))
    assert finals > 10 or mode is not AutoresetMode.SAME_STEP


@pytest.mark.parametrize("mode", MODES, **by_name)
def test_the_budget_counted_is_the_budget_observed(task, tokenizer, random_actions, mode):
    envs = TokenVectorEnv(task, 3, tokenizer=tokenizer, autoreset_mode=mode, max_episode_steps=5)
    twin = TokenVectorEnv(task, 3, tokenizer=tokenizer, autoreset_mode=mode, max_episode_steps=5)
    counted = RemainingBudget(FlatObservation(envs, "ids", last=2, remaining=False))
    observed = FlatObservation(twin, "ids", last=2, remaining=True)
    assert isinstance(observed, VectorFlatObservation)
    counted.reset(seed=0)
    observed.reset(seed=0)
    for actions in random_actions(1, (40, 3)):
        ours, theirs = counted.step(actions), observed.step(actions)
        assert np.array_equal(ours[0], theirs[0])
        over = ours[2] | ours[3]
        if mode is AutoresetMode.DISABLED and over.any():
            counted.reset(options={"reset_mask": over})
            observed.reset(options={"reset_mask": over})


def test_texts(copy_task, guess_task, tokenizer, play):
    env = TextObservation(TokenEnv(copy_task, tokenizer=tokenizer))
    text, info = env.reset(seed=0)
    assert text == info["prompt"]
    observation, _, terminated, _, info = play(env, "12é")[-1]
    assert terminated
    assert observation == info["prompt"] + "12é"
    env = TextObservation(TokenEnv(guess_task, tokenizer=tokenizer))
    text, _ = env.reset(seed=0)
    (reply,) = (step[0] for step in play(env, "", stop=True))
    assert reply == text + " No. Try again."
    envs = TextObservation(TokenVectorEnv(copy_task, 2, tokenizer=tokenizer))
    texts, infos = envs.reset(seed=0)
    assert texts == tuple(infos["prompt"])


def test_the_text_space_holds_what_can_come(copy_task, tokenizer):
    env = TextObservation(TokenEnv(copy_task, tokenizer=tokenizer, max_new_tokens=40))
    rng = np.random.default_rng(0)
    for _ in range(30):  # broken UTF-8 among it
        env.reset()
        over = False
        while not over:
            text, _, over, _, _ = env.step(rng.integers(tokenizer.vocab_size))
            assert text in env.observation_space
    assert "\U0001f98a" in UnicodeText(1)
    assert "ab" not in UnicodeText(1)
    assert 3 not in UnicodeText(1)


def test_snapshots(guess_task, tokenizer, wrap, random_actions, same):
    def rollout(envs, actions):
        return [envs.step(a) for a in actions]

    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        envs, twin = (
            wrap(TokenVectorEnv(guess_task, 3, tokenizer=tokenizer, autoreset_mode=mode))
            for _ in range(2)
        )
        envs.reset(seed=0)
        twin.reset(seed=9)
        actions = random_actions(2, (30, 3))
        rollout(envs, actions[:13])
        state = get_state(envs)
        future = rollout(envs, actions[13:])
        set_state(twin, state)
        assert same(rollout(twin, actions[13:]), future)
    single = wrap(TokenEnv(guess_task, tokenizer=tokenizer))
    single.reset(seed=0)
    single.step(70)
    state = single.get_state()
    future = single.step(71)
    single.reset()
    single.set_state(state)
    assert same(single.step(71), future)


def test_a_step_whose_reward_failed_is_observed_alike(copy_task, tokenizer, wrap):
    def fail(episodes):
        raise RuntimeError("no judge today")

    env = wrap(TokenEnv(copy_task, tokenizer=tokenizer, rewards=[fail]))
    env.reset(seed=0)
    with pytest.raises(RewardError) as caught:
        env.step(tokenizer.eos_token_id)
    assert caught.value.result[0] in env.observation_space
    envs = TokenVectorEnv(
        copy_task, 2, tokenizer=tokenizer, rewards=[fail], autoreset_mode="SAME_STEP"
    )
    envs = wrap(envs)
    envs.reset(seed=0)
    with pytest.raises(RewardError) as caught:
        envs.step(np.array([tokenizer.eos_token_id, 70]))
    observation, *_, infos = caught.value.result
    assert observation in envs.observation_space
    assert infos["final_obs"][0] in envs.single_observation_space


def test_wrappers_can_be_made_again_from_their_spec():
    env = FlatObservation(gym.make("textgym/Story-v0"), "ids", last=4, remaining=False)
    again = gym.make(env.spec)
    assert isinstance(again, SingleFlatObservation)
    assert again.reset(seed=0)[0].shape == (4,)


def test_wrong_combinations_are_refused(copy_task, tokenizer):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="one of ids, one_hot, got 'onehot'"):
        FlatObservation(env, "onehot")
    with pytest.raises(ValueError, match="`last` must be a positive int, got 0"):
        FlatObservation(env, last=0)
    with pytest.raises(TypeError, match="reads `input_ids`"):
        FlatObservation(TextObservation(env))
    with pytest.raises(TypeError, match="reads `input_ids`"):
        TextObservation(gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match="flat first"):
        RemainingBudget(env)
    with pytest.raises(ValueError, match="inside `CompletionActions`"):
        RemainingBudget(CompletionActions(FlatObservation(env)))
    with pytest.raises(TypeError, match="token environment"):
        RemainingBudget(gym.make("CartPole-v1"))
