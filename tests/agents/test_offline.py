"""Offline data sets: what Minari reads back is what happened, and the env it recovers is ours."""

from __future__ import annotations

import math

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

from textgym.tasks.story import StoryTask
from textgym_agents import offline
from textgym_agents.cli.entry import run
from textgym_agents.lm import load_model

STORY = "textgym/Story-v0"


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


def exported(*arguments, env_id=STORY, episodes=3):
    assert run(["export", env_id, "--episodes", str(episodes), *arguments]) == 0
    (name,) = minari.list_local_datasets()
    return minari.load_dataset(name)


def test_the_oracles_episodes_replay_in_the_recovered_env():
    dataset = exported("--seed", "4", "--split", "test")
    env = dataset.recover_environment()
    assert env.unwrapped.split == "test"
    assert dataset.total_episodes == 3
    for episode in dataset.iterate_episodes():
        assert episode.rewards[-1] == 1.0
        assert episode.terminations.tolist() == [False] * (len(episode) - 1) + [True]
        assert not episode.infos["log_prob"].any()
        assert "action_mask" not in episode.infos  # every token is allowed here
        prompt = env.unwrapped.tokenizer.decode(
            episode.observations["input_ids"][0][
                episode.observations["attention_mask"][0].astype(bool)
            ].tolist()
        )
        observation, _ = env.reset(options={"instance": StoryTask().from_prompt(prompt)})
        for step, action in enumerate(episode.actions):
            for key, value in observation.items():
                assert np.array_equal(value, episode.observations[key][step])
            observation, reward, *_ = env.step(int(action))
            assert reward == episode.rewards[step]
        assert np.array_equal(observation["input_ids"], episode.observations["input_ids"][-1])


def test_a_random_policy_has_the_log_probs_of_what_is_allowed(datasets):
    dataset = exported("--policy", "random", "--env", "min_new_tokens=3")
    size = int(dataset.action_space.n)
    for episode in dataset.iterate_episodes():
        mask = episode.infos["action_mask"]
        assert mask.shape == (len(episode) + 1, size)
        assert mask[:3].sum() == 3 * (size - 1)  # all but end-of-sequence
        chances = episode.infos["log_prob"][: len(episode)]
        assert chances == pytest.approx(-np.log(mask[: len(episode)].sum(axis=1)))
        assert mask[np.arange(len(episode)), episode.actions].all()


def test_a_models_log_probs_are_those_of_hugging_face():
    dataset = exported("--policy", "model", "--seed", "1")
    model = load_model("bundled").eval()
    for episode in dataset.iterate_episodes():
        ids = episode.observations["input_ids"][-1]
        length = int(episode.observations["attention_mask"][-1].sum())
        start = int(episode.observations["attention_mask"][0].sum())
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids[None, :length])).logits[0]
        expected = logits.log_softmax(-1)[start - 1 : -1].gather(
            1, torch.tensor(episode.actions)[:, None]
        )[:, 0]
        assert episode.infos["log_prob"][:-1] == pytest.approx(expected.numpy(), abs=1e-4)
        assert episode.infos["log_prob"][-1] == 0.0
        assert math.exp(float(expected.sum())) < 1.0


def test_parts_make_a_whole(monkeypatch):
    monkeypatch.setattr(offline, "_PART", 2)
    assert exported(episodes=5).total_episodes == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([STORY, "--policy", "oracel"], "oracle"),
        (["textgym/Continuation-v0"], "no oracle"),
        ([STORY, "--policy", "model", "--model", "./nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, expected):
    assert run(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert minari.list_local_datasets() == {}


def test_no_data_set_is_overwritten(capsys):
    exported()
    assert run(["export", STORY, "--episodes", "1"]) == 2
    assert "already" in capsys.readouterr().err


def test_without_minari_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ImportError, match=r"textgym\[minari\]"):
        offline.write_minari(iter(()), gym.make(STORY), "a/b-v0", policy="x")
