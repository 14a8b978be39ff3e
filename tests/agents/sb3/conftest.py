"""A lock small enough that critic-free learners open it in seconds, and its exact optimum."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import exact
from textgym.tasks.token_lock import TokenLockTask
from textgym_agents.sb3 import LMPolicy, make_vec_env

LOCK = {"vocab_size": 5, "keys": 2, "pins": 1, "max_new_tokens": 3, "prompt_length": 1}


def _model():
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=64,
        n_layer=1,
        n_head=4,
        n_positions=16,
        vocab_size=5,
        eos_token_id=0,
        bos_token_id=None,
    )
    return GPT2LMHeadModel(config)


class Lock:
    """Makes agents on `LOCK` and says exactly what their policies are worth."""

    def __init__(self) -> None:
        self.task = TokenLockTask(**LOCK)
        self.tree = exact.lock_tree(self.task, self.task.prompts("train"))

    def envs(self, n_envs=64, **changes):
        return make_vec_env("textgym/TokenLock-v0", n_envs=n_envs, **LOCK | changes)

    def agent(self, cls, *, rows=64, rate=3e-3, policy=LMPolicy, kl_coef=0.1, env=None, **options):
        policy_options = {"model": _model(), "kl_coef": kl_coef}
        policy_options |= options.pop("policy_kwargs", {})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="a learning rate of")
            return cls(
                policy,
                self.envs(rows, **env or {}),
                lambda left: rate * min(1.0, left / 0.7),
                policy_kwargs=policy_options,
                seed=0,
                device="cpu",
                **options,
            )

    def log_probs_of(self, lm):
        @torch.no_grad()
        def log_probs(seen):
            lengths = seen["attention_mask"].sum(axis=1, dtype=np.int64)
            hidden = lm.last_hidden(torch.from_numpy(seen["input_ids"]), lengths)
            return lm.head.logits(hidden).double().log_softmax(dim=-1).numpy()

        return log_probs

    def share(self, agent, steps, beta=0.1):
        """J / J* of what `agent` has learnt after `steps` tokens, and what it was at first."""
        policy = agent.policy
        ref = exact.tabulate_policy(self.tree, self.log_probs_of(policy.lm))
        best = exact.optimum(self.tree, beta=beta, reference=ref).objective
        base = exact.evaluate(self.tree, ref, beta=beta, reference=ref).objective
        agent.learn(steps)
        log_probs = self.log_probs_of(policy.lm)
        reached = exact.evaluate(self.tree, log_probs, beta=beta, reference=ref).objective
        assert reached <= best + 1e-9
        return reached / best, base / best


@pytest.fixture(scope="session")
def lock():
    return Lock()


def naive_log_probs(lm, ids, completion_mask):
    """`[N]`, by Hugging Face alone, of the agent's own tokens in one whole context."""
    tokens = torch.tensor(np.asarray(ids))[None]
    log_p = lm.model(input_ids=tokens).logits[0, :-1].log_softmax(-1)
    every = log_p.gather(1, tokens[0, 1:, None])[:, 0]
    return every[torch.tensor(np.asarray(completion_mask)[1:])]


@pytest.fixture(name="naive_log_probs")
def naive_log_probs_fixture():
    return naive_log_probs


def _collect(agent):
    _, callback = agent._setup_learn(10**6)
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    return agent.rollout_buffer


@pytest.fixture
def collect():
    """`collect(agent)`: one rollout; its buffer."""
    return _collect


@pytest.fixture
def gradients():
    """`gradients(agent)`: those of one `train()`, unclipped."""

    def of(agent):
        agent.max_grad_norm = 1e9
        agent.policy.optimizer.step = lambda *arguments, **keywords: None
        agent.train()
        return {
            name: parameter.grad.clone()
            for name, parameter in agent.policy.lm.named_parameters()
            if parameter.grad is not None
        }

    return of


@pytest.fixture
def naive_gradients():
    """`naive_gradients(agent, loss)`: of `loss(row, log_probs)`, over all episodes."""

    def of(agent, loss):
        lm, buffer = agent.policy.lm, agent.rollout_buffer
        total = 0.0
        for row in range(agent.n_envs):
            episode = buffer.episode(row)
            log_prob = naive_log_probs(lm, episode.input_ids, episode.completion_mask)
            total = total + loss(row, log_prob)
        lm.zero_grad()
        total.backward()
        return {n: p.grad.clone() for n, p in lm.named_parameters() if p.grad is not None}

    return of
