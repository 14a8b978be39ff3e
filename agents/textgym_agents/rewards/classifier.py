"""`Classifier`: pay what a sequence classifier, or a reward model, thinks of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from textgym import Episode
from textgym.errors import check_choice, near_matches
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

Output = Literal["probability", "log_probability", "logit"]
Reads = Literal["completion", "prompt+completion", "context"]

# Text that is looked at, per token that is read.
_CHARACTERS = 32
_RANGES: dict[str, tuple[float, float]] = {
    "probability": (0.0, 1.0),
    "log_probability": (-float("inf"), 0.0),
    "logit": (-float("inf"), float("inf")),
}

# What comes before, and what is judged.
_Text = tuple[str, str]


class Classifier(Reward):
    """What a classifier of texts (sentiment, toxicity), or a preference model, makes of a text.

    Of a model with several labels the reward is that of one, `label`: its share of the softmax, or
    a sigmoid of its logit where labels do not exclude each other (the model's configuration says
    so). Of a model with one output, as preference models have, it is that output or its sigmoid.

    What maximises it is whatever the model errs on: repeated words, text it never saw. A model
    judges well only what is like its training data, so hold the agent near natural text (a KL
    penalty, `Perplexity`), and try ``textgym audit-reward``. ``"probability"`` saturates, which
    also limits what there is to gain from such texts; a ``"logit"`` has no limit. Empty text is
    judged like any other.

    Args:
        model: a folder that `AutoModelForSequenceClassification` loads, with its tokenizer, a hub
            id, or a pair of a model and its `transformers` tokenizer.
        label: which label is paid: its name, or its index where none has that name. By default the
            one named ``positive`` or ``pos``, else the last.
        output: what is paid: ``"probability"`` in [0, 1], ``"log_probability"`` in (-inf, 0],
            ``"logit"`` in (-inf, inf).
        text: what is read: the ``"completion"`` alone, ``"prompt+completion"`` as one text, or the
            whole ``"context"``, with the replies in a dialogue.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        max_tokens: the most tokens that are read, special ones included, or fewer where the model
            can read no more. Of a longer text the prompt loses its beginning, until it has half of
            them; then the completion (of a context: the last turn) loses its end, which goes
            unjudged.
        name: its name in `info["rewards"]`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it cannot be loaded, is no classifier of texts, or has no such label.

    Example:
        ``Classifier("runs/positive", label="positive").value("a delight from start to end")``
    """

    def __init__(
        self,
        model: Judge,
        *,
        label: str | int | None = None,
        output: Output = "probability",
        text: Reads = "completion",
        device: str = "auto",
        max_tokens: int = 512,
        name: str = "classifier",
    ) -> None:
        check_choice("output", output, get_args(Output))
        check_choice("text", text, get_args(Reads))
        self.name = name
        self.output, self.text = output, text
        self.range = _RANGES[output]
        self._source, self._device = model, device
        loaded, tokenizer = self._judge()
        _check(loaded, tokenizer, model, text)
        self.label = label_index(loaded.config.id2label, label)
        self._limit = reading_limit(loaded, tokenizer, max_tokens)
        self._cache = TextCache()

    def _judge(self) -> tuple[Any, Any]:
        # Looked up at each use, not kept: copies of this reward then share the model.
        from transformers import AutoModelForSequenceClassification

        return shared_model(AutoModelForSequenceClassification, self._source, self._device)

    def value(self, text: str, prompt: str = "") -> float:
        """The reward of the completion `text`, of `prompt` where that is read."""
        prompt = "" if self.text == "completion" else prompt
        return float(self._values([self._cut(prompt, text)])[0])

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in `range`."""
        return self._values([self._cut(*self._read(e)) for e in episodes]).astype(np.float32)

    def _read(self, episode: Episode) -> _Text:
        if self.text == "completion":
            return "", episode.completion_text
        if self.text == "context" and episode.turns:
            *before, last = [turn.text for turn in episode.turns]
            return "".join([episode.prompt, *before]), last
        return episode.prompt, episode.completion_text

    def _cut(self, prompt: str, completion: str) -> _Text:
        """No more of the texts than can matter."""
        room = self._limit * _CHARACTERS
        return sound(prompt[-room:]), sound(completion[:room])

    def _values(self, texts: list[_Text]) -> NDArray[np.float64]:
        return self._cache.lookup(texts, self._judged)

    def _judged(self, texts: list[_Text]) -> NDArray[np.float64]:
        model, tokenizer = self._judge()
        fitting = [fitted(tokenizer, *text, self._limit) for text in texts]
        found = logits(model, encode(tokenizer, fitting, self._limit))
        kind = getattr(model.config, "problem_type", None)
        exclusive = found.shape[1] > 1 and kind != "multi_label_classification"
        return of_label(found, self.label, self.output, exclusive=exclusive)


