"""A small random reference, and what it says of contexts read whole, one row at a time."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import textgym  # noqa: F401  # registers the environments

KWARGS = {"max_new_tokens": 6, "min_new_tokens": 2, "banned_tokens": [5, 7]}


@pytest.fixture(scope="session")
def model():
    """A causal language model with the embedded tokenizer's vocabulary."""
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=1536, n_embd=16, n_layer=2, n_head=2, n_positions=512, initializer_range=0.5
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def by_hand(model):
    """`by_hand(observation)`: hidden state `[D]`, log-probs `[V]` of one row, without a cache."""

    @torch.no_grad()
    def read(observation, mask=None):
        ids = torch.tensor(observation["input_ids"][: int(observation["attention_mask"].sum())])
        output = model(ids[None], output_hidden_states=True)
        logits = output.logits[0, -1]
        if mask is not None:
            logits[~torch.as_tensor(np.asarray(mask, bool))] = -torch.inf
        return output.hidden_states[-1][0, -1].numpy(), logits.log_softmax(-1).numpy()

    return read


@pytest.fixture(scope="session")
def make():
    """`make(n, ...)`: a vector env of n rows; `make(None, ...)`: a single one."""

    def make(num_envs, id="textgym/Story-v0", **kwargs):
        kwargs = {**KWARGS, **kwargs}
        if num_envs is None:
            return gym.make(id, disable_env_checker=True, **kwargs)
        return gym.make_vec(id, num_envs, vectorization_mode="vector_entry_point", **kwargs)

    return make


@pytest.fixture(scope="session")
def row_of():
    """`row_of(observation, row)`: one row of a batched observation."""
    return lambda observation, row: {key: value[row] for key, value in observation.items()}


@pytest.fixture(scope="session")
def tokens_read():
    """`tokens_read(lm, play)`: how many tokens `lm` reads, all rows together, while `play()`."""

    def count(lm, play):
        read, body = [], lm.body

        def counted(tokens, **kwargs):
            read.append(tokens.numel())
            return body(tokens, **kwargs)

        lm.body = counted
        try:
            play()
        finally:
            del lm.body
        return sum(read)

    return count
