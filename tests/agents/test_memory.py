"""The formulae of memory are those of what is allocated."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from textgym import Tokenizer
from textgym_agents.lm import CausalLM
from textgym_agents.memory import rollout_buffer_bytes, slot_cache_bytes
from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

V = Tokenizer.load().vocab_size


def gpt2():
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}
    return GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=V)), {
        "layers": 2,
        "kv_heads": 2,
        "head_size": 8,
        "width": 16,
    }


def llama():
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "max_position_embeddings": 256}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, vocab_size=V)), {
        "layers": 3,
        "kv_heads": 1,
        "head_size": 8,
        "width": 32,
    }


def allocated(slots):
    """Bytes of every array and tensor of a slot cache."""
    tensors = [t for layer in slots.cache.layers for t in (layer.keys, layer.values)]
    tensors += [slots.all_rows, slots._hidden]
    arrays = [value for value in vars(slots).values() if isinstance(value, np.ndarray)]
    return sum(t.untyped_storage().nbytes() for t in tensors) + sum(a.nbytes for a in arrays)


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize(
    ("rows", "longest", "context"), [(3, 10, 200), (5, 64, 64), (2, 65, 200), (4, 150, 150)]
)
def test_slot_cache(make, rows, longest, context):
    model, sizes = make()
    slots = CausalLM(model, V, context).slots(rows, context)
    ids = torch.randint(0, V, (rows, context), generator=torch.Generator().manual_seed(0))
    for length in (longest // 2, longest):
        slots.last_hidden(ids, np.full(rows, length))
    assert allocated(slots) == slot_cache_bytes(rows, longest, context, **sizes)


@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize(("rows", "steps"), [(32, 24), (16, 60)])
def test_rollout_buffer(top_k, rows, steps):
    envs = make_vec_env("textgym/Continuation-v0", n_envs=rows, max_new_tokens=12)
    keywords = ppo_defaults(envs) | {"n_steps": steps, "batch_size": rows * steps}
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": gpt2()[0], "kl_coef": 0.0, "top_k": top_k},
        seed=0,
        device="cpu",
        **keywords,
    )
    _, callback = agent._setup_learn(10**6)
    filling = []
    add = TokenRolloutBuffer.add

    class Recorder(TokenRolloutBuffer):
        def add(self, *step):
            filling.append(step)
            add(self, *step)

    agent.rollout_buffer.__class__ = Recorder
    agent.collect_rollouts(envs, callback, agent.rollout_buffer, steps)
    spaces = agent.observation_space, agent.action_space
    gc.collect()
    tracemalloc.start()
    try:
        buffer = TokenRolloutBuffer(steps, *spaces, "cpu", n_envs=rows)
        for step in filling:
            buffer.add(*step)
        gc.collect()
        found, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    segment_tokens = sum(len(s.ids) for s in buffer.segments)
    expected = rollout_buffer_bytes(
        rows,
        steps,
        buffer.context_size,
        segment_tokens,
        masked_tokens=V if top_k else 0,
    )
    bits = sum(bits.nbytes for bits in buffer.support if bits is not None)
    numbers = sum(v.nbytes for v in vars(buffer).values() if isinstance(v, np.ndarray))
    assert expected == numbers + bits + sum(s.ids.nbytes for s in buffer.segments)
    # Beyond the numbers there are only the objects that hold them. Bits are torch's, not traced.
    objects = 500 * len(buffer.segments) + 200 * steps
    assert expected <= found + bits <= expected + objects
