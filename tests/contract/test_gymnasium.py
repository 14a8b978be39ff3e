"""Every registered id keeps Gymnasium's rules, and those of the token MDP."""

import copy
import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from textgym.tasks.base import Task

ENTRY_POINT = {"vectorization_mode": "vector_entry_point"}


@pytest.fixture
def make(row):
    return lambda **kwargs: gym.make(row.id, **{**row.smoke_kwargs, **kwargs})


@pytest.fixture
def make_vec(row):
    return lambda n, **kwargs: gym.make_vec(row.id, n, **{**row.smoke_kwargs, **kwargs})


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return all(map(equal, a, b)) if a.dtype == object else np.array_equal(a, b)
    return type(a) is type(b) and a == b


def actions_of(space, steps, num_envs, eos, rng):
    tokens = rng.integers(space.n, size=(steps, num_envs))
    return np.where(rng.random(tokens.shape) < 0.1, eos, tokens)


def test_gymnasium_check_env_without_warnings(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(disable_env_checker=True).unwrapped)


def test_stable_baselines3_check_env_without_warnings(make):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(make(), warn=True)
        checker.check_env(make(render_mode="rgb_array"), warn=True, skip_render_check=False)


def test_seeds_decide_everything(make, make_vec):
    single, twin, third = make(), make(), make()
    _, info = single.reset(seed=4)
    assert twin.reset(seed=4)[1] == info
    third.reset(seed=5)
    vector = make_vec(3, **ENTRY_POINT)
    assert vector.reset(seed=4)[1]["prompt"][0] == info["prompt"]
    assert vector.reset(seed=[1, 4, 2])[1]["prompt"][1] == info["prompt"]
    for _ in range(10):
        third.reset()
        assert single.reset()[1] == twin.reset()[1]


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_native_vector_equals_sync_mode(make_vec, mode):
    native = make_vec(4, autoreset_mode=mode, **ENTRY_POINT)
    sync = make_vec(4, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    assert native.single_observation_space == sync.single_observation_space
    assert native.action_space == sync.action_space
    seeds = [3, 1, 4, 1]
    assert all(map(equal, native.reset(seed=seeds), sync.reset(seed=seeds)))
    rng = np.random.default_rng(0)
    space = native.single_action_space
    for actions in actions_of(space, 80, 4, space.eos_token_id, rng):
        step = native.step(actions)
        assert all(map(equal, step, sync.step(actions)))
        assert step[0] in native.observation_space
        if mode is AutoresetMode.DISABLED and step[2].any():
            reset = native.reset(options={"reset_mask": step[2]})
            assert all(map(equal, reset, sync.reset(options={"reset_mask": step[2].copy()})))


def test_splits_are_disjoint_and_prompts_fit(row, make_vec):
    prompts = {}
    for split in ("train", "test"):
        envs = make_vec(64, split=split, **ENTRY_POINT)
        envs.reset(seed=0)
        prompts[split] = {p for _ in range(8) for p in envs.reset()[1]["prompt"]}
    if len(prompts["train"]) < 16:  # too few to split: both ask all of them
        assert prompts["train"] == prompts["test"]
        return
    assert not prompts["train"] & prompts["test"]
    assert row.task_class().has_oracle is False or len(prompts["train"]) > 400


def test_neighbouring_seeds_share_almost_no_prompts(row, make_vec):
    if not row.task_class().has_oracle:
        pytest.skip("the prompts are the user's own, however few")
    envs = make_vec(64, **ENTRY_POINT)
    drawn = [set(envs.reset(seed=seed)[1]["prompt"]) for seed in range(8)]
    for i, prompts in enumerate(drawn):
        for other in drawn[:i]:
            assert len(prompts & other) < 0.01 * 64


def test_options_are_never_mutated(make):
    env = make()
    env.reset(seed=0)
    instance = env.unwrapped.task.sample(np.random.default_rng(0))
    choices = [{"instance": instance}, {"index": 3}, {}]
    if type(env.unwrapped.task).from_prompt is not Task.from_prompt:
        choices.append({"prompt": instance.prompt})
    for options in choices:
        before = copy.deepcopy(options)
        _, info = env.reset(options=options)
        assert options == before
        if "index" not in options and options:
            assert info["prompt"] == instance.prompt


def test_envs_and_snapshots_are_picklable(make):
    env = make()
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(20)]
    for action in actions[:5]:
        env.step(action)
    state = pickle.loads(pickle.dumps(env.unwrapped.get_state()))
    twin = pickle.loads(pickle.dumps(env))
    third = make()
    third.reset(seed=9)
    third.unwrapped.set_state(state)
    for action in actions[5:]:
        step = env.step(action)
        assert all(map(equal, step, twin.step(action)))
        assert all(map(equal, step, third.step(action)))
        if step[2]:
            break


def test_an_invalid_action_names_the_token_and_v(make):
    env = make()
    env.reset(seed=0)
    size = int(env.action_space.n)
    with pytest.raises(ValueError, match=rf"action {size} .* {size}"):
        env.unwrapped.step(size)


def test_every_render_mode(make):
    for mode, kind in (("ansi", str), ("rgb_array", np.ndarray)):
        env = make(render_mode=mode)
        env.reset(seed=0)
        assert isinstance(env.render(), kind)


def test_the_row_is_plain_data(row):
    json.dumps([row.id, row.task, row.summary, dict(row.smoke_kwargs)])
