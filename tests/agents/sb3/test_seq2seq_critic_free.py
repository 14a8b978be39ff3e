"""Encoder-decoder models in learners without a critic: rollouts, updates, learning, refusals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from textgym_agents.decoding import beam_search
from textgym_agents.lm.episodes import BranchingCache
from textgym_agents.sb3 import GRPO, REINFORCE, RLOO, ExpertIteration, LMPolicy, evaluate

from .test_seq2seq import MODELS, T5, make_envs, t5, tokens, word_envs

LEARNERS = [GRPO, RLOO, REINFORCE, ExpertIteration]


def make_agent(model, cls=GRPO, *, envs=None, group_size=4, rate=1e-3, **policy):
    return cls(
        LMPolicy,
        make_envs() if envs is None else envs,
        rate,
        group_size=group_size,
        policy_kwargs={"model": model} | policy,
        seed=0,
        device="cpu",
    )


def ends_at_all_times(agent):
    """Make end-of-sequence likely enough that rows end at all times."""
    choose, eos = agent.policy._choose, agent.env.envs.unwrapped.tokenizer.eos_token_id

    def often(hidden, observation, deterministic):
        actions, _, support = choose(hidden, observation, deterministic)
        stop = torch.rand(len(actions)) < 0.25
        actions = torch.where(stop, eos, actions)
        log_probs = agent.policy.lm.head.logits(hidden).log_softmax(-1)
        return actions, log_probs.gather(1, actions[:, None])[:, 0], support

    agent.policy._choose = often


def of_whole_texts(lm, episode):
    """`[n]`, the log-probs of an episode's own tokens, by Hugging Face alone."""
    ids = torch.tensor(np.asarray(episode.input_ids))
    own = torch.tensor(np.asarray(episode.completion_mask))
    prompt, completion = ids[~own], ids[own]
    start = torch.tensor([lm.model.config.decoder_start_token_id])
    logits = lm.model(
        input_ids=prompt[None], decoder_input_ids=torch.cat([start, completion[:-1]])[None]
    ).logits[0]
    return logits.log_softmax(-1).gather(1, completion[:, None])[:, 0]


@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_log_probs_are_the_models_at_rollout_and_in_the_update(name, incremental, collect):
    agent = make_agent(MODELS[name](), kl_coef=0.1)
    agent.policy.lm.incremental = incremental
    ends_at_all_times(agent)
    buffer = collect(agent)
    lm = agent.policy.lm
    assert len(set(buffer.counts.tolist())) > 4  # rows were parked at different times
    assert len({len(e.input_ids) - e.completion_mask.sum() for e in buffer._records.values()}) > 1
    with torch.no_grad():
        exact = torch.cat([of_whole_texts(lm, buffer.episode(row)) for row in range(24)])
    np.testing.assert_allclose(buffer.log_probs, exact, atol=1e-4)
    np.testing.assert_allclose(buffer.ref_log_probs, exact, atol=1e-4)  # nothing was learnt yet
    agent.policy.set_training_mode(True)
    for samples in buffer.get(60):
        _, ours, _ = agent.policy.evaluate_actions(samples.observations, samples.actions)
        torch.testing.assert_close(ours, samples.old_log_prob, atol=1e-4, rtol=0)


def test_the_gradient_is_that_of_the_loss_on_whole_texts(collect, gradients):
    paid = {"rewards": [lambda episodes: [len(e.input_ids) % 5 for e in episodes]]}
    agent = make_agent(t5(), RLOO, envs=make_envs(**paid), kl_coef=0.0)
    ends_at_all_times(agent)
    buffer = collect(agent)
    ours = gradients(agent)
    lm = agent.policy.lm
    total = 0.0
    for row, advantage in enumerate(buffer.advantages[np.cumsum(buffer.counts) - 1].tolist()):
        total = total - advantage * of_whole_texts(lm, buffer.episode(row)).sum() / 24
    lm.zero_grad()
    total.backward()
    assert (np.abs(buffer.advantages) > 0.1).any()
    for key, parameter in lm.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[key], parameter.grad, atol=1e-5, rtol=1e-3)


def test_only_rows_that_write_are_read(monkeypatch, collect):
    agent = make_agent(t5(), kl_coef=0.0)
    ends_at_all_times(agent)
    read, seen = BranchingCache.last_hidden, []

    def spy(self, ids, *others):
        seen.append(len(ids))
        return read(self, ids, *others)

    monkeypatch.setattr(BranchingCache, "last_hidden", spy)
    buffer = collect(agent)
    assert seen[0] <= 3  # each prompt once
    assert seen[1:] == [int((buffer.counts > t).sum()) for t in range(1, max(buffer.counts))]


@pytest.mark.filterwarnings("ignore:a learning rate of")
@pytest.mark.parametrize("cls", LEARNERS)
def test_they_learn_what_the_prompt_asks_for(cls):
    """One word for all prompts would reach 0.5."""
    envs = word_envs()
    torch.manual_seed(0)
    config = T5 | {"d_model": 32, "d_ff": 64, "num_layers": 1}
    model = T5ForConditionalGeneration(T5Config(**config | tokens(envs.tokenizer)))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.3)
    agent = make_agent(model, cls, envs=envs, group_size=8, rate=1e-2, kl_coef=0.0)
    before = evaluate(agent.policy, envs, 128, seed=1).mean_reward
    agent.learn(12_000)
    after = evaluate(agent.policy, envs, 128, seed=1).mean_reward
    assert before < 0.3
    assert after > 0.75


def test_a_task_that_replies_is_refused():
    envs = make_envs()
    agent = make_agent(t5(), envs=envs)
    step = envs.envs.step

    def replies(actions):
        observation, *others = step(actions)
        observation = {key: value.copy() for key, value in observation.items()}
        observation["attention_mask"][:, : observation["attention_mask"].sum(1).min() + 2] = 1
        return observation, *others

    envs.envs.step = replies
    with pytest.raises(ValueError, match="Take a causal model, or a task of a single turn"):
        agent.learn(1)


def test_searches_take_causal_models():
    agent = make_agent(t5())
    env = gym.make("textgym/Continuation-v0", prompts=["Once"], max_new_tokens=4)
    with pytest.raises(ValueError, match="searches take causal models"):
        beam_search(agent.policy.lm, env)
