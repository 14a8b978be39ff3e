"""A LoRA adapter: what is trained, what is refused, and that switching it off is the model."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
)

from textgym_agents.lm import Adapter, CausalLM, WithoutAdapter, build_language_model, lora_options

V, C = 61, 24
TOKENS = {"bos_token_id": 0, "eos_token_id": 1}
LLAMA = TOKENS | {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def gpt2(**changes):
    torch.manual_seed(0)
    config = {"vocab_size": V, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": C} | TOKENS
    return GPT2LMHeadModel(GPT2Config(**config | changes)).eval()


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**LLAMA))


def adapted(model, **options):
    return build_language_model(model, V, C, lora=options)


def learn(lm, seed=1):
    """Move the adapter as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def contexts(rows=3):
    return torch.from_numpy(np.random.default_rng(0).integers(0, V, (rows, C)))


@torch.no_grad()
def log_probs(model):
    return model(input_ids=contexts()).logits.log_softmax(-1)


@torch.no_grad()
def lm_log_probs(lm):
    return lm.head.logits(lm.hidden_states(contexts())).log_softmax(-1)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_only_the_adapter_is_trained(make):
    lm = adapted(make(), r=4)
    trained = {name for name, p in lm.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_switched_off_it_is_the_model_itself(make):
    model = make()
    lm = adapted(copy.deepcopy(model), r=4)
    assert torch.equal(lm_log_probs(lm), lm_log_probs(WithoutAdapter(lm)))
    learn(lm)
    assert (lm_log_probs(lm) - log_probs(model)).abs().max() > 1e-2
    assert (lm_log_probs(WithoutAdapter(lm)) - log_probs(model)).abs().max() < 1e-5
    assert lm.adapter.active


def test_the_reference_takes_gradients_from_nobody():
    lm = adapted(gpt2(), r=4)
    with torch.enable_grad():
        hidden = WithoutAdapter(lm).hidden_states(contexts())
    assert not hidden.requires_grad
    assert all(p.requires_grad for n, p in lm.named_parameters() if "lora_" in n)


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("on", [True, False])
def test_cached_equals_uncached(make, on):
    lm = adapted(make(), r=4)
    assert lm.incremental
    learn(lm)
    lm.adapter.switch(on)
    slots = lm.slots(3, C)
    expected = lm_log_probs(lm)
    ids = contexts()
    for lengths in ([1, 5, 9], [2, 6, 10], [3, 7, 11], [1, 8, 12], [C, C, C]):
        lengths = np.array(lengths)
        hidden = slots.last_hidden(ids, lengths)
        ours = lm.head.logits(hidden).log_softmax(-1)
        assert (ours - expected[torch.arange(3), torch.from_numpy(lengths - 1)]).abs().max() < 1e-4


@pytest.mark.parametrize("make", [gpt2, llama])
def test_merging_leaves_the_live_model_alone(make):
    lm = adapted(make(), r=4)
    learn(lm)
    before = {k: v.clone() for k, v in lm.state_dict().items()}
    live = lm_log_probs(lm)
    merged = lm.adapter.merged()
    assert type(merged) is type(make())
    assert set(merged.state_dict()) == set(make().state_dict())
    assert (log_probs(merged) - live).abs().max() < 1e-5
    assert torch.equal(lm_log_probs(lm), live)
    after = lm.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    lm.adapter.switch(False)
    assert (log_probs(lm.adapter.merged()) - live).abs().max() < 1e-5
    assert not lm.adapter.active


def test_all_linear_layers_where_peft_does_not_know_the_architecture():
    model = OlmoForCausalLM(OlmoConfig(**LLAMA, pad_token_id=0))
    lm = adapted(model, r=2)
    found = {n.split(".lora_A")[0].rsplit(".", 1)[1] for n, _ in lm.named_parameters() if "lora_A" in n}  # fmt: skip  # noqa: E501
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_dropout_is_off():
    lm = adapted(gpt2(), r=2, lora_dropout=0.5)
    assert lm.adapter.peft_model.peft_config["default"].lora_dropout == 0.0
    assert all(m.p == 0.0 for m in lm.modules() if isinstance(m, torch.nn.Dropout))


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"rank": 8}, TypeError, ["unknown option of `lora` `rank`"]),
        ({"lora_alpa": 8}, TypeError, ["did you mean `lora_alpha`"]),
        ({"bias": "all"}, ValueError, ["`bias` must be 'none'"]),
        ({"modules_to_save": ["lm_head"]}, ValueError, ["leave `modules_to_save` out"]),
        ({"task_type": "CAUSAL_LM"}, ValueError, ["leave `task_type` out"]),
        ({"target_modules": ["nonesuch"]}, ValueError, ["does not fit GPT2LMHeadModel"]),
        ({"target_modules": ["lm_head"]}, ValueError, ["cannot adapt the head"]),
        ({"target_modules": ["wte"]}, ValueError, ["nor embeddings it shares its weights with"]),
        ({"init_lora_weights": False}, ValueError, ["before anything was learnt"]),
        ({"init_lora_weights": "pissa"}, ValueError, ["before anything was learnt"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_options_that_are_refused(options, error, parts):
    with pytest.raises(error) as raised:
        adapted(gpt2(), **options)
    assert "\n" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"init_lora_weights": "gaussian"},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": "all-linear"},
        {"target_modules": ["wpe", "c_fc"]},
    ],
)
def test_options_that_are_taken(options):
    model = gpt2()
    lm = adapted(copy.deepcopy(model), r=2, **options)
    assert lm.incremental
    learn(lm)
    live = lm_log_probs(lm)
    assert (live - log_probs(model)).abs().max() > 1e-3
    assert (log_probs(lm.adapter.merged()) - live).abs().max() < 1e-5
    assert (lm_log_probs(WithoutAdapter(lm)) - log_probs(model)).abs().max() < 1e-5


def test_true_is_the_defaults_and_false_is_none():
    assert lora_options(True) == {}
    assert lora_options(None) is lora_options(False) is None
    with pytest.raises(TypeError, match="must be True or a dict"):
        lora_options(8)
    assert isinstance(build_language_model(gpt2(), V, C), CausalLM)


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "textgym\[lora\]"'):
        Adapter(gpt2(), {})
