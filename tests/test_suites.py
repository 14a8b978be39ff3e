"""Suites are data that says what determines numbers; what is known exactly is that of the env."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from textgym import exact
from textgym.suites import SUITES, Suite, SuiteTask, find_suite, synonyms
from textgym.tasks.token_lock import TokenLockTask

LOCK = "textgym/TokenLock-v0"
SMALL = {"vocab_size": 5, "keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1}


def every_task():
    return [
        pytest.param(suite, task, id=f"{suite.name}/{task.name}")
        for suite in SUITES.values()
        for task in suite.tasks
    ]


def random_return(task: SuiteTask, episodes: int) -> tuple[float, float]:
    """Mean and standard error of uniformly random actions, by stepping the environment."""
    envs = task.make_envs("test")
    rng = np.random.default_rng(0)
    envs.reset(seed=0)
    totals, running = [], np.zeros(envs.num_envs)
    while len(totals) < episodes:
        actions = rng.integers(envs.single_action_space.n, size=envs.num_envs)
        _, rewards, terminated, truncated, _ = envs.step(actions)
        running += rewards
        over = terminated | truncated
        totals += running[over].tolist()
        running[over] = 0.0
    return float(np.mean(totals)), float(np.std(totals) / len(totals) ** 0.5)


# ---------------------------------------------------------------- data
def test_a_hash_is_that_of_canonical_json():
    suite = Suite("mine", "", (SuiteTask("one", LOCK, {"b": 1, "a": [2]}, tokens=10),))
    text = (
        '{"held_out_seed":20261,"tasks":[{"env_id":"textgym/TokenLock-v0","episodes":256,'
        '"kwargs":{"a":[2],"b":1},"name":"one","num_envs":32,"tokens":10}],"version":1}'
    )
    assert suite.hash == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_hash_changes_with_what_determines_numbers_alone():
    task = SuiteTask("one", LOCK, dict(SMALL), tokens=10)
    suite = Suite("mine", "", (task,))
    changes = (
        {"env_id": "textgym/Story-v0"},
        {"kwargs": {**SMALL, "pins": 1}},
        {"tokens": 11},
        {"episodes": 1},
        {"num_envs": 1},
        {"name": "two"},
    )
    others = [Suite("mine", "", (dataclasses.replace(task, **change),)) for change in changes]
    assert len({suite.hash, *(other.hash for other in others)}) == len(changes) + 1
    assert Suite("other", "words", (task,), seeds=(7,)).hash == suite.hash
    reordered = dataclasses.replace(task, kwargs=dict(reversed(SMALL.items())))
    assert Suite("mine", "", (reordered,)).hash == suite.hash


def test_quick_is_the_same_with_less_to_learn_from():
    suite = find_suite("core")
    quick = find_suite("core-quick")
    assert quick == suite.quick() == quick.quick()
    assert (quick.name, quick.hash != suite.hash) == ("core-quick", True)
    for less, task in zip(quick.tasks, suite.tasks, strict=True):
        assert less.tokens == round(suite.quick_share * task.tokens) < task.tokens
        assert less.episodes == suite.quick_episodes < task.episodes
        assert dataclasses.replace(less, tokens=task.tokens, episodes=task.episodes) == task


@pytest.mark.parametrize(("suite", "task"), every_task())
def test_tasks_survive_json(suite, task):
    assert SuiteTask.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert suite.task(task.name) is task


def test_errors_name_near_matches():
    with pytest.raises(TypeError, match="did you mean `exact`"):
        find_suite("exat-quick")
    with pytest.raises(TypeError, match="did you mean `story`"):
        find_suite("core").task("storry")
    with pytest.raises(TypeError, match="did you mean `textgym/Story-v0`"):
        SuiteTask("one", "textgym/Stori-v0")
    with pytest.raises(TypeError, match="did you mean `tokens`"):
        SuiteTask.from_json({"name": "one", "env_id": LOCK, "token": 3})
    with pytest.raises(ValueError, match="`episodes` must be a positive int, got 0"):
        SuiteTask("one", LOCK, episodes=0)
    with pytest.raises(ValueError, match="different names"):
        Suite("mine", "", (SuiteTask("one", LOCK), SuiteTask("one", LOCK)))


def test_a_package_that_is_missing_is_named(monkeypatch):
    find_suite("core").check_installed()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    find_suite("core").check_installed()
    with pytest.raises(ImportError, match=r'pip install "textgym\[reasoning-gym\]"'):
        find_suite("reasoning-quick").check_installed()


# ---------------------------------------------------------------- environments
@pytest.mark.parametrize(
    "task",
    [task for suite in SUITES.values() if suite.name != "reasoning" for task in suite.tasks],
    ids=lambda task: task.name,
)
def test_every_task_can_be_made(task):
    small = dataclasses.replace(task, num_envs=2, episodes=3)
    envs = small.make_envs("test")
    assert (envs.num_envs, envs.split) == (2, "test")
    assert small.make_env("test").observation_space == envs.single_observation_space
    asked = small.instances(envs.task)
    envs.reset(options={"instance": asked[:2]})
    assert envs.step(np.ones(2, np.int64))[1].shape == (2,)


def test_instances_depend_on_nothing_but_the_task():
    task = SuiteTask("one", "textgym/Story-v0", {}, episodes=5, num_envs=2)
    other = dataclasses.replace(task, episodes=8, num_envs=7, tokens=9)
    few, many = (one.instances(one.make_envs("test").task) for one in (task, other))
    assert few == many[:5]
    assert len({instance.prompt for instance in many}) > 1


def test_sizes_are_what_names_say():
    for task in find_suite("vocab").tasks:
        small = dataclasses.replace(task, num_envs=1)
        assert small.make_envs().single_action_space.n == int(task.name.split("-")[1])
    lengths = [task.make_envs().max_new_tokens for task in find_suite("horizon").tasks]
    assert lengths == [8, 32, 128, 512]


def test_no_torch():
    code = (
        "import sys; from textgym.suites import SUITES\n"
        "SUITES['exact'].tasks[0].make_envs().reset(seed=0)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- known exactly
@pytest.mark.parametrize("reward", ["sparse", "dense", "delayed", "shaped"])
def test_exact_returns_are_those_of_the_tree_of_contexts(reward):
    found = SuiteTask("one", LOCK, {**SMALL, "reward": reward}).exact_returns()
    lock = TokenLockTask(**SMALL, reward=reward)
    tree = exact.lock_tree(lock, lock.prompts("test"))
    assert found["random"] == pytest.approx(exact.evaluate(tree).expected_return)
    assert found["optimum"] == pytest.approx(exact.optimum(tree).expected_return)


@pytest.mark.parametrize(
    ("suite", "name"),
    [("exact", "large-dense"), ("credit", "per-turn"), ("vocab", "actions-64")],
)
def test_exact_returns_are_what_random_actions_earn(suite, name):
    task = find_suite(suite).task(name)
    mean, error = random_return(task, 3_000)
    known = task.exact_returns()["random"]
    assert abs(mean - known) < 4 * error
    assert error < known / 4  # close enough to tell


def test_rewards_of_credit_have_one_optimum():
    found = [task.exact_returns() for task in find_suite("credit").tasks]
    assert [one["optimum"] for one in found] == pytest.approx([1.0] * 5)
    assert [one["random"] for one in found] == pytest.approx([found[0]["random"]] * 5)


def test_credit_pays_the_same_at_different_times():
    paid = {}
    for task in find_suite("credit").tasks:
        envs = dataclasses.replace(task, num_envs=1).make_envs("test")
        envs.reset(options={"prompt": "a"})
        text = envs.task.solve(envs.task.from_prompt("a"))
        tokens = [*envs.tokenizer.encode(text), 0]
        paid[task.name] = [float(envs.step(np.array([token]))[1][0]) for token in tokens]
    assert [sum(rewards) for rewards in paid.values()] == pytest.approx([1.0] * 5)
    assert paid["terminal"][:-1] == [0.0] * (len(paid["terminal"]) - 1)
    assert paid["per-token"][0] > 0.0
    assert paid["per-turn"][0] == 0.0 < paid["per-turn"][2]
    assert paid["delayed"][:2] == [0.0, 0.0]
    assert paid["shaped"][0] == pytest.approx(1 / 3)


def test_nothing_is_exact_where_arguments_may_change_what_is_paid():
    assert SuiteTask("one", "textgym/Story-v0").exact_returns() is None
    for change in (
        {"min_new_tokens": 1},
        {"score_weight": 0.5},
        {"rewards": ["length:3"]},
        {"tokenizer": "embedded"},
        {"score_weight": 0.0, "rewards": ["redistribute(task-score; over=gain):2"]},
    ):
        assert SuiteTask("one", LOCK, SMALL | change).exact_returns() is None


def test_locks_with_many_prompts_weigh_their_keys():
    task = SuiteTask("one", LOCK, {"reward": "dense"})  # a million prompts
    known = task.exact_returns()
    graph = exact.lock_graph(TokenLockTask(reward="dense"))
    assert known["random"] == pytest.approx(exact.evaluate(graph).expected_return)


# ---------------------------------------------------------------- more actions
def test_synonyms_read_as_their_letters():
    tokenizer = synonyms("abc", 11)
    assert tokenizer.vocab_size == 11
    assert tokenizer.encode("a c b") == [1, 3, 2]
    letters = [tokenizer.decode([token]) for token in range(1, 11)]
    assert letters == [*"abcabcabca"]
    assert tokenizer.decode_completions([[4, 5, 0], [10]])[0].split() == ["a", "b"]
    with pytest.raises(ValueError, match="must be above 3"):
        synonyms("abc", 3)


def test_a_synonym_opens_the_lock():
    task = find_suite("vocab").task("actions-512")
    envs = dataclasses.replace(task, num_envs=1).make_envs("test")
    instance = envs.task.prompts("test")[0]
    envs.reset(options={"instance": instance})
    letters = envs.tokenizer.encode(envs.task.solve(instance))
    total = sum(
        float(envs.step(np.array([token + 4 * 17 if token else 0]))[1][0])
        for token in [*letters, 0]
    )
    assert total == pytest.approx(1.0)
