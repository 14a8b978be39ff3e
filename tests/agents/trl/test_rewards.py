"""Reward functions pay what the environment pays for the same tokens."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

import textgym
from textgym import Reward, Tokenizer
from textgym.registration import REGISTRY
from textgym.seeding import instance_rng
from textgym.tasks.base import Task
from textgym.wrappers import AddReward, MaskObservation, ReplaceReward
from textgym_agents.trl import prompts_dataset, reward_functions

IDS = [
    row.id
    for row in REGISTRY.values()
    if not row.bridged
    and row.task_class().reply is Task.reply
    and row.task_class().scored
    and row.id != "textgym/Dataset-v0"
]


class EvenIds(Reward):
    """0.5 for every token of an even id: a reward for each token."""

    name, per_token = "even", True

    def per_token_rewards(self, episodes):
        return [0.5 * (e.completion_ids % 2 == 0).astype(np.float32) for e in episodes]

    def __call__(self, episodes):
        return np.array([r.sum() for r in self.per_token_rewards(episodes)], np.float32)


def completions_of(env, rows, rng):
    """An oracle's text, half of it, noise, and a text up to the budget, as TRL would hand them."""
    base = env.unwrapped
    eos, budget, size = base.tokenizer.eos_token_id, base.max_new_tokens, base.action_space.n
    found = []
    for position, row in enumerate(rows):
        drawn = base.task.draw(
            instance_rng(row["seed"], row["split"], 0, row["index"]), row["split"]
        )
        noise = rng.integers(1, size, budget)
        noise[noise == eos] = (eos + 1) % size
        try:
            gold = base.tokenizer.encode(base.task.solve(drawn), special_tokens=False)[: budget - 1]
        except NotImplementedError:
            gold = noise[:5].tolist()
        kinds = [
            [*gold, eos],
            [*gold[: len(gold) // 2], eos],
            [*noise[: budget // 2], eos],
            noise,
            [eos],
        ]
        found.append([int(i) for i in kinds[position % len(kinds)]])
    return found


def stepped(env, row, ids):
    """What the environment itself makes of `ids`: its return, info and per-step rewards."""
    env.reset(seed=row["seed"], options={"index": row["index"]})
    rewards = []
    for token in ids:
        _, reward, terminated, _, info = env.step(token)
        rewards.append(reward)
    assert terminated
    return rewards, info


def scored(functions, rows, ids):
    columns = {key: [row[key] for row in rows] for key in ("seed", "split", "index")}
    prompts = [row["prompt"] for row in rows]
    return {
        f.__name__: f(prompts=prompts, completions=None, completion_ids=ids, **columns, extra=1)
        for f in functions
    }


def compare(env, n=10):
    rows = list(prompts_dataset(env, n, seed=3))
    ids = completions_of(env, rows, np.random.default_rng(0))
    functions = reward_functions(env)
    values = scored(functions, rows, ids)
    columns = {key: [row[key] for row in rows] for key in ("seed", "split", "index")}
    episodes = functions[0].episodes([row["prompt"] for row in rows], ids, **columns)
    for i, (row, own) in enumerate(zip(rows, ids, strict=True)):
        rewards, info = stepped(env, row, own)
        assert {name: v[i] for name, v in values.items()} == pytest.approx(info["rewards"])
        assert sum(v[i] for v in values.values()) == pytest.approx(sum(rewards))
        assert episodes[i] == info["episode_record"]
    return values


@pytest.mark.parametrize("env_id", IDS)
def test_they_pay_what_the_environment_pays(env_id):
    values = compare(gym.make(env_id, **REGISTRY[env_id].smoke_kwargs))
    assert list(values) == ["score"]
    if REGISTRY[env_id].task_class().has_oracle:
        assert max(values["score"]) > 0.4  # the oracle's texts are among them


def test_added_rewards_come_with_their_names_and_weights():
    env = gym.make(
        "textgym/Story-v0", rewards=["length:max=20", (EvenIds(), 0.25)], score_weight=2.0
    )
    env = AddReward(env, lambda episodes: [len(e.completion_ids) for e in episodes], name="tokens")
    values = compare(env)
    assert list(values) == ["score", "length", "even", "tokens"]


def test_a_replaced_reward_is_all_there_is():
    env = AddReward(gym.make("textgym/Story-v0"), "length:max=20", name="inner")
    values = compare(AddReward(ReplaceReward(env, "length:max=9"), EvenIds()))
    assert list(values) == ["length", "even"]


@pytest.mark.parametrize("variant", ["sparse", "dense", "delayed", "shaped"])
def test_scores_paid_step_by_step_add_up(variant):
    compare(gym.make("textgym/TokenLock-v0", reward=variant))


def test_vector_environments_and_ids_serve_as_well():
    vector = gym.make_vec(
        "textgym/Sorting-v0", 3, vectorization_mode="vector_entry_point", score_weight=3.0
    )
    single = gym.make("textgym/Sorting-v0", score_weight=3.0)
    rows = list(prompts_dataset(single, 5))
    assert rows == list(prompts_dataset(vector, 5))
    ids = completions_of(single, rows, np.random.default_rng(0))
    expected = scored(reward_functions(single), rows, ids)
    assert max(expected["score"]) == 3.0
    assert scored(reward_functions(vector), rows, ids) == expected
    by_id = reward_functions("textgym/Sorting-v0", env_kwargs={"score_weight": 3.0})
    assert scored(by_id, rows, ids) == expected
    assert scored(pickle.loads(pickle.dumps(by_id)), rows, ids) == expected


def test_token_rewards_are_those_of_the_steps():
    env = gym.make("textgym/TokenLock-v0", reward="dense", rewards=[EvenIds()], score_weight=2.0)
    rows = list(prompts_dataset(env, 6))
    ids = completions_of(env, rows, np.random.default_rng(1))
    columns = {key: [row[key] for row in rows] for key in ("seed", "split", "index")}
    per_function = [
        f.token_rewards([row["prompt"] for row in rows], ids, **columns)
        for f in reward_functions(env)
    ]
    for i, row in enumerate(rows):
        rewards, _ = stepped(env, row, ids[i])
        assert sum(values[i] for values in per_function) == pytest.approx(np.array(rewards))


def test_an_end_of_sequence_that_is_a_word_is_no_part_of_the_text():
    vocabulary = {word: i for i, word in enumerate(["end", "plum", "drum", "?"])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(prefix="", cleanup=False)
    tokenizer = Tokenizer(backend, eos_token="end", name="words")
    env = gym.make("textgym/Sorting-v0", tokenizer=tokenizer)
    (row,) = prompts_dataset(env, 1)
    columns = {key: [row[key]] for key in ("seed", "split", "index")}
    (function,) = reward_functions(env)
    (episode,) = function.episodes([row["prompt"]], [[2, 1, 0]], **columns)
    assert "end" not in episode.completion_text
    assert episode == stepped(env, row, [2, 1, 0])[1]["episode_record"]


def test_ids_beyond_the_vocabulary_are_data():
    env = gym.make("textgym/Story-v0")
    rows = list(prompts_dataset(env, 1))
    eos = env.unwrapped.tokenizer.eos_token_id
    assert scored(reward_functions(env), rows, [[99_999, 5, eos]])["score"] == [0.0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([5, 6, 7], "max_completion_length="),
        ([5] * 1000, "max_completion_length="),
        ([], "max_completion_length="),
        ([0, 5, 0], "goes on after"),
    ],
)
def test_completions_that_end_where_no_episode_does_are_refused(ids, message):
    env = gym.make("textgym/Story-v0")
    with pytest.raises(ValueError, match=message):
        scored(reward_functions(env), list(prompts_dataset(env, 1)), [ids])


def test_prompts_of_another_environment_are_refused():
    functions = reward_functions("textgym/Sorting-v0")
    rows = list(prompts_dataset("textgym/Story-v0", 1))
    with pytest.raises(ValueError, match="of the same environment"):
        scored(functions, rows, [[0]])


def test_a_faulty_reward_is_named():
    env = gym.make("textgym/Story-v0", rewards=[lambda episodes: ["x" for _ in episodes]])
    rows = list(prompts_dataset(env, 1))
    with pytest.raises(textgym.RewardError, match="reward `"):
        scored(reward_functions(env), rows, [[0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "textgym/Wordle-v0", "replies to the agent"),
        (lambda: "textgym/TwentyQuestions-v0", "replies to the agent"),
        (lambda: "textgym/Dialogue-v0", "replies to the agent"),
        (lambda: gym.make("textgym/Story-v0", min_new_tokens=3), "masks tokens"),
        (lambda: gym.make("textgym/Story-v0", max_episode_steps=3), "TimeLimit"),
        (lambda: MaskObservation(gym.make("textgym/Story-v0")), "MaskObservation"),
        (
            lambda: gym.wrappers.TransformReward(gym.make("textgym/Story-v0"), lambda r: 2 * r),
            "TransformReward",
        ),
        (lambda: gym.make("textgym/Story-v0", score_weight=0.0), "pays nothing"),
    ],
)
def test_what_trl_cannot_stand_in_for_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        reward_functions(make())
    assert "\n" not in str(caught.value)


def test_arguments_go_with_an_id():
    env = gym.make("textgym/Story-v0")
    with pytest.raises(TypeError, match="go with an id"):
        reward_functions(env, env_kwargs={"level": 2})
    with pytest.raises(TypeError, match="token environment"):
        reward_functions(3)
