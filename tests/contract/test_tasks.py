"""Every registered task: its oracle is perfect, and nothing else comes close by accident."""

import gymnasium as gym
import numpy as np
import pytest

from textgym.episode import Episode, Turn
from textgym.registration import REGISTRY

SCORED = {id: row for id, row in REGISTRY.items() if row.task_class().scored}


@pytest.fixture(params=SCORED.values(), ids=SCORED)
def row(request):
    return request.param


@pytest.fixture
def task(row):
    return gym.make(row.id, **row.smoke_kwargs).unwrapped.task


def as_episode(instance, text):
    return Episode(
        instance=instance,
        input_ids=np.zeros(1, np.int64),
        completion_mask=np.zeros(1, np.bool_),
        completion_text=text,
        turns=(Turn("agent", text),),
        finish_reason="stop",
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_oracle_scores_one_through_the_env(row, split):
    if not row.task_class().has_oracle:
        pytest.skip("no oracle")
    env = gym.make(row.id, split=split, **row.smoke_kwargs).unwrapped
    tokenizer = env.tokenizer
    for i in range(100):
        _, info = env.reset(seed=i)
        instance = env.task.from_prompt(info["prompt"])
        ids = tokenizer.encode(env.task.solve(instance), special_tokens=False)
        for token in [*ids, tokenizer.eos_token_id][: env.max_new_tokens]:
            _, reward, terminated, _, info = env.step(token)
        assert terminated
        assert info["completion"] == env.task.solve(instance)
        assert reward == info["score"] == 1.0
        assert info["finish_reason"] == "stop"


def test_a_random_policy_scores_low(row):
    envs = gym.make_vec(
        row.id,
        64,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SAME_STEP",
        **row.smoke_kwargs,
    )
    envs.reset(seed=0)
    envs.action_space.seed(0)
    scores = []
    while len(scores) < 200:
        infos = envs.step(envs.action_space.sample())[4]
        if "final_info" in infos:
            scores += infos["final_info"]["score"][infos["_final_info"]].tolist()
    assert np.mean(scores) < 0.05


def garbage(instance, rng):
    """Completions that deserve nothing."""
    prompt = instance.prompt
    words = prompt.split()
    yield from (
        "",
        " ",
        "\n" * 50,
        ".",
        "...",
        "\x00\ufffd\ud800",
        "日本語のテキスト。",
        "🎈" * 300,
    )
    yield from ("a" * 100_000, "word " * 20_000, ". " * 20_000, "\u202e\u0301" * 200)
    yield from (prompt, (prompt + "\n") * 20, prompt[::-1], prompt.upper(), prompt[:40])
    for _ in range(20):
        yield " " + " ".join(rng.permutation(words)) + "."
        yield "".join(map(chr, rng.integers(1, 0x3000, 200)))


def test_garbage_never_crashes_and_never_scores_well(task):
    rng = np.random.default_rng(0)
    for _ in range(5):
        instance = task.sample(rng)
        episodes = [as_episode(instance, text) for text in garbage(instance, rng)]
        scores = task.score_batch(episodes)
        assert scores.min() >= 0.0
        assert scores.max() < 0.3, episodes[int(scores.argmax())].completion_text[:200]


def test_scores_are_of_the_episode_alone(task):
    rng = np.random.default_rng(1)
    instances = [task.sample(rng) for _ in range(4)]
    texts = [task.solve(instance) if task.has_oracle else "" for instance in instances]
    episodes = [as_episode(i, t) for i in instances for t in texts]
    batch = task.score_batch(episodes)
    assert batch.tolist() == [task.score(e) for e in episodes]
    assert batch[::-1].tolist() == task.score_batch(episodes[::-1]).tolist()
    assert batch.min() >= 0.0
    assert batch.max() <= 1.0


def test_samples_come_from_the_generator_alone(task):
    a = [task.sample(np.random.default_rng(3)) for _ in range(3)]
    assert a[0] == a[1] == a[2]
    assert task.sample(np.random.default_rng(4)) != a[0]
