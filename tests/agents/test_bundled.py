"""The bundled language model: small, whole, and neither too good nor too bad."""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from textgym import Tokenizer
from textgym.registration import REGISTRY
from textgym.seeding import instance_rng
from textgym.tasks.story import StoryTask
from textgym_agents.lm import BUNDLED, load_model, parameter_count
from textgym_agents.sb3 import LMPolicy, evaluate, make_vec_env

SCRIPTS = Path(__file__).parents[2] / "agents" / "pretraining"
CARD = (BUNDLED / "README.md").read_text(encoding="utf-8")


def test_small_and_whole():
    files = {p.name: p.stat().st_size for p in BUNDLED.iterdir()}
    assert files.keys() >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert sum(files.values()) <= 4_000_000
    count = parameter_count(load_model("bundled"))
    assert count <= 1_000_000
    assert f"{count:,} parameters" in CARD


def test_weights_are_what_is_stored():
    weights = dict(load_model("bundled").named_parameters())
    with safe_open(BUNDLED / "model.safetensors", "pt") as stored:
        for name in stored.keys():  # noqa: SIM118  # not a dict
            tensor = stored.get_tensor(name)
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(weights[name], tensor.float())


def test_its_tokenizer_is_the_embedded_one():
    embedded = Tokenizer.load()
    assert Tokenizer.load(BUNDLED).hash == embedded.hash
    theirs = AutoTokenizer.from_pretrained(BUNDLED)
    for text in ("Once upon a time there was a fox.", " é\n\t 😀", ""):
        assert theirs(text)["input_ids"] == embedded.encode(text)
        assert theirs.decode(embedded.encode(text)) == embedded.decode(embedded.encode(text))
    assert theirs.eos_token_id == embedded.eos_token_id


# Every environment that it was trained on: sampled score, greedy score, carelessness.
STARTS = {
    found[1]: tuple(map(float, found.groups()[1:]))
    for found in re.finditer(r"\| `(textgym/\w+-v0)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", CARD)
}


def test_leaves_something_to_learn_in_story():
    sampled, greedy, _ = STARTS["textgym/Story-v0"]
    assert 0.3 <= sampled <= 0.7
    assert 0.3 <= greedy <= 0.7


@pytest.mark.parametrize("name", ["Story", "Dialogue", "Translation", "Recommendation"])
def test_scores_are_those_of_the_card(name):
    envs = make_vec_env(f"textgym/{name}-v0", n_envs=64, split="test")
    policy = LMPolicy(envs.observation_space, envs.action_space, lambda _: 1e-4, kl_coef=0.0)
    score = evaluate(policy, envs, 128, seed=0).mean_score
    assert score == pytest.approx(STARTS[f"textgym/{name}-v0"][0], abs=0.1)


@pytest.fixture
def pretraining(monkeypatch):
    """The modules of the training script, which is no package."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    names = ("stories", "corpus")
    yield types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


def test_stories_do_half_of_what_is_asked(pretraining):
    task, scores, faithful = StoryTask(), [], []
    for index in range(500):
        rng = instance_rng(0, "test", 0, index)
        instance = task.draw(rng, "test")
        story = pretraining.stories.story
        scores.append(task.score_text(instance, story(instance, rng)))
        faithful.append(task.score_text(instance, story(instance, rng, compliance=1.0)))
    assert 0.35 <= np.mean(scores) <= 0.6
    assert np.mean(faithful) >= 0.9  # but for the few sentences told out of order


def test_every_task_of_our_own_is_a_course(pretraining):
    courses = {course.id for course in pretraining.corpus.COURSES}
    own = {id for id, row in REGISTRY.items() if not row.bridged}
    # Without an oracle, or with a vocabulary that is not the model's.
    without = {"textgym/Continuation-v0", "textgym/Dataset-v0", "textgym/TokenLock-v0"}
    assert courses == own - without == STARTS.keys()


def test_a_careless_episode_is_of_the_task_and_beside_the_point(pretraining):
    tokenizer = Tokenizer.load()
    for course in pretraining.corpus.COURSES:
        task, careful, careless = course.task(), [], []
        for index in range(30):
            for found, carelessness in ((careful, 0.0), (careless, 1.0)):
                rng = instance_rng(0, "train", 0, index)
                episode = pretraining.corpus.attempt(task, tokenizer, "train", rng, carelessness)
                if episode.prompt:  # some stories are told without having been asked for
                    found.append(task.score(episode))
        assert np.mean(careful) >= 0.95
        assert np.mean(careless) <= 0.25
