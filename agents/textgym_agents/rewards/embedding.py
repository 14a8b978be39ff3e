"""`EmbeddingSimilarity`: how alike completion and target are to a neural model (BERTScore)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textgym import Episode
from textgym.rewards.base import Reward
from textgym_agents.rewards.models import (
    Judge,
    TextCache,
    batches_by_length,
    forward,
    padded,
    reading_limit,
    shared_model,
    sound,
)

# Text that is looked at, per token that is read.
_CHARACTERS = 32
# Tokens read at one time, padding included.
_BATCH_TOKENS = 8192


class EmbeddingSimilarity(Reward):
    """BERTScore of completion and target: greedy matching of their tokens' embeddings, in [0, 1].

    Each token of the completion is matched with the most similar one of the target (the cosine of
    their embeddings in context); the mean of these is the precision P, the other way round it is
    the recall R, and the reward is F1 = 2 P R / (P + R). P and R are no less than 0; special tokens
    (``[CLS]``) do not take part. With a `baseline` b it is (F1 - b) / (1 - b), at least 0: texts
    that have nothing in common often have cosines of 0.8 and more. Empty text is like empty text
    alone.

    The target itself maximises it. Words are matched one by one, so that saying one twice costs
    little. An encoder (BERT) sees both sides of a word; a causal language model will do too.

    Args:
        model: an encoder or causal language model: a folder with its tokenizer, a hub id,
            ``"bundled"``, or a pair of a model and its `transformers` tokenizer.
        layer: whose hidden states are the embeddings: 0 is before the first layer, -1 the last.
        baseline: what counts as nothing in common, below 1: the mean F1 of unrelated texts.
        max_tokens: tokens of each text that are read; the rest does not count.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        name: its name in `info["rewards"]`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it cannot be loaded, or has no such layer; called: an episode has no target.

    Source: Zhang et al. (2020), "BERTScore: Evaluating Text Generation with BERT".

    Example:
        >>> similarity = EmbeddingSimilarity("bundled")
        >>> round(similarity.value("the fox", "the fox"), 4)
        1.0
        >>> similarity.value("a fox", "the fox") > similarity.value("12 + 7", "the fox")
        True
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        model: Judge,
        layer: int = -1,
        *,
        baseline: float = 0.0,
        max_tokens: int = 512,
        device: str = "auto",
        name: str = "embedding",
    ) -> None:
        self.name = name
        self._source, self._device = model, device
        loaded, tokenizer = self._judge()
        count = int(loaded.config.get_text_config().num_hidden_layers)
        if not -count - 1 <= layer <= count:
            raise ValueError(f"`layer` must be from {-count - 1} to {count}, got {layer}.")
        if not 0.0 <= baseline < 1.0:
            raise ValueError(f"`baseline` must be from 0 to below 1, got {baseline!r}.")
        self.layer, self.baseline = layer, baseline
        self._limit = reading_limit(loaded, tokenizer, max_tokens)
        self._cache = TextCache()

    def _judge(self) -> tuple[Any, Any]:
        # Looked up at each use, not kept: copies of this reward then share the model.
        from transformers import AutoModel

        return shared_model(AutoModel, self._source, self._device)

    def value(self, text: str, target: str) -> float:
        """The reward of the completion `text`."""
        return float(self._values([self._pair(text, target)])[0])

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        pairs = []
        for episode in episodes:
            target = episode.instance.target
            if target is None:
                raise ValueError(
                    f"reward `{self.name}` compares with a target, and the instance of "
                    f"{episode.prompt[:80]!r} has none. Use a task that has."
                )
            pairs.append(self._pair(episode.completion_text, target))
        return self._values(pairs).astype(np.float32)

    def _pair(self, text: str, target: str) -> tuple[str, str]:
        room = self._limit * _CHARACTERS
        return sound(text[:room]), sound(target[:room])

    def _values(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        return self._cache.lookup(pairs, self._similarities)

    def _similarities(self, pairs: list[tuple[str, str]]) -> list[float]:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        embeddings = dict(zip(texts, self._embeddings(texts), strict=True))
        return [self._scaled(f1(embeddings[text], embeddings[target])) for text, target in pairs]

    def _scaled(self, value: float) -> float:
        return float(np.clip((value - self.baseline) / (1.0 - self.baseline), 0.0, 1.0))

    @torch.no_grad()
    def _embeddings(self, texts: list[str]) -> list[Tensor]:
        """`[N, d]` a text, of length 1: the hidden states of its tokens."""
        model, tokenizer = self._judge()
        encoded = tokenizer(
            texts,
            truncation=True,
            max_length=self._limit,
            return_special_tokens_mask=True,
            split_special_tokens=True,
        )
        ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
        found = [torch.zeros(0, 1)] * len(texts)
        some = [i for i in range(len(texts)) if len(ids[i])]
        device = next(model.parameters()).device
        for batch in batches_by_length([len(ids[i]) for i in some], _BATCH_TOKENS):
            rows = [some[i] for i in batch]
            tokens, mask = padded([ids[i] for i in rows], device)
            out = forward(model, tokens, mask, output_hidden_states=True)
            hidden = out.hidden_states[self.layer].float()
            for row, states in zip(rows, hidden, strict=True):
                ordinary = torch.tensor(special[row], device=device) == 0
                found[row] = torch.nn.functional.normalize(states[: len(ids[row])][ordinary], dim=1)
        return found


def f1(completion: Tensor, target: Tensor) -> float:
    """F1 of greedy matching, in [0, 1].

    Args:
        completion: `[N, d]`, embeddings of length 1.
        target: `[M, d]`, the same.
    """
    if not len(completion) or not len(target):
        return float(len(completion) == len(target))
    cosines = completion @ target.T  # [N, M]
    precision = max(0.0, float(cosines.amax(dim=1).mean()))
    recall = max(0.0, float(cosines.amax(dim=0).mean()))
    total = precision + recall
    return min(1.0, 2.0 * precision * recall / total) if total > 0.0 else 0.0
