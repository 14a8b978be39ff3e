"""Cached log-probs are the uncached ones, on every architecture, whatever happens to the rows."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from textgym_agents.lm import load_model
from textgym_agents.sb3 import LMPolicy

V, C = 61, 40
STORIES = Path(__file__).parents[3] / ".." / "shared" / "models" / "stories260k"
LLAMA = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=C))


def eager(make):
    def made():
        model = make()
        model.set_attn_implementation("eager")
        return model

    return made


EXACT = {
    "gpt2": gpt2,
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA)),
}
EXACT |= {f"{name}-eager": eager(make) for name, make in list(EXACT.items())}
INEXACT = {
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=6)),
    "alibi": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=V, hidden_size=16, n_layer=2, n_head=2)
    ),
    "state space": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=2, state_size=4)
    ),
}


def spaces(vocab_size=V, context=C):
    observation = Dict(
        input_ids=Box(0, vocab_size - 1, (context,), np.int64),
        attention_mask=Box(0, 1, (context,), np.int8),
        remaining=Box(0, 9, (1,), np.int64),
    )
    return observation, Discrete(vocab_size)


def make_policy(make, **keywords):
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():  # the usual initialisation is so small that mistakes would not show
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return LMPolicy(*spaces(), lambda _: 1e-4, model, kl_coef=0.0, **keywords)


def observe(contexts, width=C):
    ids = torch.zeros((len(contexts), width), dtype=torch.long)
    mask = torch.zeros((len(contexts), width), dtype=torch.int8)
    for i, context in enumerate(contexts):
        ids[i, : len(context)] = torch.tensor(context)
        mask[i, : len(context)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def exact_log_probs(model, contexts):
    """`[B, V]`, one context at a time, by the model itself, as Hugging Face's users would."""
    logits = [model(input_ids=torch.tensor([c]), use_cache=False).logits[0, -1] for c in contexts]
    return torch.stack(logits).float().log_softmax(-1)


@torch.no_grad()
def assert_exact(policy, contexts):
    hidden = policy._hidden(observe(contexts), "forward")
    ours = policy.lm.head.logits(hidden).log_softmax(-1)
    assert (ours - exact_log_probs(policy.lm.model, contexts)).abs().max() < 1e-4


def random_walk(policy, steps=60, rows=5, seed=0):
    """Contexts that grow by one or several tokens, reset, change arbitrarily, stand still."""
    rng = np.random.default_rng(seed)

    def fresh():
        return rng.integers(0, V, rng.integers(1, 12)).tolist()

    contexts = [fresh() for _ in range(rows)]
    for _ in range(steps):
        assert_exact(policy, contexts)
        for i, context in enumerate(contexts):
            event = rng.random()
            if len(context) > C - 5 or event < 0.05:
                contexts[i] = fresh()
            elif event < 0.15:  # a reply of several tokens
                contexts[i] = context + rng.integers(0, V, rng.integers(2, 5)).tolist()
            elif event < 0.2:  # anything at all
                changed = list(context)
                changed[rng.integers(len(changed))] = int(rng.integers(V))
                contexts[i] = changed
            elif event < 0.25:
                contexts[i] = context[: rng.integers(1, len(context) + 1)]
            elif event < 0.9:
                contexts[i] = [*context, int(rng.integers(V))]


@pytest.mark.parametrize("name", EXACT)
def test_cached_equals_uncached(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy = make_policy(EXACT[name])
    assert policy.lm.incremental
    random_walk(policy)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
def test_lockstep_to_the_last_position(name):
    policy = make_policy(EXACT[name])
    rng = np.random.default_rng(0)
    contexts = [rng.integers(0, V, 3).tolist() for _ in range(4)]
    while len(contexts[0]) <= C:
        assert_exact(policy, contexts)
        contexts = [[*c, int(rng.integers(V))] for c in contexts]


@pytest.mark.parametrize("name", INEXACT)
def test_other_architectures_take_the_exact_slower_path(name):
    with pytest.warns(UserWarning, match="incremental decoding is not exact") as caught:
        policy = make_policy(INEXACT[name])
    assert len([w for w in caught if "incremental" in str(w.message)]) == 1
    assert not policy.lm.incremental
    random_walk(policy, steps=12)


def test_a_window_wider_than_the_context_is_exact():
    policy = make_policy(lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=C + 1)))
    assert policy.lm.incremental
    random_walk(policy, steps=12)


