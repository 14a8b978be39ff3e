"""TRPO's step is the one it means: exact gradients, a bounded KL, nothing stale afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.distributions import kl_divergence
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from textgym_agents.sb3 import TokenRolloutBuffer, make_vec_env
from textgym_agents.sb3.trpo import TRPOPolicy, trpo_defaults

TRPO = pytest.importorskip("sb3_contrib").TRPO

V = 6
SIZES = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 16}
TOKENS = {"eos_token_id": 0, "bos_token_id": 0}


def gpt2():
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": V}
    return GPT2LMHeadModel(GPT2Config(**sizes, **TOKENS))


MODELS = {
    "gpt2": gpt2,
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **TOKENS)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **TOKENS)),
}


def make_agent(make=gpt2, *, steps=8, n_envs=32, policy=None, **trpo):
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():  # the usual initialisation is so small that mistakes would not show
        for parameter in model.parameters():
            parameter.mul_(3.0)
    lock = {"vocab_size": V, "keys": 2, "pins": 2, "max_new_tokens": 4, "prompt_length": 2}
    envs = make_vec_env("textgym/TokenLock-v0", n_envs=n_envs, reward="dense", **lock)
    sizes = {"n_steps": steps, "batch_size": steps * n_envs}
    return TRPO(
        TRPOPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model, "kl_coef": 0.0} | (policy or {}),
        seed=0,
        device="cpu",
        **trpo_defaults(envs) | sizes | trpo,
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


def logits_of(model, seen):
    """`[N * B, V]` of every state, step by step, by Hugging Face alone, one context at a time."""
    found = []
    for obs, *_ in seen:
        for ids, mask in zip(obs["input_ids"], obs["attention_mask"], strict=True):
            context = torch.from_numpy(ids[: int(mask.sum())])[None]
            found.append(model(input_ids=context, use_cache=False).logits[0, -1, :V])
    return torch.stack(found).float()


def flat_copy(agent, seen):
    """SB3's own buffer with the same transitions."""
    packed = agent.rollout_buffer
    flat = DictRolloutBuffer(
        agent.n_steps, agent.observation_space, agent.action_space, "cpu", n_envs=agent.n_envs
    )
    for step in seen:
        flat.add(*step)
    flat.advantages, flat.returns = packed.advantages.copy(), packed.returns.copy()
    return flat


def differentiated(agent):
    """TRPO's own gradient of the objective, and the Fisher matrix times a vector."""
    policy = agent.policy
    policy.set_training_mode(True)
    (batch,) = agent.rollout_buffer.get(None)
    actions = batch.actions.long().flatten()
    with torch.no_grad():
        old = policy.get_distribution(batch.observations)
    new = policy.get_distribution(batch.observations)
    ratio = (new.log_prob(actions) - batch.old_log_prob).exp()
    assert torch.allclose(ratio, torch.ones_like(ratio), atol=1e-4)
    kl = kl_divergence(new, old).mean()
    weights, gradient, kl_gradient, _ = agent._compute_actor_grad(
        kl, (batch.advantages * ratio).mean()
    )
    vector = torch.linspace(-1.0, 1.0, len(gradient))
    product = agent.hessian_vector_product(weights, kl_gradient, vector)
    policy.set_training_mode(False)
    return gradient, product


@pytest.mark.parametrize("name", MODELS)
def test_same_gradient_as_flat_and_as_by_hugging_face(name):
    agent = make_agent(MODELS[name], steps=6, n_envs=8)
    seen = collect(agent)
    gradient, product = differentiated(agent)
    log_p = logits_of(agent.policy.lm.model, seen).log_softmax(-1)
    actions = torch.from_numpy(agent.rollout_buffer.actions.ravel())
    advantages = torch.from_numpy(agent.rollout_buffer.advantages.ravel())
    objective = (advantages * log_p.gather(1, actions[:, None])[:, 0]).mean()
    weights = list(agent.policy.lm.model.parameters())
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(objective, weights)])
    assert torch.allclose(gradient, exact, atol=1e-5, rtol=1e-4)
    agent.rollout_buffer = flat_copy(agent, seen)
    flat_gradient, flat_product = differentiated(agent)
    assert torch.allclose(gradient, flat_gradient, atol=1e-5, rtol=1e-4)
    assert torch.allclose(product, flat_product, atol=1e-4, rtol=1e-3)


def test_fisher_product_is_the_mean_outer_product_of_the_scores():
    agent = make_agent(steps=3, n_envs=4, cg_damping=0.0)
    seen = collect(agent)
    _, product = differentiated(agent)
    log_p = logits_of(agent.policy.lm.model, seen).log_softmax(-1)
    weights = list(agent.policy.lm.model.parameters())
    vector = torch.linspace(-1.0, 1.0, len(product))
    expected = torch.zeros_like(product)
    for state in log_p:
        for token in range(V):
            score = torch.autograd.grad(state[token], weights, retain_graph=True)
            score = torch.cat([g.flatten() for g in score])
            expected += state[token].exp().detach() * score * (score @ vector)
    assert torch.allclose(product, expected / len(log_p), atol=1e-4, rtol=1e-3)


