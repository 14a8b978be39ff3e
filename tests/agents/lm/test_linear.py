"""Products by oneDNN are those of torch: values, gradients, gradients of gradients."""

import copy
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from textgym_agents.lm import CausalLM
from textgym_agents.lm import linear as module
from textgym_agents.lm.linear import fast_linear, library_is_slow, linear
from textgym_agents.lm.seq2seq import Seq2SeqLM
from textgym_agents.rewards.models import forward

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN"
)
V, C = 60, 24
SMALL = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 0}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=C)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SMALL,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            attention_bias=True,
        )
    ),
}


@pytest.fixture
def calls(monkeypatch):
    """Any size goes to oneDNN, whatever the processor; counts what does."""
    count = Counter()
    product = module._product
    monkeypatch.setattr(module, "_LEAST", 1)
    monkeypatch.setattr(module, "library_is_slow", lambda: True)
    monkeypatch.setattr(
        module, "_product", lambda *args: (count.update(["products"]), product(*args))[1]
    )
    return count


def random(*shape, gaps=False):
    values = torch.randn(*shape[:-1], shape[-1] * 2)[..., ::2] if gaps else torch.randn(*shape)
    return values.requires_grad_()


@needs_onednn
@pytest.mark.parametrize("rows", [(7,), (2, 5), (1,), (2, 3, 4)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_values_and_two_orders_of_gradients(calls, rows, with_bias, transposed, gaps):
    torch.manual_seed(0)
    x = random(*rows, 6, gaps=gaps)
    weight = random(6, 9).t() if transposed else random(9, 6, gaps=gaps)
    bias = random(9) if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]

    def all_of(function):
        y = function(x, weight, bias)
        first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return y, *first, *second

    ours = all_of(linear)
    assert calls["products"] > 3
    for mine, theirs in zip(ours, all_of(F.linear), strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@needs_onednn
def test_only_the_gradients_asked_for_are_computed(calls):
    x, weight, bias = torch.randn(4, 6), random(9, 6).detach(), random(9)
    linear(x, weight, bias).sum().backward()
    assert calls["products"] == 1
    torch.testing.assert_close(bias.grad, torch.full((9,), 4.0))
    assert not linear(x, weight, bias.detach()).requires_grad


@needs_onednn
@pytest.mark.filterwarnings("ignore:TF32")  # of torch's own switch
def test_what_is_left_to_torch(calls, monkeypatch):
    x, weight = torch.randn(4, 6), torch.randn(9, 6)
    linear(x.double(), weight.double())
    linear(x.bfloat16(), weight.bfloat16())
    linear(x[:0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        linear(x, weight)
    monkeypatch.setattr(module, "_LEAST", 4 * 6 * 9 + 1)
    linear(x, weight)
    monkeypatch.setattr(module, "_LEAST", 4 * 6 * 9)
    monkeypatch.setattr(module, "library_is_slow", lambda: False)
    linear(x, weight)
    assert not calls
    monkeypatch.setattr(module, "library_is_slow", lambda: True)
    linear(x, weight)
    assert calls["products"] == 1


@needs_onednn
@pytest.mark.parametrize("name", MODELS)
def test_a_model_within_it_and_after_it(calls, name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    plain = copy.deepcopy(model)
    ids = torch.randint(V, (3, C))
    with fast_linear(ids, 32):
        model(input_ids=ids).logits.logsumexp(-1).sum().backward()
    # Four products a layer of GPT-2's, seven of Llama's; the head; two more each for gradients.
    layers = {"gpt2": 2 * 4, "llama": 2 * 7}[name]
    assert calls["products"] == 3 * (layers + 1)
    plain(input_ids=ids).logits.logsumexp(-1).sum().backward()
    assert calls["products"] == 3 * (layers + 1)  # nothing stays behind
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-4)


@needs_onednn
@pytest.mark.parametrize("name", MODELS)
def test_decoding_is_the_models(calls, name):
    torch.manual_seed(0)
    lm = CausalLM(MODELS[name](), V, C)
    assert lm.incremental
    assert lm.lean
    slots = lm.slots(3, C)
    ids = torch.randint(V, (3, C))
    for step in range(2, 6):
        lengths = np.full(3, step)
        calls.clear()
        hidden = slots.last_hidden(ids, lengths)
        assert calls["products"] == 2 * 4  # of each layer: what is read, out, up, down
        exact = lm.model(input_ids=ids[:, :step]).logits[:, -1]
        torch.testing.assert_close(lm.head.logits(hidden), exact, atol=1e-4, rtol=0)


@needs_onednn
@pytest.mark.parametrize("name", MODELS)
def test_a_models_own_forwards_are_within_it(calls, name):
    """Of whole contexts, and of decoding where there is no lean forward."""
    torch.manual_seed(0)
    lm = CausalLM(MODELS[name](), V, C)
    layers = {"gpt2": 2 * 4, "llama": 2 * 7}[name]
    ids = torch.randint(V, (3, C))
    calls.clear()
    lm.states(ids, torch.arange(3))
    assert calls["products"] == layers
    lm.lean = False
    calls.clear()
    lm.slots(3, C).last_hidden(ids, np.full(3, 4))
    assert calls["products"] == layers
    calls.clear()
    forward(lm.model, ids, torch.ones_like(ids))  # as rewards by neural models call theirs
    assert calls["products"] == layers + 1  # and the head


@needs_onednn
def test_an_encoder_decoder(calls):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=V, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0,
        decoder_start_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    lm = Seq2SeqLM(
        T5ForConditionalGeneration(config), V, C, max_new_tokens=8
    )  # compares itself with the model
    assert lm.incremental
    # Six a layer of the encoder: four of attention, two of the MLP; four more of a decoder's.
    ids, there = torch.randint(V, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    calls.clear()
    encoded = lm.encode(ids, there)
    assert calls["products"] == 2 * 6
    calls.clear()
    lm.decode(ids, encoded, there)
    assert calls["products"] == 2 * 10
    slots = lm.slots(2, C)
    contexts, prompts = torch.randint(V, (2, C)), np.array([5, 5])
    slots.last_hidden(contexts, np.array([5, 5]), prompts)
    calls.clear()
    slots.last_hidden(contexts, np.array([6, 6]), prompts)
    assert calls["products"] == 2 * 8  # the encoder's keys and values are known


def test_only_what_is_on_a_cpu(calls):
    assert not isinstance(fast_linear(torch.zeros(3, C), 32), nullcontext)
    assert isinstance(fast_linear(torch.zeros(3, C, device="meta"), 32), nullcontext)


@pytest.mark.parametrize(
    ("processor", "capability", "slow"),
    [
        ("vendor_id : AuthenticAMD", "AVX512", True),
        ("vendor_id : GenuineIntel", "AVX512", False),
        ("AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", "AVX2", False),
    ],
)
def test_which_processors(monkeypatch, processor, capability, slow):
    monkeypatch.setattr(module, "_processor", lambda: processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    assert library_is_slow.__wrapped__() == (slow and known)
