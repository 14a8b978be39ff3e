"""Shaping changes no advantage, exactly; what an environment pays is what the reward says."""

import gymnasium as gym
import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance
from textgym.exact import enumerate_env, evaluate, optimum
from textgym.rewards import FunctionReward, Keywords, Length, Repetition
from textgym.rewards.shaping import Shaped
from textgym.rewards.specs import _made_of_parts
from textgym.rewards.task_score import TaskScore

SMALL = {"vocab_size": 4, "keys": 2, "pins": 2, "max_new_tokens": 4, "prompt_length": 2}
PROMPTS = ["a b", "b c", "c a"]


def letters(episodes):
    """A potential of no use: uneven, never 0, of the unfinished text and the prompt."""
    return [0.3 + np.sin(3.0 * len(e.completion_text) + len(e.completion_ids)) for e in episodes]


def tree(*rewards):
    envs = gym.make_vec(
        "textgym/TokenLock-v0",
        num_envs=256,
        vectorization_mode="vector_entry_point",
        rewards=list(rewards),
        **SMALL,
    )
    return enumerate_env(envs, PROMPTS)


def some_policy(observations):
    ids = observations["input_ids"] * observations["attention_mask"]
    logits = np.sin(ids @ np.arange(1, ids.shape[1] + 1)[:, None] * np.arange(1, 5))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def plain():
    return tree()


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("potential", ["task-score", "letters"])
@pytest.mark.parametrize("every", [1, 2])
def test_optimal_policies_and_advantages_stay(plain, potential, gamma, every):
    score = TaskScore() if potential == "task-score" else FunctionReward(letters)
    shaped = tree(Shaped(score, gamma=gamma, scale=2.0, every=every))
    assert any(
        (np.abs(a.rewards - b.rewards) > 1e-3).any()
        for a, b in zip(shaped.layers, plain.layers, strict=True)
    )
    for solve in (optimum, lambda graph, **k: evaluate(graph, some_policy, **k)):
        a, b = solve(plain, gamma=gamma), solve(shaped, gamma=gamma)
        for x, y in zip(a.log_probs, b.log_probs, strict=True):
            assert np.exp(x) == pytest.approx(np.exp(y), abs=1e-6)
        for x, y in zip(a.advantages, b.advantages, strict=True):
            assert x == pytest.approx(y, abs=1e-6)
    # A soft optimum is a matter of advantages too.
    a, b = (optimum(graph, beta=0.2, gamma=gamma) for graph in (plain, shaped))
    for x, y in zip(a.log_probs, b.log_probs, strict=True):
        assert np.exp(x) == pytest.approx(np.exp(y), abs=1e-5)


def test_values_differ_by_the_potential(plain):
    """V of the shaped process is V - phi, of the empty text to begin with."""
    a, b = optimum(plain), optimum(tree(Shaped(FunctionReward(letters))))
    assert a.expected_return - b.expected_return == pytest.approx(0.3 + np.sin(0.0), abs=1e-6)


def test_another_gamma_is_no_shaping(plain):
    a = evaluate(plain, some_policy, gamma=0.9)
    b = evaluate(tree(Shaped(FunctionReward(letters), gamma=1.0)), some_policy, gamma=0.9)
    off = max(np.abs(x - y).max() for x, y in zip(a.advantages, b.advantages, strict=True))
    assert off > 0.01


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_an_environment_pays_each_token_what_is_its_own(
    task, tokenizer, random_actions, gamma, mode
):
    make = lambda: Shaped(FunctionReward(letters, "letters"), gamma=gamma)  # noqa: E731
    envs = TokenVectorEnv(
        task, 3, tokenizer=tokenizer, rewards=[(make(), 2.0)], score_weight=0.0, autoreset_mode=mode
    )
    plain = TokenVectorEnv(task, 3, tokenizer=tokenizer, score_weight=0.0, autoreset_mode=mode)
    envs.reset(seed=0)
    plain.reset(seed=0)
    paid, ended, over = [[] for _ in range(3)], 0, np.zeros(3, bool)
    for actions in random_actions(2, (80, 3)):
        _, rewards, terminated, _, infos = envs.step(actions)
        replies = plain.step(actions)[1]
        where = infos.get("final_info", infos if mode == "NEXT_STEP" else {})
        for row in np.flatnonzero(~over):
            paid[row].append(rewards[row] - replies[row])
            if terminated[row]:
                episode = where["episode_record"][row]
                fresh = make()
                fresh.bind(tokenizer, task.score_batch)
                (expected,) = fresh.per_token_rewards([episode])
                assert paid[row] == pytest.approx(2.0 * expected, abs=1e-6)
                assert where["rewards"]["shaped"][row] == pytest.approx(2.0 * fresh([episode])[0])
                if gamma == 1.0:  # all that was advanced is taken back
                    assert expected.sum(dtype=float) == pytest.approx(-0.3, abs=1e-6)
                paid[row], ended = [], ended + 1
        over = terminated if mode == "NEXT_STEP" else np.zeros(3, bool)
    assert ended > 10


