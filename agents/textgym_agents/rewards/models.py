"""What the rewards by neural models share: models, batches of similar length, a cache of scores."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgym_agents.lm import model_path
from textgym_agents.lm.linear import fast_linear

# A folder, a hub id, ``"bundled"``, or a model with its tokenizer.
Judge = str | os.PathLike[str] | tuple[nn.Module, Any]

_models: dict[tuple[str, str, str], tuple[nn.Module, Any]] = {}
_lock = threading.Lock()


def shared_model(kind: type, source: Judge, device: str = "auto") -> tuple[Any, Any]:
    """A Hugging Face model that judges, and its tokenizer; loaded once in a process.

    However many rewards and environments name the same folder, there is one copy of the weights: in
    float32, in eval mode (no dropout), without gradients.

    Args:
        kind: the class that loads it: `AutoModel`, `AutoModelForCausalLM`,
            `AutoModelForSequenceClassification`.
        source: a folder written by `save_pretrained`, a hub id (fetched only where the hub may be
            used, see `HF_HUB_OFFLINE`), ``"bundled"``, or a pair of a model and its tokenizer,
            which is used as it is: on its device, and call its `eval()` first.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU where there is one.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it cannot be loaded as a `kind`.
    """
    if isinstance(source, tuple):
        return source
    path = model_path(source)
    name = os.fspath(source if path is None else path.resolve())
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    key = (kind.__name__, name, device)
    with _lock:
        if key not in _models:
            _models[key] = _load(kind, name, device, local=path is not None)
        return _models[key]


def _load(kind: Any, name: str, device: str, *, local: bool) -> tuple[nn.Module, Any]:
    from transformers import AutoTokenizer  # seconds to import: only when needed
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
        model = kind.from_pretrained(name, local_files_only=local, dtype=torch.float32)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"model: {name} cannot be loaded with its tokenizer by `{kind.__name__}`: {first} "
            "Expected a folder written by `save_pretrained` of both, or a hub id."
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return model.to(device).eval().requires_grad_(False), tokenizer


def sound(text: str) -> str:
    """`text` with a question mark for each lone surrogate, which no tokenizer can read."""
    return text.encode("utf-8", "replace").decode("utf-8")


def reading_limit(model: Any, tokenizer: Any, max_tokens: int) -> int:
    """`max_tokens`, or fewer where `model` and `tokenizer` cannot read as many.

    Raises:
        ValueError: `max_tokens` is below 2.
    """
    if max_tokens < 2:
        raise ValueError(f"`max_tokens` must be at least 2, got {max_tokens}.")
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_tokens, positions or max_tokens, tokenizer.model_max_length)


def padded(sequences: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """`[S, T] int64` ids, padded on the right, and `[S, T] int64`, 1 where there is a token."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def forward(model: nn.Module, ids: Tensor, mask: Tensor, **options: Any) -> Any:
    """What `model` makes of `padded` sequences; `options` are those of its own forward."""
    with fast_linear(ids, getattr(model.config, "hidden_size", 0)):
        return model(input_ids=ids, attention_mask=mask, **options)


def batches_by_length(lengths: Sequence[int], max_tokens: int = 16384) -> list[list[int]]:
    """Indices of `lengths` in batches of similar length.

    Padded to its longest member a batch has at most `max_tokens` tokens (but one that alone is
    longer has a batch to itself), and no member is more than 16 tokens longer than twice another.

    Args:
        lengths: tokens of each text.
        max_tokens: the most tokens of a batch, padding included.

    Example:
        >>> batches_by_length([3, 500, 4, 400], max_tokens=1000)
        [[0, 2], [3, 1]]
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):  # stable
        batch = batches[-1] if batches else []
        fits = (len(batch) + 1) * lengths[i] <= max_tokens
        if batch and fits and lengths[i] <= 2 * lengths[batch[0]] + 16:
            batch.append(i)
        else:
            batches.append([i])
    return batches


class TextCache:
    """Scores of texts that were judged before; the least recently used are forgotten.

    Texts are kept as digests of 16 bytes, so that a score costs about 200 bytes however long its
    text is.

    Args:
        size: the most scores kept.

    Example:
        >>> cache = TextCache(size=2)
        >>> cache.lookup(["a", "bb", "a"], lambda new: [len(text) for text in new]).tolist()
        [1.0, 2.0, 1.0]
        >>> cache.lookup(["bb"], lambda new: 1 / 0).tolist()
        [2.0]
    """

    def __init__(self, size: int = 100_000) -> None:
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        self.size = size
        self._scores: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._scores)

    def lookup(
        self,
        texts: Sequence[str | tuple[Any, ...]],
        compute: Callable[[list[Any]], Sequence[float] | NDArray[np.floating]],
    ) -> NDArray[np.float64]:
        """`[len(texts)] float64`, the score of each.

        Args:
            texts: texts, or tuples of all that a score depends on.
            compute: gives the scores of those that are new; each is asked for once, in order.
        """
        keys = [hashlib.blake2b(repr(text).encode(), digest_size=16).digest() for text in texts]
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._scores}
        found = {key: self._scores[key] for key in keys if key not in new}
        if new:
            found |= zip(new, map(float, compute(list(new.values()))), strict=True)
        for key in found:
            self._scores[key] = found[key]
            self._scores.move_to_end(key)
        while len(self._scores) > self.size:
            self._scores.popitem(last=False)
        return np.array([found[key] for key in keys], np.float64)
