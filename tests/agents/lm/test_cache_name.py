"""Models whose forward calls its key-value cache `cache`, as transformers does from 5.24 on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Stack

from textgym_agents.lm import CausalLM, Seq2SeqLM
from textgym_agents.lm.language_model import cache_name

V, PROMPT, NEW = 29, 6, 6
C = PROMPT + NEW


def new_arguments(old):
    """The forward's arguments by their old names, from those by the new ones."""
    if old.pop("past_key_values", None) is not None:
        raise TypeError("unexpected keyword argument 'past_key_values'")
    return old


class NewNeoX(GPTNeoXModel):
    def forward(self, input_ids=None, cache=None, **others):
        return super().forward(input_ids, past_key_values=cache, **new_arguments(others))


class NewStack(T5Stack):
    def forward(self, input_ids=None, cache=None, **others):
        return super().forward(input_ids, past_key_values=cache, **new_arguments(others))


def neox():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GPTNeoXConfig(vocab_size=V, intermediate_size=32, max_position_embeddings=C, **sizes)
    return GPTNeoXForCausalLM(config)


def t5():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=V, decoder_start_token_id=0, pad_token_id=0, **sizes)
    )


def test_the_name_is_that_of_the_forward():
    assert cache_name(neox().base_model) == cache_name(t5().get_decoder()) == "past_key_values"
    assert cache_name(NewNeoX(neox().config)) == "cache"
    assert cache_name(torch.nn.Linear(1, 1)) is None


@pytest.mark.parametrize("new", [False, True])
def test_causal_models_decode_by_either_name(new):
    torch.manual_seed(0)
    model = neox()
    if new:
        model.gpt_neox.__class__ = NewNeoX
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a cache that does not work is told
        lm = CausalLM(model, V, C)
    assert lm.incremental
    check(lm)


@pytest.mark.parametrize("new", [False, True])
def test_encoder_decoder_models_decode_by_either_name(new):
    torch.manual_seed(0)
    model = t5()
    if new:
        model.decoder.__class__ = NewStack
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm = Seq2SeqLM(model, V, C, max_new_tokens=NEW)
    assert lm.incremental
    check(lm, np.array([3, PROMPT]))


def check(lm, *prompts):
    slots = lm.slots(2, C)
    ids = np.random.default_rng(0).integers(0, V, (2, C))
    for written in range(NEW):
        lengths = np.array([3, PROMPT]) + written
        seen = torch.from_numpy(np.where(np.arange(C) < lengths[:, None], ids, 0))
        ours = slots.last_hidden(seen, lengths, *prompts)
        exact = lm.last_hidden(seen, lengths, *prompts)
        torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-4)
