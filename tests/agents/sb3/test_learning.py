"""Agents learn what is known to be optimal."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tokenizers
import torch
from stable_baselines3 import A2C, PPO
from tokenizers import decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym_agents.sb3 import (
    LMPolicy,
    TokenRolloutBuffer,
    a2c_defaults,
    evaluate,
    make_vec_env,
    ppo_defaults,
)

WORDS = ["<eos>", "go", "a", "b", "c", "d"]
EOS, A = 0, 2


def tokenizer() -> Tokenizer:
    backend = tokenizers.Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="d")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="", cleanup=False)
    backend.add_special_tokens(["<eos>"])
    return Tokenizer(backend, eos_token="<eos>", name="words")


def share_of_a(episodes, budget):
    return [float((e.completion_ids == A).sum()) / budget for e in episodes]


def make_envs(budget: int, n_envs: int = 64):
    return make_vec_env(
        "textgym/Continuation-v0",
        n_envs=n_envs,
        tokenizer=tokenizer(),
        prompts=["go"],
        max_new_tokens=budget,
        rewards=[lambda episodes: share_of_a(episodes, budget)],
    )


def tiny_model():
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32, n_layer=1, n_head=2, n_positions=16, vocab_size=len(WORDS), eos_token_id=EOS
    )
    return GPT2LMHeadModel(config)


@pytest.mark.parametrize(("cls", "steps"), [(PPO, 20_000), (A2C, 30_000)])
def test_reaches_95_percent_of_the_optimum(cls, steps):
    """The reward is the share of the budget spent on one token: the optimum is 1."""
    budget = 6
    envs = make_envs(budget)
    keywords = {PPO: ppo_defaults, A2C: a2c_defaults}[cls](envs, learning_rate=3e-3)
    agent = cls(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": tiny_model(), "kl_coef": 0.0},
        seed=0,
        device="cpu",
        **keywords,
    )
    before = evaluate(agent.policy, make_envs(budget), 256, seed=1).mean_reward
    agent.learn(steps)
    after = evaluate(agent.policy, make_envs(budget), 256, seed=1).mean_reward
    assert before < 0.3
    assert after >= 0.95


def sequences(budget):
    """Every completion: it ends with the end-of-sequence token or fills the budget."""
    for length in range(1, budget + 1):
        for tokens in itertools.product(range(len(WORDS)), repeat=length):
            if EOS in tokens[:-1] or (length < budget and tokens[-1] != EOS):
                continue
            yield tokens


@torch.no_grad()
def log_probs(model, completions):
    """`[n]`, by Hugging Face alone, one completion at a time."""
    found = []
    for tokens in completions:
        ids = torch.tensor([[1, *tokens]])
        log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        found.append(log_p[range(len(tokens)), list(tokens)].sum().item())
    return np.array(found)


def test_lands_on_the_kl_regularised_optimum():
    """The best of E[r] - beta KL(pi, ref) is beta log E_ref[exp(r / beta)], whatever the policy.

    Source: the variational formula of Donsker and Varadhan.
    """
    budget, beta = 3, 0.25
    envs = make_envs(budget, n_envs=256)
    keywords = ppo_defaults(envs, learning_rate=2e-3)
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": tiny_model(), "kl_coef": beta},
        seed=0,
        device="cpu",
        **keywords,
    )
    completions = list(sequences(budget))
    rewards = np.array([sum(t == A for t in tokens) / budget for tokens in completions])
    ref = log_probs(agent.policy.reference.model, completions)
    assert np.exp(ref).sum() == pytest.approx(1.0)
    optimum = beta * math.log((np.exp(ref + rewards / beta)).sum())
    agent.learn(60_000)
    log_pi = log_probs(agent.policy.lm.model, completions)
    pi = np.exp(log_pi)
    reached = (pi * (rewards - beta * (log_pi - ref))).sum()
    unregularised = (pi * rewards).sum()
    start = (np.exp(ref) * rewards).sum()
    assert start < 0.8 * optimum  # or there would be nothing to learn
    assert reached >= 0.95 * optimum
    assert reached <= optimum + 1e-9
    assert unregularised < 0.95  # and that is not the optimum without the KL
    # What the agent reports of itself is what it is, once it has stopped changing; texts that a
    # rollout cuts count as whole ones, so of such short ones it is some per cent too little.
    agent.lr_schedule = lambda _: 0.0
    agent.learn(1)
    exact_kl = (pi * (log_pi - ref)).sum()
    assert agent.policy.kl_stats["per_sequence"] == pytest.approx(exact_kl, rel=0.2)
