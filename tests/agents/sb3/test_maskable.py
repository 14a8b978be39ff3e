"""Masks bound samples, log-probs, entropies and KL alike, and are kept as bits."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from transformers import GPT2Config, GPT2LMHeadModel

from textgym.wrappers import MaskObservation
from textgym_agents.lm import unpack_support
from textgym_agents.sb3 import GRPO, LMPolicy, evaluate, make_vec_env, ppo_defaults

contrib = pytest.importorskip("sb3_contrib")
maskable = pytest.importorskip("textgym_agents.sb3.maskable")
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer  # noqa: E402
from sb3_contrib.common.maskable.evaluation import evaluate_policy  # noqa: E402

V, BANNED = 12, (3, 7)
# End-of-sequence is masked before two tokens, and two letters always.
MASKS = {"min_new_tokens": 2, "banned_tokens": BANNED}


def make_envs(n_envs=24, **keywords):
    lock = {"vocab_size": V, "keys": 2, "pins": 3, "max_new_tokens": 6, "prompt_length": 2}
    return make_vec_env("textgym/TokenLock-v0", n_envs=n_envs, **lock | MASKS | keywords)


def make_agent(envs=None, *, steps=12, policy=None, **ppo):
    envs = make_envs() if envs is None else envs
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": V}
    model = GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=0, bos_token_id=0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    sizes = {"n_steps": steps, "batch_size": steps * envs.num_envs, "n_epochs": 1}
    return contrib.MaskablePPO(
        maskable.MaskableLMPolicy,
        envs,
        rollout_buffer_class=maskable.MaskableTokenRolloutBuffer,
        policy_kwargs={"model": model} | (policy or {}),
        seed=0,
        device="cpu",
        **ppo_defaults(envs) | sizes | ppo,
    )


def collect(agent):
    """One rollout; each step's observation, action, ... and masks."""
    seen = []
    add = agent.rollout_buffer.add

    def spy(obs, *others, action_masks):
        obs = {k: v.copy() for k, v in obs.items()}
        seen.append([obs, *map(copy.copy, others), action_masks.copy()])
        add(obs, *others, action_masks=action_masks)

    agent.rollout_buffer.add = spy
    _, callback = agent._setup_learn(10**6)
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    agent.rollout_buffer.add = add
    return seen


def gradients(agent):
    """The gradients of one `MaskablePPO.train`, and the losses it logged."""
    found = {}

    def record(*arguments, **keywords):
        for name, parameter in agent.policy.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.clone()

    agent.policy.optimizer.step = record
    agent.train()
    return found, dict(agent.logger.name_to_value)


@torch.no_grad()
def masked_logits(model, seen):
    """`[N * B, V]`, by Hugging Face and the environments' masks alone, one context at a time."""
    found = []
    for obs, *_, masks in seen:
        for ids, lengths, mask in zip(obs["input_ids"], obs["attention_mask"], masks, strict=True):
            logits = model(input_ids=torch.from_numpy(ids[: lengths.sum()])[None]).logits[0, -1]
            found.append(logits.masked_fill(~torch.from_numpy(mask), -torch.inf))
    return torch.stack(found)


def test_masks_bound_samples_log_probs_and_kl():
    agent = make_agent(steps=20, policy={"kl_coef": 0.5})
    collect(agent)
    agent.learning_rate = agent.lr_schedule = lambda _: 1e-2
    agent.train()  # away from the reference
    seen = collect(agent)
    buffer = agent.rollout_buffer
    assert not np.isin(buffer.actions, BANNED).any()
    assert (buffer.actions == 0).any()  # where the mask lets it be
    model, reference = agent.policy.lm.model, agent.policy.reference.model
    actions = torch.from_numpy(buffer.actions.ravel())[:, None]
    exact = masked_logits(model, seen).log_softmax(-1).gather(1, actions)[:, 0].numpy()
    ref = masked_logits(reference, seen).log_softmax(-1).gather(1, actions)[:, 0].numpy()
    assert np.abs(exact - ref).max() > 0.1
    np.testing.assert_allclose(buffer.log_probs.ravel(), exact, atol=1e-4)
    assert agent.policy.kl_stats["per_token"] == pytest.approx((exact - ref).mean(), abs=1e-4)


@pytest.mark.parametrize("ent_coef", [0.0, 0.1])
def test_same_losses_and_gradients_as_sb3_contribs_own_buffer(ent_coef):
    agent = make_agent(ent_coef=ent_coef, max_grad_norm=1e9)
    seen = collect(agent)
    packed = agent.rollout_buffer
    own, own_log = gradients(agent)
    flat = MaskableDictRolloutBuffer(
        agent.n_steps, agent.observation_space, agent.action_space, "cpu", n_envs=agent.n_envs
    )
    for *step, masks in seen:
        flat.add(*step, action_masks=masks)
    flat.advantages, flat.returns = packed.advantages.copy(), packed.returns.copy()
    agent.rollout_buffer = flat
    theirs, their_log = gradients(agent)
    assert own.keys() == theirs.keys()
    for key, value in own.items():
        assert torch.allclose(value, theirs[key], atol=1e-5, rtol=1e-4), key
    for key in ("loss", "value_loss", "policy_gradient_loss", "entropy_loss"):
        assert own_log[f"train/{key}"] == pytest.approx(their_log[f"train/{key}"], abs=1e-5), key
    entropy = torch.distributions.Categorical(
        logits=masked_logits(agent.policy.lm.model, seen).clamp(min=-1e9)
    ).entropy()
    assert own_log["train/entropy_loss"] == pytest.approx(-entropy.mean().item(), abs=1e-5)


