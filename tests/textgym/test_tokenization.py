"""Completions are decoded here where that is joining bytes, and as the backend would."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models

from textgym import Tokenizer


def with_added_tokens():
    """The embedded tokenizer with tokens beyond its own: spelled plainly, and special ones."""
    backend = tokenizers.Tokenizer.from_str(Tokenizer.load().backend.to_str())
    backend.add_tokens(["größe 日本", "plain", "<think>"])
    backend.add_special_tokens(["<role>"])
    return Tokenizer(backend, eos_token=Tokenizer.load().eos_token, name="with added tokens")


def by_spaces():
    """A tokenizer of another kind: its decoder puts spaces between words."""
    vocab = {"</s>": 0, "a": 1, "b": 2, "c": 3}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="</s>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["</s>"])
    backend.decoder = decoders.WordPiece()
    return Tokenizer(backend, eos_token="</s>", name="by spaces")


TOKENIZERS = {"embedded": Tokenizer.load, "added": with_added_tokens, "spaces": by_spaces}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_completions_are_decoded_as_by_the_backend(name):
    tokenizer = TOKENIZERS[name]()
    assert (tokenizer._bytes is not None) == (name != "spaces")
    rng = np.random.default_rng(0)
    size = tokenizer.vocab_size
    for low, high in ((0, size), (0, min(size, 270)), (max(0, size - 8), size + 3)):
        # The middle one is single bytes: UTF-8 broken in every way.
        batch = [rng.integers(low, high, rng.integers(0, 40)).tolist() for _ in range(300)]
        anchor, text = tokenizer._anchor
        decoded = tokenizer.backend.decode_batch([[*anchor, *ids] for ids in batch])
        assert tokenizer.decode_completions(batch) == [d[len(text) :] for d in decoded]


def test_special_tokens_are_left_out():
    tokenizer = with_added_tokens()
    ids = [tokenizer.backend.token_to_id(t) for t in ("plain", "<role>", "größe 日本", "</s>")]
    ids = [i for i in ids if i is not None]
    assert tokenizer.decode_completions([ids]) == ["plaingröße 日本"]