def test_a_truncated_row_keeps_what_it_was_advanced(copy_task, tokenizer):
    envs = TokenVectorEnv(
        copy_task,
        1,
        tokenizer=tokenizer,
        rewards=[Shaped(lambda es: [len(e.completion_ids) / 4 for e in es])],
        max_episode_steps=2,
        autoreset_mode="SAME_STEP",
    )
    envs.reset(seed=0)
    steps = [envs.step(np.array([60])) for _ in range(4)]
    assert [float(step[1][0]) for step in steps] == [0.25] * 4
    assert [bool(step[3][0]) for step in steps] == [False, True, False, True]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Shaped(Length(4)), (-1.0, 1.0)),
        (Shaped(Length(4), gamma=0.5), (-np.inf, 0.5)),
        (Shaped(Repetition(), gamma=0.5), (-0.5, np.inf)),
        (Shaped(Length(4), scale=-2.0), (-2.0, 2.0)),
    ],
)
def test_ranges(reward, expected, tokenizer):
    assert reward.range == expected
    reward.bind(tokenizer, None)
    rng = np.random.default_rng(0)
    for reason in (None, "stop"):
        ids = rng.integers(60, 100, (20, 6))
        episodes = [Episode(Instance("p"), row, np.arange(6) > 0, "", (), reason) for row in ids]
        values = reward(episodes)
        assert values.dtype == np.float32
        assert ((expected[0] <= values) & (values <= expected[1])).all()
        assert values.tolist() == [float(reward([e])[0]) for e in episodes]


def test_empty_texts_and_no_episodes(tokenizer):
    reward = Shaped(Length(4), tokenizer=tokenizer)
    ids = np.arange(3)
    nothing = Episode(Instance("p"), ids, ids > 5, "", (), "stop")
    assert [a.shape for a in reward.per_token_rewards([nothing])] == [(0,)]
    assert reward([]).shape == (0,)


def test_specs_and_bad_arguments():
    made = _made_of_parts(
        "shaped", Shaped, "shaped(keywords:fox,owl*2; gamma=0.5; scale=3; every=2)"
    )
    assert (made.gamma, made.scale, made.partial_score.range) == (0.5, 3.0, (0.0, 2.0))
    for bad in ({"gamma": 0.0}, {"gamma": 1.5}, {"scale": np.inf}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Shaped(Length(4), **bad)
    ids = np.arange(3)
    with pytest.raises(ValueError, match="a tokenizer is needed"):
        Shaped(Keywords(["fox"]))([Episode(Instance("p"), ids, ids > 0, "", (), "stop")])


# ---------------------------------------------------------------------- TaskScore
def test_the_score_of_the_task(copy_task, tokenizer, play):
    reward = TaskScore.from_arguments("")
    ids = np.arange(3)
    with pytest.raises(ValueError, match="knows no task yet"):
        reward([Episode(Instance("p"), ids, ids > 0, "", (), "stop")])
    envs = TokenVectorEnv(copy_task, 1, tokenizer=tokenizer, rewards=[(reward, 0.5)])
    envs.reset(options={"prompt": "Copy 12:"})
    for text in "13":
        envs.step(np.array(tokenizer.encode(text)))
    _, paid, _, _, infos = envs.step(np.array([tokenizer.eos_token_id]))
    assert (paid[0], infos["rewards"]["task-score"][0]) == (0.75, 0.25)
    values = reward(list(infos["episode_record"]) * 2)
    assert (values.dtype, values.tolist()) == (np.float32, [0.5, 0.5])


def test_it_serves_tasks_of_one_kind(copy_task, guess_task, tokenizer):
    reward = TaskScore()
    reward.bind(tokenizer, copy_task.score_batch)
    reward.bind(tokenizer, type(copy_task)().score_batch)
    with pytest.raises(ValueError, match="already serves environments of CopyTask"):
        reward.bind(tokenizer, guess_task.score_batch)
