"""Ids, keyword arguments and what importing costs."""

import subprocess
import sys

import gymnasium as gym
import pytest
from gymnasium.vector import AutoresetMode

import textgym
from textgym.registration import REGISTRY

CONTINUATION = "textgym/Continuation-v0"


def test_every_id_is_registered_and_described():
    assert textgym.list_ids() == sorted(REGISTRY)
    for id, row in REGISTRY.items():
        assert id in gym.registry
        assert row.id == id
        assert row.summary.endswith(".")
        assert "\n" not in row.summary
        assert row.task_class().__doc__


def test_keyword_arguments_go_where_they_are_known(tokenizer):
    env = gym.make(CONTINUATION, prompts=["Hi there"], tokenizer=tokenizer, max_new_tokens=3)
    assert env.reset(seed=0)[1]["prompt"] == "Hi there"
    assert env.unwrapped.max_new_tokens == 3
    envs = gym.make_vec(
        CONTINUATION,
        num_envs=3,
        vectorization_mode="vector_entry_point",
        prompts=["Hi there"],
        tokenizer=tokenizer,
        autoreset_mode="SAME_STEP",
        max_episode_steps=2,
        rewards=["length:4"],
    )
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert (envs.num_envs, envs.unwrapped.max_episode_steps) == (3, 2)


@pytest.mark.parametrize(
    ("wrong", "meant"), [("promts", "prompts"), ("max_tokens", "max_new_tokens")]
)
def test_unknown_keyword_arguments_list_near_matches(tokenizer, wrong, meant):
    for make in (gym.make, gym.make_vec):
        with pytest.raises(TypeError, match=f"unknown argument `{wrong}`.*`{meant}`"):
            make(CONTINUATION, tokenizer=tokenizer, **{wrong: 1})


def test_sync_mode_and_time_limits_of_gymnasium_work(tokenizer):
    envs = gym.make_vec(
        CONTINUATION, 2, vectorization_mode="sync", tokenizer=tokenizer, max_episode_steps=2
    )
    envs.reset(seed=0)
    envs.step([70, 70])
    assert envs.step([70, 70])[3].all()


def test_public_names_are_there():
    for name in textgym.__all__:
        assert getattr(textgym, name) is not None
        assert name in dir(textgym)
    with pytest.raises(AttributeError, match="TokenEvn"):
        _ = textgym.TokenEvn


def test_module_ids_register_and_nothing_imports_a_learner(run_fresh):
    """In a fresh interpreter: the id alone brings in the package, and no torch with it."""
    code = """
import sys
import gymnasium
env = gymnasium.make("textgym:textgym/Continuation-v0", tokenizer=sys.argv[1])
env.reset(seed=0)
for _ in range(60):
    if env.step(env.action_space.sample())[2]:
        env.reset()
vector = gymnasium.make_vec("textgym/Continuation-v0", num_envs=2, tokenizer=sys.argv[1])
vector.reset(seed=0)
vector.step(vector.action_space.sample())
heavy = {"torch", "transformers", "stable_baselines3", "datasets", "huggingface_hub", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    run_fresh(code)


def test_import_is_fast(run_fresh):
    """Milliseconds beyond what it needs; what is heavy is imported when an environment is made."""
    code = """
import sys, time
import gymnasium, numpy
start = time.process_time()
import textgym
seconds = time.process_time() - start
assert seconds < 0.2, seconds
assert not {"torch", "tokenizers", "transformers"} & set(sys.modules)
"""
    run_fresh(code)


@pytest.fixture
def run_fresh(tokenizer, tmp_path):
    """`run_fresh(code)`: run it in a new interpreter, with a tokenizer's directory as argument."""
    tokenizer.save(tmp_path)

    def run_fresh(code):
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run_fresh
