"""A model small enough that a run takes a second."""

import pytest
import tokenizers
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import Tokenizer

WORDS = ("</s>", "once", "upon", "a", "time", "happy", "sad", "cat", "dog", "sun")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random GPT-2 of ten words."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="a"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=32, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    Tokenizer(backend, eos_token="</s>", name="words").save(folder)
    return folder
