"""Small random judges: two causal language models and an encoder, with tokenizers."""

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from textgym import Tokenizer

WORDS = ["the fox and the owl went to the river", "a cat sat on 12 mats"] * 20


def _byte_level(vocab_size, special):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(WORDS, trainer)
    return backend


def _gpt2(vocab_size, positions=128):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=2, n_positions=positions,
        initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def judge():
    """A causal language model with a tokenizer of its own."""
    backend = _byte_level(300, ["<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    return _gpt2(300), tokenizer


@pytest.fixture(scope="session")
def kindred_judge():
    """A causal language model with the embedded tokenizer, that of most environments."""
    own = Tokenizer.load()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own.backend, eos_token=own.eos_token)
    return _gpt2(own.vocab_size), tokenizer


@pytest.fixture(scope="session")
def encoder():
    """A bidirectional encoder whose tokenizer adds `[CLS]` and `[SEP]`."""
    backend = _byte_level(300, ["[PAD]", "[CLS]", "[SEP]"])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return BertModel(config).eval(), tokenizer


@pytest.fixture(scope="session")
def garbage():
    """What a model may write."""
    return [
        "", " ", "\n\n", "\x00", "\ufffd" * 9, "\ud800", "\x1b[31m", "<end>", "[CLS][SEP][PAD]",
        "a" * 1_000_000, "the fox " * 100_000, "\u202eabc\u0301", "🦊" * 50, "é" * 3,
    ]  # fmt: skip
