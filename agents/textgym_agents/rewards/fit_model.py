"""What a reward is fitted with: a pretrained model, or a small encoder made for the data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from textgym_agents.lm import model_path
from textgym_agents.rewards.fit_data import Examples
from textgym_agents.rewards.fit_training import TextJudge

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_VOCABULARY = 10_000
# Of it, word endings, each of so many words at least.
_ENDINGS = _VOCABULARY // 5
_WORDS_AN_ENDING = 8


def pretrained(source: str | os.PathLike[str], examples: Examples, max_tokens: int) -> TextJudge:
    """The model that `source` names, with a new head where it does not fit the labels.

    Args:
        source: a folder or hub id of an encoder or causal language model.
        examples: whose labels it shall tell.
        max_tokens: read of a text.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it cannot be loaded.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    path = model_path(source)
    name = os.fspath(source if path is None else path)
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # that the head is new is no news
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=path is not None)
        model = AutoModelForSequenceClassification.from_pretrained(
            name,
            local_files_only=path is not None,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            **_labels(examples),
        )
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"--base: {source} cannot be loaded as a classifier: {first} Expected a folder of "
            "Hugging Face files with a tokenizer, or a hub id."
        ) from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    # Where a padded text ends is told by the padding token, to a causal model.
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    pad = next(token for token in known if token is not None)
    tokenizer.pad_token_id = model.config.pad_token_id = pad
    positions = getattr(model.config, "max_position_embeddings", None) or max_tokens
    return TextJudge(model, tokenizer, min(max_tokens, positions, tokenizer.model_max_length))


def small_encoder(examples: Examples, max_tokens: int, seed: int) -> TextJudge:
    """A random encoder of one layer that reads whole words, for training from scratch.

    It averages over all tokens, so that it is a bag of words until it learns better. Norms with a
    large epsilon let the embeddings of rare words, which are small, count for little.

    Args:
        examples: to make the vocabulary of.
        max_tokens: read of a text.
        seed: of the weights.
    """
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    tokenizer = word_tokenizer(
        (part for column in examples.texts for text in column for part in text), max_tokens
    )
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=max_tokens,
        pad_token_id=0,
        bos_token_id=2,
        cls_token_id=2,
        eos_token_id=3,
        sep_token_id=3,
        embedding_dropout=0.6,
        mlp_dropout=0.5,
        classifier_dropout=0.5,
        classifier_pooling="mean",
        norm_eps=0.1,
        **_labels(examples),
    )
    torch.manual_seed(seed)
    return TextJudge(ModernBertForSequenceClassification(config), tokenizer, max_tokens)


def _labels(examples: Examples) -> dict[str, Any]:
    if examples.pairs:
        return {"num_labels": 1, "id2label": {0: "preferred"}, "label2id": {"preferred": 0}}
    names = dict(enumerate(examples.names))
    return {
        "num_labels": len(names),
        "id2label": names,
        "label2id": {name: i for i, name in names.items()},
        "problem_type": "single_label_classification",
    }


def word_tokenizer(texts: Iterable[str], max_tokens: int) -> Any:
    """A WordPiece tokenizer of `transformers` whose pieces are frequent words and word endings.

    Lower case, without accents. The same texts always give the same vocabulary, which the trainers
    of the `tokenizers` library do not promise.

    Args:
        texts: to take the words from.
        max_tokens: the most that a model reads.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.BertNormalizer()
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    backend = tokenizers.Tokenizer(
        models.WordPiece({p: i for i, p in enumerate(_pieces(words))}, unk_token="[UNK]")
    )
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )


def _pieces(words: Counter[str]) -> list[str]:
    """The vocabulary, in order: special, characters, endings, then words by frequency."""
    characters = Counter(c for word in words for c in word)
    known = [c for c, _ in _ranked(characters)][: _VOCABULARY // 10]
    endings = Counter(
        word[-length:] for word in words for length in range(2, 7) if len(word) > length + 1
    )
    frequent = [e for e, count in _ranked(endings) if count >= _WORDS_AN_ENDING][:_ENDINGS]
    repeated = [word for word, count in _ranked(words) if count > 1]
    pieces = [*_SPECIAL, *known, *(f"##{piece}" for piece in (*known, *frequent)), *repeated]
    return list(dict.fromkeys(pieces))[:_VOCABULARY]


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
