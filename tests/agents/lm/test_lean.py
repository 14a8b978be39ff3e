"""Lean forwards and remembered prompts give what the model itself gives."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from textgym_agents.lm import CausalLM, SlotCache
from textgym_agents.lm.lean import lean_body
from textgym_agents.lm.slot_cache import PromptStore

V, C = 90, 40
SMALL = {
    "vocab_size": V,
    "max_position_embeddings": C,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": C, "vocab_size": V}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}

LEAN = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "llama with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True)
    ),
    "llama, wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, head_dim=12)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
}
OTHERS = {
    "a sliding window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8)),
    "another activation": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, hidden_act="gelu")),
    "scaled positions": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SMALL,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        )
    ),
    "norms of queries": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL)),
    "gpt2 with relu": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, activation_function="relu")),
}


def random(make):
    torch.manual_seed(0)
    model = make()
    for name, parameter in model.named_parameters():
        # Far from how models begin: biases and norms that matter, attention that is not flat.
        nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return model.eval()


def log_probs(lm, slots, ids, lengths):
    hidden = slots.last_hidden(torch.from_numpy(ids), lengths)
    return lm.head.logits(hidden).log_softmax(-1)


def exact(lm, ids, lengths):
    return lm.head.logits(lm.last_hidden(torch.from_numpy(ids), lengths)).log_softmax(-1)


@pytest.mark.parametrize("name", LEAN)
def test_a_lean_forward_is_the_models(name):
    lm = CausalLM(random(LEAN[name]), V, C)
    assert lm.lean
    slots = SlotCache(lm, 5, C)
    assert slots.lean is not None
    rng = np.random.default_rng(0)
    ids, lengths = np.zeros((5, C), np.int64), np.zeros(5, np.int64)
    for step in range(30):
        for row in range(5):
            if lengths[row] == 0 or (step % (5 + row) == 4 + row):
                lengths[row] = rng.integers(1, 9)
                ids[row] = 0
                ids[row, : lengths[row]] = rng.integers(0, V, lengths[row])
            else:
                new = 1 if step % 3 else int(rng.integers(1, 4))
                ids[row, lengths[row] : lengths[row] + new] = rng.integers(0, V, new)
                lengths[row] += new
        torch.testing.assert_close(
            log_probs(lm, slots, ids, lengths), exact(lm, ids, lengths), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_are_left_to_the_model(name):
    assert lean_body(random(OTHERS[name]), C) is None


def test_a_lean_forward_that_is_wrong_is_not_used(monkeypatch):
    from textgym_agents.lm import lean

    monkeypatch.setattr(
        lean._Llama, "__call__", lambda self, tokens, **_: torch.ones(*tokens.shape, 32)
    )
    lm = CausalLM(random(LEAN["llama"]), V, C)
    assert not lm.lean
    assert lm.incremental
    assert SlotCache(lm, 2, C).lean is None


@pytest.mark.parametrize("name", LEAN)
def test_changed_weights_are_noticed(name):
    lm = CausalLM(random(LEAN[name]), V, C)
    slots = SlotCache(lm, 2, C)
    ids = np.random.default_rng(0).integers(0, V, (2, C))
    lengths = np.array([4, 6])
    before = log_probs(lm, slots, ids, lengths)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    slots.clear()
    for _ in range(3):
        now = log_probs(lm, slots, ids, lengths)
        torch.testing.assert_close(now, exact(lm, ids, lengths), atol=1e-4, rtol=0)
        lengths += 1
    assert (before - now).abs().max() > 0.1


def test_prompts_that_come_again_are_not_computed_again(monkeypatch):
    lm = CausalLM(random(LEAN["llama"]), V, C)
    slots = SlotCache(lm, 4, C)
    computed = []
    prefill = SlotCache._prefill
    monkeypatch.setattr(
        SlotCache,
        "_prefill",
        lambda self, rows, *rest: (computed.append(len(rows)), prefill(self, rows, *rest)),
    )
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, V, (3, 6))
    ids, lengths = np.zeros((4, C), np.int64), np.full(4, 6)
    ids[:, :6] = prompts[[0, 0, 1, 0]]

    def check():
        torch.testing.assert_close(
            log_probs(lm, slots, ids, lengths), exact(lm, ids, lengths), atol=1e-4, rtol=0
        )

    check()
    assert computed == [2]  # of four rows, two different ones
    for row, prompt, known in ((1, 0, True), (2, 1, False), (3, 1, True), (0, 2, False)):
        ids[range(4), lengths] = rng.integers(0, V, 4)
        lengths += 1
        ids[row] = 0
        ids[row, :6] = prompts[prompt]
        lengths[row] = 6
        computed.clear()
        check()
        assert computed == ([] if known else [1])
    slots.clear()
    computed.clear()
    lengths[:] = 6
    check()
    assert computed


@pytest.mark.parametrize("most_tokens", [5, 6, 12])
def test_a_known_prompt_whose_place_is_taken_in_the_same_step(most_tokens):
    lm = CausalLM(random(LEAN["llama"]), V, C)
    slots = SlotCache(lm, 4, C)
    slots._prompts = PromptStore(most_tokens)
    prompts = np.random.default_rng(0).integers(0, V, (3, 6))
    lengths = np.full(4, 6)
    for which in ([0, 0, 1, 1], [2, 2, 0, 1], [1, 0, 0, 2], [2, 2, 2, 1]):
        ids = np.zeros((4, C), np.int64)
        ids[:, :6] = prompts[which]
        torch.testing.assert_close(
            log_probs(lm, slots, ids, lengths), exact(lm, ids, lengths), atol=1e-4, rtol=0
        )


def test_the_store_of_prompts_is_bounded():
    store = PromptStore(most_tokens=10)
    known = ([(torch.zeros(1, 4, 1), torch.zeros(1, 4, 1))], torch.zeros(1))
    for key in (b"a", b"b", b"c"):
        assert not store.comes_again(key)
        assert key not in store
    for key in (b"a", b"b"):
        assert store.comes_again(key)
        store.keep(key, known)
    store[b"a"]  # used, so that the other is the oldest
    store.keep(b"c", known)
    assert [key in store for key in (b"a", b"b", b"c")] == [True, False, True]
