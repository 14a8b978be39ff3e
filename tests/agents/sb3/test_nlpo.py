"""NLPO: tokens come from the nucleus of the mask model, which follows the policy now and then."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from textgym_agents.lm import SamplingRule, unpack_support
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, ppo_defaults
from textgym_agents.sb3.nlpo import NLPO, NLPOPolicy


def agent_of(lock, cls=NLPO, rows=32, policy=NLPOPolicy, **policy_kwargs):
    defaults = ppo_defaults(lock.envs(rows)) | {"n_steps": 6, "batch_size": 96, "n_epochs": 1}
    del defaults["learning_rate"]
    return lock.agent(
        cls,
        rows=rows,
        policy=policy,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"mask_top_p": 0.6, **policy_kwargs} if policy is NLPOPolicy else {},
        **defaults,
    )


def moved(lm, by=0.3):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def same(one, other):
    return all(map(torch.equal, one.parameters(), other.parameters()))


def observations(lock):
    (layer,) = lock.tree.layers[1:2]
    return {key: torch.from_numpy(value) for key, value in layer.observations.items()}


def test_the_support_is_the_nucleus_of_the_mask_model(lock):
    policy = agent_of(lock).policy
    moved(policy.lm)
    policy.set_training_mode(False)
    seen = observations(lock)
    with torch.no_grad():
        tokens, _, log_probs = policy.act(seen)
        lengths = seen["attention_mask"].sum(dim=1).numpy().astype(np.int64)
        ids = seen["input_ids"]
        masks = policy.mask_lm.head.logits(policy.mask_lm.last_hidden(ids, lengths))
        logits = policy.lm.head.logits(policy.lm.last_hidden(ids, lengths))
    support = unpack_support(log_probs.support, 5)
    assert torch.equal(support, SamplingRule(top_p=0.6).support(masks))
    assert not torch.equal(support, SamplingRule(top_p=0.6).support(logits))
    restricted = logits.masked_fill(~support, -torch.inf).log_softmax(-1)
    expected = restricted.gather(1, tokens[:, None])[:, 0]
    assert torch.allclose(log_probs, expected, atol=1e-5)


def test_ratios_are_one_before_the_update(lock, collect):
    agent = agent_of(lock)
    moved(agent.policy.lm)
    agent.policy.invalidate_cache()
    buffer = collect(agent)
    for samples in buffer.get(96):
        log_prob = agent.policy.packed_log_probs(samples.observations)
        assert torch.allclose(log_prob, samples.old_log_prob, atol=1e-5)
        among = unpack_support(samples.observations.support, 5)
        assert among.gather(1, samples.actions[:, None]).all()
        assert among.sum(dim=1).max() < 5


def test_the_mask_follows_every_few_updates(lock, collect):
    agent = agent_of(lock, mask_interval=2)
    policy = agent.policy
    for expected in (False, True, False, True):
        collect(agent)
        agent.train()
        assert same(policy.lm, policy.mask_lm) == expected
    assert not policy.mask_lm.training
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in policy.mask_lm.parameters()}


def test_saving(lock, collect, tmp_path):
    agent = agent_of(lock, mask_interval=2)
    collect(agent)
    agent.train()
    assert not same(agent.policy.lm, agent.policy.mask_lm)
    agent.save(tmp_path / "agent.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = NLPO.load(tmp_path / "agent.zip", env=lock.envs(32), device="cpu")
    assert same(loaded.policy.mask_lm, agent.policy.mask_lm)
    assert same(loaded.policy.lm, agent.policy.lm)
    collect(loaded)
    loaded.train()
    assert same(loaded.policy.lm, loaded.policy.mask_lm)  # the second update, counted over both


def test_learns(lock):
    """The base model's nucleus may leave the key out: more than chance is all that is due."""
    agent = agent_of(lock, rows=64, mask_top_p=0.9, mask_interval=4)
    share, base = lock.share(agent, 9_000)
    assert share > 0.5 > 2 * base


def test_wrong_options(lock):
    with pytest.raises(ValueError, match="`mask_top_p`"):
        agent_of(lock, top_p=0.5)
    with pytest.raises(ValueError, match="`mask_interval`"):
        agent_of(lock, mask_interval=0)
    with pytest.raises(ValueError, match="`NLPOPolicy`"):
        agent_of(lock, policy=LMPolicy)
    assert isinstance(agent_of(lock, cls=PPO), PPO)
