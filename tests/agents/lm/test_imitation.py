"""Supervised fine-tuning: what counts, what it costs, and that it teaches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Episode, Instance, Tokenizer
from textgym.demonstrations import converse, demonstrate
from textgym.registration import REGISTRY
from textgym_agents.lm import CausalLM, imitation


def episode(ids, own):
    return Episode(
        instance=Instance("p"),
        input_ids=np.array(ids),
        completion_mask=np.array(own, bool),
        completion_text="",
        turns=(),
        finish_reason="stop",
    )


DIALOGUE = episode([5, 6, 7, 8, 9, 4], [0, 1, 0, 0, 1, 1])
SHORT = episode([5, 3], [0, 1])


@pytest.fixture
def lm():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    return CausalLM(GPT2LMHeadModel(config), 12, 16)


def test_only_the_agents_own_tokens_are_labelled():
    tokens, labels = imitation.collate([DIALOGUE, SHORT])
    ignored = imitation.IGNORED
    assert tokens.tolist() == [[5, 6, 7, 8, 9, 4], [5, 3, 0, 0, 0, 0]]
    assert labels.tolist() == [
        [ignored, 6, ignored, ignored, 9, 4],
        [ignored, 3, ignored, ignored, ignored, ignored],
    ]


def test_the_loss_is_that_of_the_model_itself(lm):
    tokens, labels = imitation.collate([DIALOGUE, SHORT])
    loss = imitation.imitation_loss(lm, tokens, labels)
    theirs = lm.model(input_ids=tokens, labels=labels).loss
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-6)
    (ours,) = torch.autograd.grad(loss, [lm.model.transformer.wte.weight])
    (same,) = torch.autograd.grad(theirs, [lm.model.transformer.wte.weight])
    assert torch.allclose(ours, same, atol=1e-6)


def test_held_out_loss_weighs_tokens_not_batches(lm):
    whole = imitation.collate([DIALOGUE, SHORT])
    apart = [imitation.collate([DIALOGUE]), imitation.collate([SHORT])]
    assert imitation.held_out_loss(lm, apart) == pytest.approx(
        imitation.held_out_loss(lm, [whole]), abs=1e-6
    )


def test_batches_hold_every_episode_once_and_lengths_apart():
    lengths = np.random.default_rng(0).integers(2, 30, 64)
    episodes = [episode([i] * n, [0] + [1] * (n - 1)) for i, n in enumerate(lengths.tolist())]
    made = list(imitation.batches(episodes, 8))
    assert sorted(i for tokens, _ in made for i in tokens[:, 0].tolist()) == list(range(64))
    assert [len(tokens) for tokens, _ in made] == [8] * 8
    padded = sum(tokens.numel() for tokens, _ in made)
    assert padded < 1.15 * lengths.sum()
    again = list(imitation.batches(episodes, 8))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(made, again, strict=True))


def test_fitting_teaches_and_stops_when_told(lm):
    stream = itertools.repeat(imitation.collate([DIALOGUE, SHORT]))
    losses = []

    def on_step(done, loss):
        losses.append(loss)
        return done < 60

    done = imitation.fit(lm, stream, [imitation.adamw(lm, 1e-2)], steps=100, on_step=on_step)
    assert done == len(losses) == 60
    assert losses[0] > 2.0
    # Of four tokens only the first is in doubt: after 5 there is a 6 as often as a 3.
    assert losses[-1] == pytest.approx(math.log(2) / 2, abs=0.02)


def test_learning_rate_rises_and_falls():
    rates = [imitation.warmup_cosine(step, 100) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(rates) == pytest.approx(1.0)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=1e-2)


def test_demonstrations_are_those_of_the_env_and_of_the_seed():
    task, tokenizer = REGISTRY["textgym/Story-v0"].task_class()(), Tokenizer.load()
    made = list(itertools.islice(imitation.demonstrations(task, tokenizer, "train", 3), 4))
    again = list(itertools.islice(imitation.demonstrations(task, tokenizer, "train", 3), 4))
    other = list(itertools.islice(imitation.demonstrations(task, tokenizer, "test", 3), 4))
    assert made == again
    assert not {e.prompt for e in made} & {e.prompt for e in other}
    for one in made:
        assert one == demonstrate(task, one.instance, tokenizer)
        assert task.score(one) == 1.0
        assert tokenizer.decode(one.input_ids.tolist()) == one.prompt + one.completion_text
        own = one.completion_ids.tolist()
        assert own[-1] == tokenizer.eos_token_id
        assert own[:-1] == tokenizer.encode(one.completion_text, special_tokens=False)


def test_conversations_end_as_in_the_env():
    task, tokenizer = REGISTRY["textgym/Story-v0"].task_class()(), Tokenizer.load()
    instance = task.sample(np.random.default_rng(0))
    said = converse(task, instance, lambda *_: " Hello.", tokenizer)
    assert (said.finish_reason, said.completion_text, len(said.turns)) == ("stop", " Hello.", 1)