@pytest.mark.parametrize("rule", [{}, {"top_k": 4}, {"temperature": 0.7, "top_p": 0.8}])
def test_first_ratios_are_one_within_mask_and_sampling_rule(rule):
    agent = make_agent(policy=rule)
    seen = collect(agent)
    agent.policy.set_training_mode(True)
    (batch,) = agent.rollout_buffer.get(None)
    assert batch.action_masks is None
    _, log_probs, _ = agent.policy.evaluate_actions(batch.observations, batch.actions)
    assert torch.allclose(log_probs, batch.old_log_prob, atol=1e-4)
    inside = unpack_support(batch.observations.support, V)
    allowed = sum(int(masks.sum()) for *_, masks in seen)
    assert inside.sum() <= allowed if rule else inside.sum() == allowed
    assert not inside[:, BANNED].any()


def test_an_eighth_of_a_byte_a_token_is_kept():
    vocab_size, steps, rows = 50_257, 8, 4
    envs = make_envs(rows)
    space = type(envs.action_space)(vocab_size, tokenizer_hash="", eos_token_id=0)
    buffer = maskable.MaskableTokenRolloutBuffer(steps, envs.observation_space, space, n_envs=rows)
    observation = envs.reset()
    for step in range(steps):
        log_prob = torch.zeros(rows)
        log_prob.support = torch.full((rows, -(-vocab_size // 8)), step, dtype=torch.uint8)
        masks = np.ones((rows, vocab_size), bool)
        zero = np.zeros(rows)
        buffer.add(observation, zero, zero, zero, torch.zeros(rows), log_prob, action_masks=masks)
    arrays = [v for v in vars(buffer).values() if isinstance(v, np.ndarray)]
    kept = sum(a.nbytes for a in (*arrays, *buffer.support))
    assert kept < steps * rows * (vocab_size / 8 + 200)
    (batch,) = buffer.get(None)
    assert batch.observations.support.shape == (steps * rows, 6283)
    assert sorted(batch.observations.support[:, 0].tolist()) == sorted([*range(steps)] * rows)


def test_log_probs_without_their_masks_are_refused():
    envs = make_envs(4)
    buffer = maskable.MaskableTokenRolloutBuffer(
        2, envs.observation_space, envs.action_space, n_envs=4
    )
    zero, masks = np.zeros(4), np.ones((4, V), bool)
    with pytest.raises(ValueError, match="Use `MaskableLMPolicy` with this buffer"):
        buffer.add(
            envs.reset(), zero, zero, zero, torch.zeros(4), torch.zeros(4), action_masks=masks
        )


def test_predicts_saves_loads_and_is_evaluated(tmp_path):
    agent = make_agent()
    agent.learn(300)
    agent.save(tmp_path / "agent")
    loaded = contrib.MaskablePPO.load(tmp_path / "agent", device="cpu")
    envs = make_envs(8)
    observation = envs.reset()
    masks = np.stack(envs.env_method("action_masks"))
    for deterministic in (True, False):
        ours, _ = agent.predict(observation, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(8), ours].all()
    ours, _ = agent.predict(observation, deterministic=True, action_masks=masks)
    theirs, _ = loaded.predict(observation, deterministic=True, action_masks=masks)
    np.testing.assert_array_equal(ours, theirs)
    obs = {k: torch.from_numpy(v) for k, v in observation.items()}
    with torch.no_grad():
        probs = agent.policy.get_distribution(obs, masks).distribution.probs
    assert (probs[~torch.from_numpy(masks)] == 0).all()
    # sb3-contrib's own evaluation passes masks, and so does ours.
    mean, _ = evaluate_policy(agent, envs, 32)
    ours = evaluate(agent.policy, make_envs(8), 32, deterministic=True)
    assert ours.mean_reward == pytest.approx(mean, abs=0.3)


def test_evaluation_passes_the_masks_of_the_environments():
    policy = make_agent().policy
    plain = evaluate(policy, make_envs(8), 32, seed=0)
    observed = evaluate(policy, make_envs(8, wrappers=[MaskObservation]), 32, seed=0)
    written = [e.completion_ids.tolist() for e in plain.episodes]
    assert written == [e.completion_ids.tolist() for e in observed.episodes]
    assert not {token for text in written for token in text} & set(BANNED)
    # The policy is its reference: a KL that is not 0 were one of a distribution without the masks.
    assert plain.mean_kl_per_token == pytest.approx(0.0, abs=1e-5)


def test_environments_without_masks_are_refused():
    envs = make_envs(4, min_new_tokens=0, banned_tokens=())
    with pytest.raises(ValueError, match="so there is nothing to mask: use PPO"):
        maskable.maskable_ppo_defaults(envs)
    with pytest.raises(ValueError, match="so there is nothing to mask: use PPO"):
        make_agent(envs)
    assert maskable.maskable_ppo_defaults(make_envs(4))["gamma"] == 1.0


@pytest.mark.parametrize("cls", [PPO, A2C, GRPO])
@pytest.mark.parametrize("masks", [{"min_new_tokens": 1}, {"banned_tokens": (3,)}])
def test_masks_are_refused_by_agents_that_do_not_ask_for_them(cls, masks):
    none = {"min_new_tokens": 0, "banned_tokens": ()}
    model = make_agent().policy.lm.model
    keywords = {"policy_kwargs": {"model": model}, "device": "cpu"}
    with pytest.raises(ValueError, match=r"an action mask applies .* MaskablePPO") as refused:
        cls(LMPolicy, make_envs(8, **none | masks), **keywords)
    assert "\n" not in str(refused.value)
    cls(LMPolicy, make_envs(8, **none), **keywords)
    cls(LMPolicy, make_envs(8, **none | masks, wrappers=[MaskObservation]), **keywords)
