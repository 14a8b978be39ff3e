"""`Counting` against counts by hand, in lockstep and with parked rows."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import textgym  # noqa: F401
from textgym_agents.bench.counting import Counting, InvalidActionError, OverBudgetError

LOCK = {"vocab_size": 5, "keys": 4, "pins": 2, "max_new_tokens": 3, "prompt_length": 1}


def counting(rows, budget, env="textgym/TokenLock-v0", **options):
    envs = gym.make_vec(
        env,
        num_envs=rows,
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.SAME_STEP,
        **(LOCK if "Lock" in env else {}) | options,
    )
    return Counting(envs, budget)


def wander(envs, steps, seed=0):
    """Random steps; (tokens so far, return) of every episode that ended, kept by hand."""
    rng = np.random.default_rng(seed)
    envs.reset(seed=seed)
    totals, found = [0.0] * envs.num_envs, []
    for step in range(1, steps + 1):
        actions = rng.integers(envs.single_action_space.n, size=envs.num_envs)
        _, rewards, terminated, _, _ = envs.step(actions)
        for row in range(envs.num_envs):
            totals[row] += float(rewards[row])
            if terminated[row]:
                found.append((step * envs.num_envs, totals[row]))
                totals[row] = 0.0
    return found


def test_every_row_counts_and_the_mode_is_declared():
    envs = counting(3, 1_000, reward="dense")
    assert envs.autoreset_mode is AutoresetMode.SAME_STEP
    wander(envs, 50)
    assert envs.tokens == 150


@pytest.mark.parametrize("budget", [96, 300, 2_000, 4_000])
def test_the_curve_is_that_of_the_episodes(budget):
    envs = counting(4, budget, reward="dense")
    ended = wander(envs, budget // 4)
    envs.close_curve()
    assert 1 <= len(envs.curve) <= 40
    assert sum(point["episodes"] for point in envs.curve) == len(ended)
    assert envs.curve[-1]["tokens"] == ended[-1][0] <= envs.tokens == budget // 4 * 4
    before = 0
    for point in envs.curve:
        inside = [total for at, total in ended if before < at <= point["tokens"]]
        assert point["episodes"] == len(inside)
        assert point["mean_return"] == pytest.approx(np.mean(inside))
        before = point["tokens"]


def test_no_more_points_however_far_it_goes():
    envs = counting(4, 40, reward="dense")
    ended = wander(envs, 400)
    envs.close_curve()
    assert len(envs.curve) == 40
    assert sum(point["episodes"] for point in envs.curve) == len(ended)
    mean = sum(p["episodes"] * p["mean_return"] for p in envs.curve) / len(ended)
    assert mean == pytest.approx(np.mean([total for _, total in ended]))


def test_texts_are_of_the_start_the_middle_and_the_end():
    envs = counting(2, 400, reward="dense")
    ended = wander(envs, 200)
    stages = [text["stage"] for text in envs.samples]
    assert stages == ["start"] * 2 + ["middle"] * 2 + ["end"] * 2
    at = [text["tokens"] for text in envs.samples]
    totals = [text["return"] for text in envs.samples]
    assert list(zip(at[:2], totals[:2], strict=True)) == ended[:2]
    assert list(zip(at[4:], totals[4:], strict=True)) == ended[-2:]
    assert min(at[2:4]) >= 200 > max(tokens for tokens, _ in ended if tokens < 200)
    assert set(envs.samples[0]) == {"stage", "tokens", "prompt", "completion", "return"}


def test_parked_rows_do_not_count():
    """Row 0 ends at once and waits for row 1, twice; then row 1 ends at once."""
    envs = counting(2, 1_000)
    task = envs.unwrapped.task
    asked = {"instance": list(task.prompts("train")[:2])}
    for actions in ([[0, 1], [1, 1], [1, 2]], [[0, 2], [1, 0]], [[1, 0], [3, 1], [3, 1]]):
        envs.reset(options=asked)
        for row in actions:
            envs.step(np.array(row))
    # 1 + 3, 1 + 2 and 3 + 1.
    assert envs.tokens == 11
    envs.reset(options=asked)
    assert envs.tokens == 11


def test_a_row_that_goes_on_to_write_is_not_parked():
    envs = counting(2, 1_000, max_new_tokens=9)
    envs.reset(options={"prompt": "a"})
    for row in ([0, 1], [1, 1], [2, 2], [1, 0]):  # row 0 is in the middle of its second text
        envs.step(np.array(row))
    assert envs.tokens == 8
    envs.reset(options={"prompt": "a"})
    assert envs.tokens == 8


def test_what_an_agent_leaves_unfinished_counts():
    envs = counting(2, 1_000)
    for _ in range(2):
        envs.reset(seed=0)
        envs.step(np.array([1, 1]))
        envs.step(np.array([1, 1]))
    assert envs.tokens == 8


def test_a_rollout_of_grpo_counts_what_grpo_counts():
    torch = pytest.importorskip("torch")
    from textgym_agents.bench.models import model_kwargs
    from textgym_agents.sb3 import GRPO, LMPolicy, TextVecEnv

    envs = counting(16, 10_000, max_new_tokens=12)
    torch.manual_seed(0)
    agent = GRPO(
        LMPolicy, TextVecEnv(envs), policy_kwargs=model_kwargs(envs, 0), seed=0, device="cpu"
    )
    agent.learn(300)
    assert envs.tokens == agent.num_timesteps
    assert envs.tokens < envs._taken  # rows were parked


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 5], "from 0 to 4, got 5 in row 1"),
        ([-1, 0], "got -1 in row 0"),
        ([0], r"2 integers, one a row, got shape \(1,\)"),
        ([0.0, 1.0], "dtype float64"),
        (None, "dtype object"),
    ],
)
def test_invalid_actions_change_nothing(actions, message):
    envs = counting(2, 100)
    envs.reset(seed=0)
    with pytest.raises(InvalidActionError, match=message):
        envs.step(actions if actions is None else np.array(actions))
    assert envs.tokens == 0
    envs.step(np.array([0, 1]))
    assert envs.tokens == 2


def test_masked_actions_are_invalid():
    envs = counting(2, 100, min_new_tokens=1)
    envs.reset(seed=0)
    with pytest.raises(InvalidActionError, match="token 0 in row 1 is masked"):
        envs.step(np.array([1, 0]))


def test_an_agent_may_overrun_by_a_quarter_and_a_rollout():
    envs = counting(64, 1_000)
    assert envs.limit == 1_250 + 2_048
    envs.reset(seed=0)
    steps = envs.limit // 64
    for _ in range(steps):
        envs.step(np.ones(64, np.int64))
    with pytest.raises(OverBudgetError, match="of a budget of 1,000"):
        envs.step(np.ones(64, np.int64))
    assert counting(64, 1_000, env="textgym/Story-v0").limit == 1_250 + 64 * 64