def label_index(names: Mapping[int, str], label: str | int | None) -> int:
    """The index of `label`, a name (whatever its case) or an index; None chooses.

    Raises:
        ValueError: there is no such label.

    Example:
        >>> names = {0: "negative", 1: "positive", 2: "mixed"}
        >>> label_index(names, None), label_index(names, "Mixed"), label_index(names, 0)
        (1, 2, 0)
    """
    folded = {str(name).casefold(): int(index) for index, name in names.items()}
    if label is None:
        return folded.get("positive", folded.get("pos", len(names) - 1))
    wanted = str(label).strip().casefold()
    if wanted in folded:
        return folded[wanted]
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    known = [str(name) for name in names.values()]
    raise ValueError(
        f"`label`: the model has no label {label!r}; {near_matches(str(label), known)}"
    )


def _check(model: Any, tokenizer: Any, source: Judge, text: Reads) -> None:
    """Raise `ValueError` for what loads, and yet cannot judge."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        raise ValueError(f"model: {type(model).__name__} is no classifier of texts.")
    # A language model loads as a classifier, too: with a random head.
    stored = getattr(model.config, "architectures", None) or ["SequenceClassification"]
    if not isinstance(source, tuple) and not any("SequenceClassification" in s for s in stored):
        raise ValueError(
            f"model: {source} holds a {stored[0]}, which is no classifier of texts. Give one, or "
            f"make one of it: `textgym fit-reward --base {source}`."
        )
    if text != "completion" and not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"model: {type(tokenizer).__name__} does not tell which characters a token holds, so "
            'that prompts cannot be cut. Give a fast one (tokenizer.json), or `text="completion"`.'
        )


def fitted(tokenizer: Any, prompt: str, completion: str, limit: int) -> str:
    """Prompt and completion as one text; where that has too many tokens, less of the prompt.

    The prompt keeps its last tokens: as many as the completion leaves, and at least half of
    `limit`.
    """
    if not prompt:
        return completion
    whole = tokenizer(prompt + completion, split_special_tokens=True, verbose=False)
    excess = len(whole["input_ids"]) - limit
    starts = [
        start
        for start, _ in tokenizer(
            prompt,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )["offset_mapping"]
    ]
    dropped = min(excess, len(starts) - limit // 2)
    return prompt[starts[dropped] if dropped > 0 else 0 :] + completion


def encode(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids of `texts`, at least one each, and no more than their first `limit`.

    What an agent writes is text, though it spell a special token.
    """
    if not texts:
        return []
    rows = tokenizer(
        list(texts), truncation=True, max_length=limit, split_special_tokens=True, verbose=False
    )["input_ids"]
    known = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id, 0)
    nothing = next(token for token in known if token is not None)
    return [row or [nothing] for row in rows]


@torch.no_grad()
def logits(model: Any, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """`[S, labels] float64` for the token ids `rows`."""
    found = np.zeros((len(rows), model.config.num_labels))
    device = next(model.parameters()).device
    pad = getattr(model.config, "pad_token_id", None)
    lengths = [len(row) for row in rows]
    # Without a padding token a causal model cannot tell where a padded text ends.
    for batch in batches_by_length(lengths, 16384 if pad is not None else 1):
        ids, mask = padded([rows[i] for i in batch], device)
        ids = ids.masked_fill(mask == 0, pad or 0)
        out = forward(model, ids, mask).logits
        found[batch] = out.double().cpu().numpy()
    return found


def of_label(
    found: NDArray[np.float64], label: int, output: str, *, exclusive: bool
) -> NDArray[np.float64]:
    """`[S]`, the logit, log-probability or probability of one label.

    Args:
        found: `[S, labels]` logits.
        label: its index.
        output: one of `Output`.
        exclusive: softmax over the labels; otherwise each has a sigmoid of its own.
    """
    chosen = found[:, label]
    if output == "logit":
        return chosen
    if exclusive:
        log_probability = chosen - np.logaddexp.reduce(found, axis=1)
    else:
        log_probability = -np.logaddexp(0.0, -chosen)
    log_probability = np.minimum(log_probability, 0.0)
    return log_probability if output == "log_probability" else np.exp(log_probability)
