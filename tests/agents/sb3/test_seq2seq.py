"""Encoder-decoder models in SB3's own PPO: rollouts, updates, saving, learning."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import tokenizers
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from textgym import Tokenizer
from textgym_agents.lm import Seq2SeqLM
from textgym_agents.sb3 import (
    CheckpointCallback,
    LMPolicy,
    TokenRolloutBuffer,
    a2c_defaults,
    evaluate,
    load_checkpoint,
    make_vec_env,
    ppo_defaults,
)
from textgym_agents.sb3 import policy as policy_module

EMBEDDED = Tokenizer.load()
LAYERS = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "forced_eos_token_id": None,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}


def tokens(tokenizer):
    eos = tokenizer.eos_token_id
    return {
        "vocab_size": tokenizer.vocab_size,
        "eos_token_id": eos,
        "pad_token_id": 0,
        "decoder_start_token_id": eos,
    }


def t5(tokenizer=EMBEDDED, **changes):
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(**T5 | tokens(tokenizer) | changes))


def bart(tokenizer=EMBEDDED):
    torch.manual_seed(0)
    return BartForConditionalGeneration(BartConfig(**LAYERS | tokens(tokenizer)))


def marian(tokenizer=EMBEDDED):
    torch.manual_seed(0)
    return MarianMTModel(MarianConfig(**LAYERS | tokens(tokenizer)))


MODELS = {"t5": t5, "bart": bart, "marian": marian}


def make_envs(n_envs=24, budget=9, **keywords):
    return make_vec_env(
        "textgym/Continuation-v0",
        n_envs=n_envs,
        prompts=["Once upon a time there was a fox", "One day", "Then"],
        max_new_tokens=budget,
        **{"rewards": ["length:max=30"]} | keywords,
    )


def make_agent(model, *, cls=PPO, steps=20, buffer=TokenRolloutBuffer, envs=None, **policy):
    envs = envs or make_envs()
    keywords = {PPO: ppo_defaults, A2C: a2c_defaults}[cls](envs, learning_rate=1e-3)
    keywords |= {"n_steps": steps}
    if cls is PPO:
        keywords |= {"batch_size": steps * envs.num_envs, "n_epochs": 1, "max_grad_norm": 1e9}
    return cls(
        LMPolicy,
        envs,
        rollout_buffer_class=buffer,
        policy_kwargs={"model": model} | policy,
        seed=0,
        device="cpu",
        **keywords,
    )


def collect(agent):
    """One rollout, and the observations it passed through."""
    seen = []
    add = agent.rollout_buffer.add

    def spy(obs, *others):
        seen.append([{k: v.copy() for k, v in obs.items()}, *map(copy.copy, others)])
        add(obs, *others)

    agent.rollout_buffer.add = spy
    if agent._last_obs is None:
        agent._callback = agent._setup_learn(10**6)[1]
    agent.collect_rollouts(agent.env, agent._callback, agent.rollout_buffer, agent.n_steps)
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
@pytest.mark.parametrize("in_parts", [False, True])
def test_same_losses_and_gradients_as_sb3s_own_buffer(monkeypatch, name, in_parts):
    if in_parts:
        monkeypatch.setattr(policy_module, "_WHOLE_TOKENS", 0)
        monkeypatch.setattr(policy_module, "_PART_TOKENS", 100)
    agent = make_agent(MODELS[name](), steps=7)
    collect(agent)
    seen = collect(agent)  # begins in the middle of episodes
    assert (seen[0][0]["remaining"] < 9).any()
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
    assert any("encoder" in key for key in own)
    assert any("value_head" in key for key in own)
    for key, value in own.items():
        assert torch.allclose(value, theirs[key], atol=1e-5, rtol=1e-3), key
    for key in ("loss", "value_loss", "policy_gradient_loss", "entropy_loss"):
        assert own_log[f"train/{key}"] == pytest.approx(their_log[f"train/{key}"], abs=1e-5), key


@pytest.mark.parametrize("name", MODELS)
def test_behaviour_log_probs_by_hugging_face_alone_and_the_first_ratio(name):
    agent = make_agent(MODELS[name](), steps=12, kl_coef=0.1)
    collect(agent)
    seen = collect(agent)
    policy = agent.policy
    assert policy.lm.incremental
    model = policy.lm.model.eval()
    start = model.config.decoder_start_token_id
    expected = []
    with torch.no_grad():
        for obs, action, *_ in seen:
            for row in range(6):
                length = int(obs["attention_mask"][row].sum())
                prompt = length - (9 - int(obs["remaining"][row, 0]))
                ids = obs["input_ids"][row, :length].tolist()
                logits = model(
                    input_ids=torch.tensor([ids[:prompt]]),
                    decoder_input_ids=torch.tensor([[start, *ids[prompt:]]]),
                ).logits[0, -1]
                expected.append(logits.log_softmax(-1)[int(action[row, 0])].item())
    found = agent.rollout_buffer.log_probs[:, :6].ravel()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    policy.set_training_mode(True)
    for batch in agent.rollout_buffer.get(None):
        _, log_probs, _ = policy.evaluate_actions(batch.observations, batch.actions)
        assert torch.allclose(log_probs, batch.old_log_prob, atol=1e-4)
        reference = policy.packed_log_probs(batch.observations, reference=True)
        assert torch.allclose(reference, log_probs, atol=1e-5)  # nothing was learnt yet
    assert policy.kl_stats["per_token"] == pytest.approx(0.0, abs=1e-5)


def test_parts_keep_their_prompts():
    agent = make_agent(t5(), steps=13)
    collect(agent)
    batch = next(iter(agent.rollout_buffer.get(None))).observations
    parts = list(batch.to("cpu").parts(60))
    assert len(parts) > 3
    assert torch.equal(torch.cat([p.prompt_lengths for p in parts]), batch.prompt_lengths)
    assert all(len(p.prompt_lengths) == len(p.counts) == len(p.input_ids) for p in parts)
    whole = agent.policy.packed_log_probs(batch)
    each = torch.cat([agent.policy.packed_log_probs(p) for p in parts])
    assert torch.allclose(whole, each, atol=1e-5)


@pytest.mark.parametrize("incremental", [True, False])
def test_a_task_that_replies_is_refused(incremental):
    envs = make_vec_env("textgym/TwentyQuestions-v0", n_envs=4)
    envs.action_space.max_turns = 1  # as an environment that does not tell
    agent = make_agent(t5(), envs=envs, steps=40)
    agent.policy.lm.incremental = incremental
    choose = agent.policy._choose

    def end_the_turn(*args):
        actions, *others = choose(*args)
        return torch.full_like(actions, envs.tokenizer.eos_token_id), *others

    agent.policy._choose = end_the_turn
    with pytest.raises(ValueError, match=r"replies in the middle.*a single turn"):
        agent.learn(1)


def test_a_task_of_several_turns_is_refused_at_construction():
    with pytest.raises(ValueError, match="Take a causal model, or a task of a single turn"):
        make_agent(t5(), envs=make_vec_env("textgym/TwentyQuestions-v0", n_envs=4))


@pytest.fixture
def folder(tmp_path):
    t5().save_pretrained(tmp_path / "model")
    EMBEDDED.save(tmp_path / "model")
    return tmp_path / "model"


def distribution(policy):
    envs = make_envs()
    envs.seed(3)
    with torch.no_grad():
        obs, _ = policy.obs_to_tensor(envs.reset())
        return policy.get_distribution(obs).distribution.logits


@pytest.mark.parametrize("gone", [False, True])
def test_ppo_save_and_load(folder, tmp_path, gone):
    agent = make_agent(str(folder), steps=12)
    agent.learn(24 * 12)
    agent.save(tmp_path / "agent")
    if gone:
        shutil.rmtree(folder)
        with pytest.warns(UserWarning, match="Right only while loading"):
            loaded = PPO.load(tmp_path / "agent", device="cpu")
    else:
        loaded = PPO.load(tmp_path / "agent", device="cpu")
    assert isinstance(loaded.policy.lm, Seq2SeqLM)
    assert torch.equal(distribution(agent.policy), distribution(loaded.policy))
    loaded.set_env(make_envs())
    loaded.learn(24 * 12)


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_save_pretrained_is_hugging_face(folder, tmp_path, lora):
    agent = make_agent(str(folder), steps=12, lora=lora, temperature=0.8)
    agent.learn(24 * 12)
    agent.policy.save_pretrained(tmp_path / "out")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([EMBEDDED.encode("One day")])
    targets = torch.tensor([[EMBEDDED.eos_token_id, 7, 8]])
    with torch.no_grad():
        theirs = model(input_ids=ids, decoder_input_ids=targets).logits.log_softmax(-1)
        ours = agent.policy.lm.model(input_ids=ids, decoder_input_ids=targets).logits
    assert (ours.log_softmax(-1) - theirs).abs().max() < 1e-5
    assert model.generation_config.do_sample
    assert model.generation_config.num_beams == 1
    assert model.generation_config.temperature == 0.8
    assert Tokenizer.load(tmp_path / "out").hash == EMBEDDED.hash


def states(agent):
    policy = {k: v for k, v in agent.policy.state_dict().items() if isinstance(v, torch.Tensor)}
    optimizer = agent.policy.optimizer.state_dict()["state"]
    return policy | {f"{i}.{k}": v for i, s in optimizer.items() for k, v in s.items()}


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_resumed_equals_never_stopped(tmp_path, lora):
    total = 4 * 24 * 12
    agent = make_agent(t5(), steps=12, kl_coef=0.1, lora=lora)
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
    agent = make_agent(t5(), steps=12)
    envs = make_envs()
    assert evaluate(agent.policy, envs, 8, seed=0).mean_kl_per_token == pytest.approx(0, abs=1e-5)
    with torch.no_grad():  # so far that the mean of 64 texts cannot miss it
        for parameter in agent.policy.lm.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    agent.policy.invalidate_cache()
    assert evaluate(agent.policy, envs, 64, seed=0).mean_kl_per_token > 0.01


WORDS = ["<eos>", "go", "a", "b", "c", "d"]


def word_envs(budget=6, n_envs=64):
    """The reward is the share of the budget spent on the word that the prompt names."""
    vocabulary = models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="d")
    backend = tokenizers.Tokenizer(vocabulary)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="", cleanup=False)
    backend.add_special_tokens(["<eos>"])
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 0)]
    )

    def paid(episodes):
        wanted = [WORDS.index(e.prompt.split()[-1]) for e in episodes]
        return [
            float((e.completion_ids == word).sum()) / budget
            for e, word in zip(episodes, wanted, strict=True)
        ]

    return make_vec_env(
        "textgym/Continuation-v0",
        n_envs=n_envs,
        tokenizer=Tokenizer(backend, eos_token="<eos>", name="words"),
        prompts=["go a", "go b"],
        max_new_tokens=budget,
        rewards=[paid],
    )


def test_ppo_learns_what_the_prompt_asks_for(tmp_path):
    """One word for all prompts would reach 0.5."""
    envs = word_envs()
    torch.manual_seed(0)
    config = T5 | {"d_model": 32, "d_ff": 64, "num_layers": 1}
    model = T5ForConditionalGeneration(T5Config(**config | tokens(envs.tokenizer)))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.3)
    model.save_pretrained(tmp_path)
    envs.tokenizer.save(tmp_path)
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": str(tmp_path), "kl_coef": 0.0},
        seed=0,
        device="cpu",
        **ppo_defaults(envs, learning_rate=2e-2) | {"n_epochs": 4},
    )
    assert agent.policy.lm.closing == (0,)  # the tokenizer closes its texts
    before = evaluate(agent.policy, envs, 128, seed=1).mean_reward
    agent.learn(14_000)
    after = evaluate(agent.policy, envs, 128, seed=1).mean_reward
    assert before < 0.3
    assert after > 0.75


def test_a2c_takes_it_too():
    agent = make_agent(t5(), cls=A2C, steps=9)
    before = [p.clone() for p in agent.policy.lm.parameters()]
    agent.learn(2 * 9 * 24)
    assert any(
        not torch.equal(a, b) for a, b in zip(before, agent.policy.lm.parameters(), strict=True)
    )
