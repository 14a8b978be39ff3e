"""The bundled language model: small, whole, and neither too good nor too bad."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from textgym import Tokenizer
from textgym.seeding import instance_rng
from textgym.tasks.story import StoryTask
from textgym_agents.lm import BUNDLED, load_model, parameter_count
from textgym_agents.sb3 import LMPolicy, evaluate, make_vec_env

SCRIPT = Path(__file__).parents[2] / "agents" / "train_bundled.py"
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


@pytest.mark.parametrize("greedy", [False, True])
def test_leaves_something_to_learn(greedy):
    envs = make_vec_env("textgym/Story-v0", n_envs=64, split="test")
    policy = LMPolicy(envs.observation_space, envs.action_space, lambda _: 1e-4, kl_coef=0.0)
    score = evaluate(policy, envs, 128, deterministic=greedy, seed=0).mean_score
    assert 0.3 <= score <= 0.7
    stated = re.search(r"held-out prompts: ([\d.]+) sampled at temperature 1,\s+([\d.]+)", CARD)
    assert score == pytest.approx(float(stated.group(2 if greedy else 1)), abs=0.1)


def test_its_corpus_does_half_of_what_is_asked():
    spec = importlib.util.spec_from_file_location("train_bundled", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    task, scores, faithful = StoryTask(), [], []
    for index in range(500):
        rng = instance_rng(0, "test", 0, index)
        instance = task.draw(rng, "test")
        scores.append(task.score_text(instance, script.story(instance, rng)))
        faithful.append(task.score_text(instance, script.story(instance, rng, compliance=1.0)))
    assert 0.35 <= np.mean(scores) <= 0.6
    assert np.mean(faithful) >= 0.9  # but for the few sentences told out of order