def test_learns_within_the_bound_and_leaves_nothing_stale():
    agent = make_agent(n_envs=16, target_kl=0.05)
    seen = collect(agent)
    kls = []
    for _ in range(3):
        before = copy.deepcopy(agent.policy.lm.model)
        head = agent.policy.value_head.weight.clone()
        agent.train()
        assert (agent.policy.value_head.weight - head).abs().max() > 0
        model = agent.policy.lm.model
        assert all((a != b).any() for a, b in _pairs(before, model))
        with torch.no_grad():
            old, new = logits_of(before, seen), logits_of(model, seen)
        log_new, log_old = new.log_softmax(-1), old.log_softmax(-1)
        kls.append(float((log_new.exp() * (log_new - log_old)).sum(-1).mean()))
        assert agent.logger.name_to_value["train/kl_divergence_loss"] == pytest.approx(
            kls[-1], rel=0.02, abs=1e-5
        )
        # The rollout goes on where it was, in the middle of episodes, with the new weights.
        seen = collect(agent)
        with torch.no_grad():
            exact = logits_of(model, seen).log_softmax(-1)
        actions = torch.from_numpy(agent.rollout_buffer.actions.ravel())
        behaviour = torch.from_numpy(agent.rollout_buffer.log_probs.ravel())
        assert torch.allclose(behaviour, exact.gather(1, actions[:, None])[:, 0], atol=1e-4)
    assert all(0.002 < kl <= 0.05 for kl in kls)


def _pairs(one, other):
    return zip(one.parameters(), other.parameters(), strict=True)


def test_the_reference_stays_and_what_is_called_value_moves():
    """GPT-NeoX's attention is `query_key_value`, by which TRPO would take it for a critic's."""
    agent = make_agent(MODELS["neox"], policy={"kl_coef": 0.1})
    reference = copy.deepcopy(agent.policy.reference)
    collect(agent)
    agent.train()
    assert all(torch.equal(a, b) for a, b in _pairs(reference, agent.policy.reference))
    assert any("value" in name for name, _ in agent.policy.lm.named_parameters())
    assert all((a != b).any() for a, b in _pairs(reference, agent.policy.lm))
    assert agent.policy.kl_stats["per_token"] == pytest.approx(0.0, abs=1e-6)  # of before
    collect(agent)
    assert agent.policy.kl_stats["k3_per_token"] > 1e-4


def test_the_optimizer_moves_the_value_head_alone(monkeypatch):
    monkeypatch.setattr(  # no step is small enough
        "sb3_contrib.trpo.trpo.kl_divergence", lambda new, old: kl_divergence(new, old) + 1.0
    )
    agent = make_agent(line_search_max_iter=2)
    before = copy.deepcopy(agent.policy.lm)
    collect(agent)
    head = agent.policy.value_head.weight.clone()
    agent.train()
    assert agent.logger.name_to_value["train/is_line_search_success"] == 0
    assert all(torch.equal(a, b) for a, b in _pairs(before, agent.policy.lm))
    assert (agent.policy.value_head.weight - head).abs().max() > 0


def test_top_k_stays_within_what_was_chosen_among():
    agent = make_agent(policy={"top_k": 2}, target_kl=0.02)
    for _ in range(3):
        collect(agent)
        agent.train()
        assert agent.logger.name_to_value["train/is_line_search_success"] == 1
        assert all(torch.isfinite(p).all() for p in agent.policy.lm.parameters())
    agent.policy.set_training_mode(True)
    (batch,) = agent.rollout_buffer.get(None)
    distribution = agent.policy.get_distribution(batch.observations).distribution
    assert ((distribution.probs > 0).sum(-1) == 2).all()


def test_saved_and_loaded(tmp_path):
    agent = make_agent()
    agent.learn(512)
    agent.save(tmp_path / "agent")
    loaded = TRPO.load(tmp_path / "agent", device="cpu")
    assert all(torch.equal(a, b) for a, b in _pairs(agent.policy.lm, loaded.policy.lm))
    assert loaded.policy.lm.model.config._attn_implementation == "eager"


def test_a_model_that_cannot_be_differentiated_twice_is_refused():
    model = gpt2()
    model.set_attn_implementation("sdpa")
    model.set_attn_implementation = lambda name: None
    with pytest.raises(ValueError, match="cannot be differentiated twice, which TRPO needs"):
        make_agent(lambda: model)


@pytest.mark.parametrize("policy", [{}, {"top_k": 3}])
@pytest.mark.parametrize("factor", [3, 17])  # some segments have none that is taken
def test_sub_sampling_takes_every_kth_transition(policy, factor):
    agent = make_agent(steps=6, n_envs=8, policy=policy)
    collect(agent)
    agent.policy.set_training_mode(True)
    (batch,) = agent.rollout_buffer.get(None)
    whole, few = batch.observations, batch.observations[::factor]
    all_logits = agent.policy.get_distribution(whole).distribution.logits
    some_logits = agent.policy.get_distribution(few).distribution.logits
    torch.testing.assert_close(some_logits, all_logits[::factor], atol=1e-5, rtol=1e-5)
    assert torch.equal(few.actions, batch.actions.long().flatten()[::factor])
    assert sum(few.counts) == len(few.index) == -(-len(whole.index) // factor)
    assert min(few.counts) > 0
    assert len(few.input_ids) == len(few.counts) < len(whole.input_ids)


def test_trpo_learns_from_a_part_of_the_transitions():
    agent = make_agent(sub_sampling_factor=4)
    before = torch.cat([p.detach().flatten() for p in agent.policy.lm.parameters()])
    agent.learn(2 * agent.n_steps * agent.n_envs)
    after = torch.cat([p.detach().flatten() for p in agent.policy.lm.parameters()])
    assert not torch.equal(before, after)
    assert 0 < agent.logger.name_to_value["train/kl_divergence_loss"] < agent.target_kl