def test_stories260k():
    if not STORIES.is_dir():
        pytest.skip(f"no pretrained model in {STORIES}")
    model = load_model(STORIES)
    size = model.config.vocab_size
    policy = LMPolicy(*spaces(size), lambda _: 1e-4, model, kl_coef=0.0)
    assert policy.lm.incremental
    random_walk(policy, steps=20)


def change_by_optimizer(policy, context):
    policy.set_training_mode(True)
    _, log_prob, _ = policy.evaluate_actions(observe([context]), torch.tensor([1]))
    log_prob.sum().backward()
    policy.optimizer.param_groups[0]["lr"] = 0.1
    assert policy.optimizer.defaults["fused"]
    policy.optimizer.step()
    policy.set_training_mode(False)


def change_data_in_train(policy, context):
    policy.set_training_mode(True)
    for parameter in policy.lm.parameters():
        parameter.data.mul_(1.3)
    policy.set_training_mode(False)


def change_by_loading(policy, context):
    state = {
        k: v * 1.3 if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for k, v in policy.state_dict().items()
    }
    policy.load_state_dict(state)


def change_by_hand(policy, context):
    for parameter in policy.lm.parameters():
        parameter.data.mul_(1.3)
    policy.invalidate_cache()


def change_under_autograd_without_modes(policy, context):
    _, log_prob, _ = policy.evaluate_actions(observe([context]), torch.tensor([1]))
    log_prob.sum().backward()
    for parameter in policy.lm.parameters():
        parameter.data.sub_(0.1 * parameter.grad)


CHANGES = [
    change_by_optimizer,
    change_data_in_train,
    change_by_loading,
    change_by_hand,
    change_under_autograd_without_modes,
]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_in_mid_episode_drop_the_cache(change):
    policy = make_policy(gpt2)
    contexts = [[1, 2, 3], [4, 5, 6, 7]]
    assert_exact(policy, contexts)
    before = exact_log_probs(policy.lm.model, contexts)
    change(policy, contexts[0])
    assert (exact_log_probs(policy.lm.model, contexts) - before).abs().max() > 1e-3
    assert_exact(policy, [[*c, 9] for c in contexts])


def test_prediction_keeps_the_cache():
    policy = make_policy(gpt2)
    policy.lm.lean = False  # what the model itself is fed is looked at
    contexts = [[1, 2, 3], [4, 5, 6, 7]]
    assert_exact(policy, contexts)
    policy.set_training_mode(False)  # as `predict` does at every step
    fed = []
    body = policy.lm.body
    policy.lm.body = lambda tokens, **k: (fed.append(tuple(tokens.shape)), body(tokens, **k))[1]
    assert_exact(policy, [[*c, 9] for c in contexts])
    assert fed == [(2, 1)]


def test_gradients_never_see_the_cache():
    policy = make_policy(gpt2)
    contexts = [[1, 2, 3], [4, 5, 6, 7]]
    assert_exact(policy, contexts)
    values = policy.predict_values(observe(contexts))
    assert values.requires_grad
    assert_exact(policy, contexts)


def test_rows_of_any_number_and_caller():
    policy = make_policy(gpt2)
    for rows in (1, 3, 2, 7, 5, 4, 1, 3):
        contexts = [[i + 1, 2, rows] for i in range(rows)]
        assert_exact(policy, contexts)
        obs = {k: v.numpy() for k, v in observe(contexts).items()}
        obs["remaining"] = np.ones((rows, 1), np.int64)
        actions, _ = policy.predict(obs, deterministic=True)
        expected = exact_log_probs(policy.lm.model, contexts).argmax(-1).numpy()
        np.testing.assert_array_equal(actions, expected)
    assert len(policy._pools) <= 4


def test_modules_passed_in_are_copied():
    model = gpt2()
    policy = LMPolicy(*spaces(), lambda _: 1e-4, model, kl_coef=0.0)
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in policy.parameters()}
    # The language model and the value head, and nothing twice.
    count = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in policy.parameters()) == count + 16 + 1
