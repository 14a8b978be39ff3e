"""LoRA in the policy: one copy of the weights, an exact reference, saving, resuming, learning."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
import torch
from stable_baselines3 import PPO
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym_agents.lm import LORA_RATE, suggested_learning_rate
from textgym_agents.sb3 import (
    CheckpointCallback,
    LMPolicy,
    TokenRolloutBuffer,
    evaluate,
    load_checkpoint,
    make_vec_env,
    ppo_defaults,
)

TOKENIZER = Tokenizer.load()
V = TOKENIZER.vocab_size
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj"]}
WIDTH = 16


def tiny_model():
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        n_positions=64,
        vocab_size=V,
        bos_token_id=TOKENIZER.eos_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
    )
    return GPT2LMHeadModel(config).eval()


def make_envs(rewards=("length:max=20",), n_envs=16, budget=8):
    return make_vec_env(
        "textgym/Continuation-v0",
        n_envs=n_envs,
        prompts=["One day", "Once upon a time"],
        max_new_tokens=budget,
        rewards=list(rewards),
    )


def make_agent(*, model=None, rewards=("length:max=20",), ppo=None, **policy):
    envs = make_envs(rewards)
    keywords = ppo_defaults(envs) | {"n_steps": 16, "batch_size": 256} | (ppo or {})
    return PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model or tiny_model(), "lora": LORA} | policy,
        seed=0,
        device="cpu",
        **keywords,
    )


def rollout(agent):
    _, callback = agent._setup_learn(10**6)
    agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, agent.n_steps)
    return next(iter(agent.rollout_buffer.get(None)))


def observation(envs=None):
    envs = envs or make_envs()
    envs.seed(3)
    return envs.reset()


def log_probs(policy):
    with torch.no_grad():
        obs, _ = policy.obs_to_tensor(observation())
        return policy.get_distribution(obs).distribution.logits


def base_weights(policy):
    return {n: p.clone() for n, p in policy.lm.named_parameters() if "lora_" not in n}


def test_one_copy_of_the_weights():
    model = tiny_model()
    count = sum(p.numel() for p in model.parameters())
    policy = make_agent(model=model).policy
    assert policy.reference is not None
    tensors = [*policy.lm.model.parameters(), *policy.parameters(), *policy.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    # c_attn: 16 -> 48; both c_proj: 16 -> 16 and 64 -> 16; two layers of each.
    lora = 2 * 4 * ((WIDTH + 3 * WIDTH) + (WIDTH + WIDTH) + (4 * WIDTH + WIDTH))
    value_head, kl_coef = WIDTH + 1, 8
    assert sum(storages.values()) == 4 * (count + lora + value_head) + kl_coef
    assert sum(p.numel() for p in policy.parameters()) == count + lora + value_head
    trained = [p for group in policy.optimizer.param_groups for p in group["params"]]
    assert sum(p.numel() for p in trained) == lora + value_head
    assert all(p.requires_grad for p in trained)


def test_kl_is_zero_at_the_start_and_the_first_ratio_is_one():
    agent = make_agent(kl_coef=0.1)
    batch = rollout(agent)
    policy, packed = agent.policy, batch.observations
    own = policy.packed_log_probs(packed)
    assert torch.equal(own, policy.packed_log_probs(packed, reference=True))
    assert policy.kl_stats["per_token"] == pytest.approx(0.0, abs=1e-6)
    policy.set_training_mode(True)
    _, new, _ = policy.evaluate_actions(packed, batch.actions)
    assert torch.allclose(new, batch.old_log_prob, atol=1e-4)


def test_training_moves_the_adapter_and_leaves_the_reference():
    agent = make_agent(kl_coef=0.1)
    packed = rollout(agent).observations
    policy = agent.policy
    before, reference = base_weights(policy), policy.packed_log_probs(packed, reference=True)
    own = policy.packed_log_probs(packed)
    agent.learn(512)
    after = base_weights(policy)
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert torch.equal(reference, policy.packed_log_probs(packed, reference=True))
    assert (policy.packed_log_probs(packed) - own).abs().max() > 1e-3
    original = tiny_model()
    with torch.no_grad():
        logits = original(input_ids=packed.input_ids).logits.flatten(0, 1)[packed.index]
    expected = logits.log_softmax(-1).gather(1, packed.actions[:, None])[:, 0]
    assert torch.allclose(reference, expected, atol=1e-5)


def test_toggling_the_adapter_drops_the_cache():
    agent = make_agent()
    agent.learn(512)
    policy = agent.policy
    obs, _ = policy.obs_to_tensor(observation())
    fresh = {}
    for on in (True, False):
        policy.lm.adapter.switch(on)
        policy.invalidate_cache()
        with torch.no_grad():
            fresh[on] = policy.act(obs)[1], policy._hidden(obs, "forward")
    assert (fresh[True][1] - fresh[False][1]).abs().max() > 1e-4
    for on in (True, False, True, False):
        policy.lm.adapter.switch(on)
        with torch.no_grad():
            assert torch.equal(policy._hidden(obs, "forward"), fresh[on][1])


def test_learning_rate_by_default_is_ten_times_that_of_the_model():
    size = sum(p.numel() for p in tiny_model().parameters())
    agent = make_agent()
    usual = suggested_learning_rate(size)
    assert pytest.approx(10.0) == LORA_RATE
    assert agent.lr_schedule(0.0) == pytest.approx(10 * usual)
    assert make_agent(lora=None).lr_schedule(0.0) == pytest.approx(usual)
    given = ppo_defaults(make_envs(), learning_rate=3e-3)["learning_rate"]
    assert make_agent(ppo={"learning_rate": given}).lr_schedule(0.0) == pytest.approx(3e-3)
    with pytest.warns(UserWarning, match="likely to destroy"):
        make_agent(ppo={"learning_rate": 150 * usual})


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    TOKENIZER.save(tmp_path / "model")
    return tmp_path / "model"


def test_merged_export_and_adapter_export(folder, tmp_path):
    from peft import PeftModel

    agent = make_agent(model=str(folder))
    agent.learn(512)
    policy = agent.policy
    state = {k: v.clone() for k, v in policy.lm.state_dict().items()}
    policy.save_pretrained(tmp_path / "merged")
    policy.save_adapter(tmp_path / "adapter")
    assert all(torch.equal(v, policy.lm.state_dict()[k]) for k, v in state.items())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(folder)
    added = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter"
    )
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, V, (2, 20)))
    with torch.no_grad():
        ours = policy.lm.head.logits(policy.lm.hidden_states(ids)).log_softmax(-1)
        for model in (merged, added):
            assert (model(ids).logits.log_softmax(-1) - ours).abs().max() < 1e-5
        assert (plain(ids).logits.log_softmax(-1) - ours).abs().max() > 1e-3
    assert not any("lora" in name for name in merged.state_dict())
    assert merged.generation_config.do_sample
    assert Tokenizer.load(tmp_path / "merged").hash == TOKENIZER.hash
    with pytest.raises(ValueError, match="no adapter to save"):
        make_agent(lora=None).policy.save_adapter(tmp_path / "none")


@pytest.mark.parametrize("gone", [False, True])
def test_ppo_save_and_load(folder, tmp_path, gone):
    agent = make_agent(model=str(folder))
    agent.learn(512)
    agent.save(tmp_path / "agent")
    if gone:
        (folder / "config.json").unlink()
        with pytest.warns(UserWarning, match="Right only while loading"):
            loaded = PPO.load(tmp_path / "agent", device="cpu")
    else:
        loaded = PPO.load(tmp_path / "agent", device="cpu")
    assert torch.equal(log_probs(agent.policy), log_probs(loaded.policy))
    assert loaded.lr_schedule(0.0) == agent.lr_schedule(0.0)
    theirs = loaded.policy.optimizer.state_dict()["state"]
    assert theirs.keys() == agent.policy.optimizer.state_dict()["state"].keys()
    loaded.set_env(make_envs())
    loaded.learn(256)


def test_policy_save_and_load(tmp_path):
    policy = make_agent().policy
    policy.save(tmp_path / "policy.pt")
    loaded = LMPolicy.load(tmp_path / "policy.pt")
    assert loaded.lora == LORA
    assert torch.equal(log_probs(policy), log_probs(loaded))


def states(agent):
    policy = {k: v for k, v in agent.policy.state_dict().items() if isinstance(v, torch.Tensor)}
    optimizer = agent.policy.optimizer.state_dict()["state"]
    return policy | {f"{i}.{k}": v for i, s in optimizer.items() for k, v in s.items()}


def test_resumed_equals_never_stopped(tmp_path):
    total = 4 * 256
    agent = make_agent(kl_coef=0.1, kl_target=1.0)
    agent.learn(total, callback=CheckpointCallback(tmp_path, 1, keep=100))
    middle = sorted(tmp_path.iterdir())[1]
    torch.manual_seed(99), np.random.seed(99)
    again = load_checkpoint(middle, make_envs())
    assert 0 < again.num_timesteps < total
    again.learn(total - again.num_timesteps, reset_num_timesteps=False)
    first, second = states(agent), states(again)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_evaluation_measures_the_distance_to_the_model():
    model = tiny_model()
    with torch.no_grad():  # the frozen head is small: so that adapters change what is said
        model.transformer.wte.weight.mul_(10)
    agent = make_agent(model=model)
    envs = make_envs()
    assert evaluate(agent.policy, envs, 8, seed=0).mean_kl_per_token == pytest.approx(0, abs=1e-5)
    with torch.no_grad():  # so far that the mean of 64 texts cannot miss it
        for parameter in agent.policy.lm.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=1.0)
    agent.policy.invalidate_cache()
    assert evaluate(agent.policy, envs, 64, seed=0).mean_kl_per_token > 0.05


WORDS = ["<eos>", "go", "a", "b", "c", "d"]


def word_envs(budget=6, n_envs=64):
    """The reward is the share of the budget spent on the word `a`: the optimum is 1."""
    vocabulary = models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="d")
    backend = tokenizers.Tokenizer(vocabulary)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="", cleanup=False)
    return make_vec_env(
        "textgym/Continuation-v0",
        n_envs=n_envs,
        tokenizer=Tokenizer(backend, eos_token="<eos>", name="words"),
        prompts=["go"],
        max_new_tokens=budget,
        rewards=[
            lambda episodes: [float((e.completion_ids == 2).sum()) / budget for e in episodes]
        ],
    )


def test_ppo_learns_with_lora():
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32, n_layer=1, n_head=2, n_positions=16, vocab_size=len(WORDS),
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # the head is frozen: at its usual size it could prefer no word
        model.transformer.wte.weight.mul_(5)
    envs = word_envs()
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model, "lora": LORA | {"r": 8}, "kl_coef": 0.0},
        seed=0,
        device="cpu",
        **ppo_defaults(envs, learning_rate=5e-3),
    )
    before = evaluate(agent.policy, envs, 128, seed=1).mean_reward
    agent.learn(16_000)
    after = evaluate(agent.policy, envs, 128, seed=1).mean_reward
    assert after > before + 0.3  # how far adapters reach depends on the model they are put into
