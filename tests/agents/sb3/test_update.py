"""An update through `TokenRolloutBuffer` is the update SB3 means, at a fraction of the work."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from textgym import Tokenizer
from textgym_agents.lm import unpack_support
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults
from textgym_agents.sb3 import policy as policy_module

V = Tokenizer.load().vocab_size
SMALL = {"vocab_size": V, "max_position_embeddings": 64, "hidden_size": 16}
LLAMA = SMALL | {
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def gpt2(**changes):
    config = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": V}
    return GPT2LMHeadModel(GPT2Config(**config | changes))


MODELS = {
    "gpt2": gpt2,
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)),
}


def make_agent(model, *, steps=20, n_envs=24, ppo=None, **policy):
    torch.manual_seed(1)
    envs = make_vec_env(
        "textgym/Continuation-v0",
        n_envs=n_envs,
        prompts=["Once upon a time there was a fox", "One day", "Then"],
        max_new_tokens=9,
        rewards=["length:max=30"],
    )
    keywords = ppo_defaults(envs) | {"n_steps": steps, "batch_size": steps * n_envs, "n_epochs": 1}
    return PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model} | policy,
        seed=0,
        device="cpu",
        **keywords | (ppo or {}),
    )


def collect(agent):
    """One rollout, and the observations it passed through."""
    seen = []
    add = agent.rollout_buffer.add

    def spy(obs, *others):
        seen.append([{k: v.copy() for k, v in obs.items()}, *map(copy.copy, others)])
        add(obs, *others)

    agent.rollout_buffer.add = spy
    _, callback = agent._setup_learn(10**6)
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    agent.rollout_buffer.add = add
    return seen


def gradients(agent):
    """The gradients of one `PPO.train`, and the losses it logged."""
    found = {}

    def record(*arguments, **keywords):
        for name, parameter in agent.policy.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.clone()

    agent.policy.optimizer.step = record
    agent.train()
    return found, dict(agent.logger.name_to_value)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ent_coef", [0.0, 0.01])
@pytest.mark.parametrize("in_parts", [False, True])
def test_same_losses_and_gradients_as_sb3s_own_buffer(monkeypatch, name, ent_coef, in_parts):
    if in_parts:
        monkeypatch.setattr(policy_module, "_WHOLE_TOKENS", 0)
        monkeypatch.setattr(policy_module, "_PART_TOKENS", 100)
    agent = make_agent(MODELS[name](), ppo={"ent_coef": ent_coef, "max_grad_norm": 1e9})
    seen = collect(agent)
    packed = agent.rollout_buffer
    own, own_log = gradients(agent)
    flat = DictRolloutBuffer(
        agent.n_steps, agent.observation_space, agent.action_space, "cpu", n_envs=agent.n_envs
    )
    for step in seen:
        flat.add(*step)
    flat.advantages, flat.returns = packed.advantages.copy(), packed.returns.copy()
    agent.rollout_buffer = flat
    theirs, their_log = gradients(agent)
    assert own.keys() == theirs.keys()
    assert any("value_head" in key for key in own)
    for key, value in own.items():
        assert torch.allclose(value, theirs[key], atol=1e-5, rtol=1e-4), key
    for key in ("loss", "value_loss", "policy_gradient_loss", "entropy_loss"):
        assert own_log[f"train/{key}"] == pytest.approx(their_log[f"train/{key}"], abs=1e-5), key


def reference_log_probs(model, rule, contexts, actions):
    """By Hugging Face alone, one context at a time."""
    found = []
    with torch.no_grad():
        for context, action in zip(contexts, actions, strict=True):
            logits = model(input_ids=torch.tensor([context])).logits[:, -1].float()
            for warp in rule:
                logits = warp(None, logits)
            found.append(logits.log_softmax(-1)[0, action].item())
    return np.array(found)


@pytest.mark.parametrize("name", MODELS)
def test_behaviour_log_probs_by_hugging_face_alone(name):
    policy = {"temperature": 1.3, "top_k": 300, "top_p": 0.9}
    agent = make_agent(MODELS[name](), steps=12, n_envs=6, **policy)
    seen = collect(agent)
    rule = [TemperatureLogitsWarper(1.3), TopKLogitsWarper(300), TopPLogitsWarper(0.9)]
    contexts, actions = [], []
    for obs, action, *_ in seen:
        for row in range(6):
            length = int(obs["attention_mask"][row].sum())
            contexts.append(obs["input_ids"][row, :length].tolist())
            actions.append(int(action[row, 0]))
    expected = reference_log_probs(agent.policy.lm.model.eval(), rule, contexts, actions)
    np.testing.assert_allclose(agent.rollout_buffer.log_probs.ravel(), expected, atol=1e-4)


def test_four_epochs_with_top_p_keep_ratios_finite_and_entropies_right():
    rates = {"n_epochs": 4, "learning_rate": 3e-3, "batch_size": 120}
    agent = make_agent(gpt2(), ppo=rates, top_p=0.9)
    collect(agent)
    ratios, entropies = [], []
    evaluate_actions = agent.policy.evaluate_actions

    def spy(obs, actions):
        values, log_probs, entropy = evaluate_actions(obs, actions)
        hidden = agent.policy._packed_hidden(agent.policy.lm, obs)
        logits = agent.policy.lm.head.logits(hidden)
        inside = unpack_support(obs.support, V)
        exact = torch.distributions.Categorical(logits=logits.masked_fill(~inside, -1e9))
        entropies.append((entropy - exact.entropy()).abs().max().item())
        ratios.append((log_probs - exact.log_prob(actions)).abs().max().item())
        assert torch.isfinite(log_probs).all()
        assert inside.gather(1, actions[:, None]).all()
        return values, log_probs, entropy

    agent.policy.evaluate_actions = spy
    agent.train()
    assert len(ratios) == 16
    assert max(ratios) < 1e-4
    assert max(entropies) < 1e-4
    assert np.isfinite(agent.logger.name_to_value["train/approx_kl"])
    for parameter in agent.policy.lm.parameters():
        assert torch.isfinite(parameter).all()


@pytest.mark.parametrize("dropout", ["resid_pdrop", "embd_pdrop", "attn_pdrop"])
def test_first_ratio_is_one_for_a_model_configured_with_dropout(dropout):
    agent = make_agent(gpt2(**{dropout: 0.3}))
    collect(agent)
    agent.policy.set_training_mode(True)
    for batch in agent.rollout_buffer.get(None):
        _, log_probs, _ = agent.policy.evaluate_actions(batch.observations, batch.actions)
        ratio = (log_probs - batch.old_log_prob).exp()
        assert torch.allclose(ratio, torch.ones_like(ratio), atol=1e-4)


@pytest.mark.filterwarnings("ignore:a minibatch of")
@pytest.mark.parametrize("batch_size", [64, 100, 200])
def test_every_transition_once_in_even_minibatches(batch_size):
    agent = make_agent(gpt2(), steps=18)
    collect(agent)
    buffer = agent.rollout_buffer
    buffer.returns[:] = np.arange(buffer.returns.size).reshape(buffer.returns.shape)
    sizes, found = [], []
    for batch in buffer.get(batch_size):
        sizes.append(len(batch.actions))
        found.extend(batch.returns.tolist())
    assert sorted(found) == list(range(buffer.returns.size))
    assert len(sizes) == round(buffer.returns.size / batch_size)
    assert max(sizes) / min(sizes) <= 1.25
    assert len(list(buffer.get(None))) == 1


def test_few_segments_in_a_minibatch_warn():
    agent = make_agent(gpt2(), steps=18)
    collect(agent)
    with pytest.warns(UserWarning, match="fewer than 16"):
        list(agent.rollout_buffer.get(40))


def test_a_context_that_does_not_extend_the_last_opens_a_segment():
    agent = make_agent(gpt2(), steps=4, n_envs=1)
    buffer = TokenRolloutBuffer(4, agent.observation_space, agent.action_space, "cpu", n_envs=1)
    for ids in ([5, 6], [5, 6, 7], [5, 9, 7, 8], [5, 9, 7, 8, 4]):
        row = np.zeros((1, buffer.context_size), dtype=np.int64)
        row[0, : len(ids)] = ids
        mask = (np.arange(buffer.context_size) < len(ids))[None].astype(np.int8)
        zero = torch.zeros(1)
        obs = {"input_ids": row, "attention_mask": mask}
        buffer.add(obs, np.zeros((1, 1)), np.zeros(1), np.zeros(1), zero, zero)
    assert [s.ids.tolist() for s in buffer.segments] == [[5, 6, 7], [5, 9, 7, 8, 4]]
