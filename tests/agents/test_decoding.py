"""Decoding: against brute force, against stepping by hand, and against the known optimum."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import exact
from textgym.tasks.token_lock import TokenLockTask
from textgym_agents.decoding import beam_search, best_of_n, generate
from textgym_agents.lm import CausalLM
from textgym_agents.sb3 import make_vec_env
from textgym_agents.tree_search import tree_search

LOCK = {"vocab_size": 5, "keys": 2, "pins": 2, "max_new_tokens": 3, "prompt_length": 1}
TASK = TokenLockTask(**LOCK)
INSTANCES = list(TASK.prompts("train"))


def model(initializer_range, positions=4):
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=16,
        vocab_size=5,
        eos_token_id=0,
        bos_token_id=None,
        initializer_range=initializer_range,
    )
    return CausalLM(GPT2LMHeadModel(config).eval(), 5, positions)


@pytest.fixture(scope="module")
def lm():
    return model(0.4)  # far from uniform


@pytest.fixture(scope="module")
def novice():
    return model(0.02)  # nearly uniform


@pytest.fixture
def envs():
    return make_vec_env("textgym/TokenLock-v0", n_envs=16, **LOCK).envs


@pytest.fixture
def env():
    return gym.make("textgym/TokenLock-v0", **LOCK)


def every_text(lm, instance):
    """All completions of `instance` with their log-probs, by Hugging Face alone."""
    (prompt,) = TASK.tokenizer.encode(instance.prompt)
    found = {}
    for length in (1, 2, 3):
        for tokens in itertools.product(range(5), repeat=length):
            if 0 in tokens[:-1] or (length < 3 and tokens[-1] != 0):
                continue
            ids = torch.tensor([[prompt, *tokens]])
            with torch.no_grad():
                log_p = lm.model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
            found[tokens] = float(log_p[range(length), list(tokens)].sum())
    assert np.exp(list(found.values())).sum() == pytest.approx(1.0, abs=1e-6)
    return found


def test_greedy(lm, envs):
    texts = generate(lm, envs, INSTANCES, greedy=True)
    for instance, text in zip(INSTANCES, texts, strict=True):
        ids = TASK.tokenizer.encode(instance.prompt)
        with torch.no_grad():
            for token in text.tokens:
                assert lm.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax() == token
                ids = [*ids, int(token)]
        assert text.episode.completion_ids.tolist() == text.tokens.tolist()
        assert text.episode.instance == instance
        assert text.log_prob == pytest.approx(
            every_text(lm, instance)[tuple(text.tokens)], abs=1e-4
        )


def test_sampling_is_from_the_model(lm, envs):
    texts = generate(lm, envs, [INSTANCES[0]] * 3000, seed=0)
    assert len(texts) == 3000
    chances = every_text(lm, INSTANCES[0])
    counts = dict.fromkeys(chances, 0)
    for text in texts:
        counts[tuple(text.tokens.tolist())] += 1
        assert text.log_prob == pytest.approx(chances[tuple(text.tokens.tolist())], abs=1e-4)
        assert text.total_reward == pytest.approx(TASK.score(text.episode))
    distance = sum(abs(counts[t] / 3000 - np.exp(chances[t])) for t in chances) / 2
    assert distance < 0.08
    again = generate(lm, envs, [INSTANCES[0]] * 20, seed=0)
    assert [t.tokens.tolist() for t in again] == [t.tokens.tolist() for t in texts[:20]]


def test_best_of_n(lm, envs):
    best = best_of_n(lm, envs, INSTANCES[:3], 10, seed=3)
    every = generate(lm, envs, [i for i in INSTANCES[:3] for _ in range(10)], seed=3)
    for i, text in enumerate(best):
        assert text.total_reward == max(t.total_reward for t in every[i * 10 : i * 10 + 10])
        assert text.episode.instance == INSTANCES[i]
    short = best_of_n(
        lm, envs, INSTANCES[:3], 10, seed=3, judge=lambda es: [-len(e.completion_ids) for e in es]
    )
    assert [len(t.tokens) for t in short] == [
        min(len(t.tokens) for t in every[i * 10 : i * 10 + 10]) for i in range(3)
    ]


def test_best_of_n_reaches_the_optimum(novice, envs):
    optimum = exact.optimum(exact.lock_tree(TASK, INSTANCES)).expected_return
    one, many = (
        np.mean([text.total_reward for text in best_of_n(novice, envs, INSTANCES, n, seed=0)])
        for n in (4, 800)
    )
    assert one < 0.6
    assert many == optimum == 1.0


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda i: i.prompt)
def test_a_wide_beam_finds_the_most_probable_text(lm, env, instance):
    chances = every_text(lm, instance)
    found = beam_search(lm, env, width=64, options={"instance": instance})
    assert tuple(found.tokens) == max(chances, key=chances.get)
    assert found.log_prob == pytest.approx(max(chances.values()), abs=1e-4)
    assert found.episode.completion_ids.tolist() == found.tokens.tolist()
    assert found.total_reward == pytest.approx(TASK.score(found.episode))


def test_a_beam_of_one_is_greedy(lm, env, envs):
    greedy = generate(lm, envs, INSTANCES, greedy=True)
    for instance, text in zip(INSTANCES, greedy, strict=True):
        one = beam_search(lm, env, width=1, options={"instance": instance})
        assert one.tokens.tolist() == text.tokens.tolist()


def test_a_length_penalty_favours_long_texts(novice, env):
    lengths = [
        len(beam_search(novice, env, width=64, length_penalty=a, options={"instance": i}).tokens)
        for a in (0.0, 1.0)
        for i in INSTANCES
    ]
    assert sum(lengths[:4]) < sum(lengths[4:])


def test_the_best_of_a_wide_beam_is_the_optimum(lm, env):
    for instance in INSTANCES:
        options = {"instance": instance}
        assert beam_search(lm, env, width=125, pick="return", options=options).total_reward == 1.0


@pytest.mark.parametrize("rollout", ["lm", "random"])
def test_tree_search_reaches_the_optimum(novice, env, rollout):
    for instance in INSTANCES:
        found = tree_search(
            novice, env, simulations=100, rollout=rollout, seed=0,
            options={"instance": instance},
        )  # fmt: skip
        assert found.total_reward == 1.0
        assert found.episode.completion_ids.tolist() == found.tokens.tolist()
        log_prob = every_text(novice, instance)[tuple(found.tokens)]
        assert found.log_prob == pytest.approx(log_prob, abs=1e-4)


def test_tree_search_needs_fewer_texts_than_sampling(novice, env, envs):
    """20 simulations for each of at most 3 tokens, against 60 texts."""
    searched = [
        tree_search(novice, env, simulations=20, seed=seed, options={"instance": instance})
        for instance in INSTANCES
        for seed in range(4)
    ]
    sampled = [
        text for seed in range(4) for text in best_of_n(novice, envs, INSTANCES, 60, seed=seed)
    ]
    means = [np.mean([text.total_reward for text in texts]) for texts in (searched, sampled)]
    assert means[0] > means[1] + 0.1


def test_as_many_simulations_as_texts_are_exhaustive(lm, env):
    """Even where the model is sure of something else."""
    for instance in INSTANCES:
        options = {"instance": instance}
        found = tree_search(lm, env, simulations=125, rollout="random", seed=0, options=options)
        assert found.total_reward == 1.0


def test_masks_branch_too():
    """End-of-sequence is masked at first, in searches and in what finishes their texts."""
    env = gym.make("textgym/TokenLock-v0", **LOCK | {"max_new_tokens": 4}, min_new_tokens=2)
    lm = model(0.02, positions=5)
    for found in (
        beam_search(lm, env, width=3, seed=0),
        tree_search(lm, env, simulations=10, seed=0),
        tree_search(lm, env, simulations=10, rollout="random", seed=0),
    ):
        assert len(found.tokens) > 2
        assert 0 not in found.tokens[:2]


def test_wrong_options(lm, env, envs):
    with pytest.raises(ValueError, match="`width`"):
        beam_search(lm, env, width=0)
    with pytest.raises(ValueError, match="`pick`"):
        beam_search(lm, env, pick="best")
    with pytest.raises(ValueError, match="`simulations`"):
        tree_search(lm, env, simulations=0)
    with pytest.raises(ValueError, match="`rollout`"):
        tree_search(lm, env, rollout="none")
    with pytest.raises(ValueError, match="`n`"):
        best_of_n(lm, envs, INSTANCES, 0)
