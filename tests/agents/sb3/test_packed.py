"""A minibatch is read in parts of similar length: the same numbers, and little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer
from textgym_agents.lm import CausalLM, pack_support
from textgym_agents.sb3 import packed
from textgym_agents.sb3.packed import PackedBatch
from textgym_agents.sb3.policy import LMPolicy

V = Tokenizer.load().vocab_size
WIDTH = 60


def batch_of(lengths, prompts=4):
    """Segments of so many tokens, whose transitions are those after the prompt."""
    rng = np.random.default_rng(0)
    ids = np.zeros((len(lengths), WIDTH), np.int64)
    index = []
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.integers(1, V, length)
        index += [row * WIDTH + column for column in range(prompts - 1, length)]
    counts = [length - prompts + 1 for length in lengths]
    support = torch.from_numpy(rng.integers(0, 2, (len(index), V)) > 0)
    actions = torch.from_numpy(rng.integers(0, V, len(index)))
    support[torch.arange(len(index)), actions] = True
    return PackedBatch(
        torch.from_numpy(ids),
        torch.tensor(index),
        actions,
        counts,
        pack_support(support),
        torch.arange(len(lengths)),
    )


@pytest.fixture
def lengths():
    return np.random.default_rng(1).integers(8, WIDTH + 1, 80).tolist()


@pytest.fixture
def lm():
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return CausalLM(GPT2LMHeadModel(GPT2Config(**sizes, vocab_size=V)), V, WIDTH)


def test_states_and_gradients_are_those_of_one_forward(lm, lengths):
    batch = batch_of(lengths)
    weights = torch.randn(len(batch.index), 16, generator=torch.Generator().manual_seed(0))
    found = []
    forwards = []

    def read(part):
        forwards.append(part.input_ids.shape)
        return LMPolicy._packed_hidden(lm, part)

    for states in (LMPolicy._packed_hidden(lm, batch), batch.map(read, 10**6)):
        lm.zero_grad()
        (states * weights).sum().backward()
        found.append((states, {n: p.grad.clone() for n, p in lm.named_parameters()}))
    (whole, one), (mapped, several) = found
    assert len(forwards) > 4
    assert torch.allclose(whole, mapped, atol=1e-5)
    for name, gradient in one.items():
        assert torch.allclose(gradient, several[name], atol=1e-4, rtol=1e-4), name


def test_what_belongs_to_a_transition_stays_with_it(lengths):
    batch = batch_of(lengths)
    width = batch.input_ids.shape[1]
    rows, columns = batch.index // width, batch.index % width

    def read(part):
        rows, columns = part.index // part.input_ids.shape[1], part.index % part.input_ids.shape[1]
        own = part.input_ids[rows, columns], columns, part.actions, part.prompt_lengths[rows]
        return torch.cat([torch.stack(own, 1), part.support.long()], 1)

    own = batch.input_ids[rows, columns], columns, batch.actions, rows
    expected = torch.cat([torch.stack(own, 1), batch.support.long()], 1)
    for most in (10**6, 300, 1):
        assert torch.equal(batch.map(read, most), expected)


@pytest.mark.parametrize("tokens", [2048, 4096])
def test_padding_is_under_a_tenth(tokens):
    rng = np.random.default_rng(2)
    lengths = []
    while sum(lengths) < tokens:
        lengths.append(int(rng.integers(16, 57)))
    shapes = []

    def read(part):
        shapes.append(part.input_ids.numel())
        return part.index

    batch_of(lengths).map(read, 10**6)
    assert sum(shapes) >= sum(lengths)
    assert 1 - sum(lengths) / sum(shapes) < 0.1
    assert len(shapes) < len(lengths) / 4


def test_parts_hold_no_more_than_asked_for(lengths):
    shapes = [part.input_ids.shape for part in batch_of(lengths).parts(150)]
    assert sum(rows for rows, _ in shapes) == len(lengths)
    assert all(rows * width <= 150 for rows, width in shapes)
    longer = batch_of([40, 30]).parts(20)
    assert [part.input_ids.shape for part in longer] == [(1, 40), (1, 30)]


def test_equal_lengths_are_one_part():
    assert packed._cuts([50] * 100, 10**6) == [0, 100]
