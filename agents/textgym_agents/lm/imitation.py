"""Supervised fine-tuning: a language model learns to write what an oracle writes.

The loss is on the agent's own tokens alone; prompts and a task's replies are context.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from textgym import Episode, Task, Tokenizer
from textgym.demonstrations import demonstrate
from textgym.seeding import Split, instance_rng
from textgym_agents.lm.language_model import LanguageModel
from textgym_agents.lm.log_probs import token_log_probs
from textgym_agents.lm.seq2seq_slots import ONE_PROMPT

# Labels that count for nothing, as `cross_entropy` and Hugging Face models have them.
IGNORED = -100
# Episodes are sorted by length among so many batches at a time: less padding, still random.
_POOL = 16

Batch = tuple[Tensor, Tensor]


def demonstrations(task: Task, tokenizer: Tokenizer, split: Split, seed: int) -> Iterator[Episode]:
    """The oracle's episodes on one instance after another, without end."""
    for index in itertools.count():
        instance = task.draw(instance_rng(seed, split, 0, index), split)
        yield demonstrate(task, instance, tokenizer)


def collate(episodes: Sequence[Episode]) -> Batch:
    """`[B, T] int64` ids, right-padded with 0, and labels: `IGNORED` off the agent's tokens."""
    width = max(len(episode.input_ids) for episode in episodes)
    tokens = torch.zeros((len(episodes), width), dtype=torch.int64)
    labels = torch.full((len(episodes), width), IGNORED)
    for row, episode in enumerate(episodes):
        count = len(episode.input_ids)
        ids = torch.tensor(episode.input_ids)
        tokens[row, :count] = ids
        labels[row, :count] = ids.where(torch.tensor(episode.completion_mask), IGNORED)
    return tokens, labels


def batches(episodes: Iterable[Episode], batch_size: int) -> Iterator[Batch]:
    """Batches of `batch_size` episodes of about equal length."""
    stream = iter(episodes)
    generator = torch.Generator().manual_seed(0)
    while pool := list(itertools.islice(stream, _POOL * batch_size)):
        pool.sort(key=lambda episode: len(episode.input_ids))
        parts = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        for i in torch.randperm(len(parts), generator=generator).tolist():
            yield collate(parts[i])


def imitation_loss(lm: LanguageModel, tokens: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labelled tokens, nats a token.

    Args:
        lm: the language model.
        tokens: `[B, T] int64`.
        labels: `[B, T] int64`, `IGNORED` where a token counts for nothing.

    Raises:
        ValueError: an encoder-decoder model, and labels in several turns.
    """
    wanted = labels[:, 1:] != IGNORED
    # Logits are made only where a label stands, which in a dialogue is seldom.
    index = torch.nonzero(torch.nn.functional.pad(wanted, (0, 1)).flatten())[:, 0]
    prompts = _prompt_lengths(wanted) if lm.needs_prompt_lengths else None
    hidden = lm.states(tokens, index, prompts)  # [n, d]
    log_probs, _ = token_log_probs(hidden, lm.head, labels[:, 1:][wanted])
    return -log_probs.mean()


def _prompt_lengths(wanted: Tensor) -> Tensor:
    """`[B] int64`, where an encoder stops reading: before the first token with a label."""
    first = wanted.long().argmax(dim=1)
    last = wanted.shape[1] - 1 - wanted.flip(1).long().argmax(dim=1)
    count = wanted.sum(dim=1)
    if ((count > 0) & (last - first + 1 != count)).any():
        raise ValueError(ONE_PROMPT)
    return first + 1


@torch.no_grad()
def held_out_loss(lm: LanguageModel, held_out: Sequence[Batch]) -> float:
    """Mean loss over all labelled tokens of `held_out`, nats a token."""
    total, count = 0.0, 0
    for tokens, labels in held_out:
        n = int((labels[:, 1:] != IGNORED).sum())
        total += n * imitation_loss(lm, tokens.to(lm.device), labels.to(lm.device)).item()
        count += n
    return total / count


def warmup_cosine(step: int, steps: int, *, warmup: float = 0.05, floor: float = 0.05) -> float:
    """The share of the learning rate at `step`: a linear rise, then a cosine down to `floor`.

    >>> warmup_cosine(0, 100) < warmup_cosine(5, 100) > warmup_cosine(99, 100)
    True
    """
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1.0, steps - rise)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def adamw(lm: LanguageModel, learning_rate: float, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW as language models are trained with it: vectors have no weight decay."""
    parameters = [p for p in lm.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95))


def fit(
    lm: LanguageModel,
    stream: Iterable[Batch],
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    steps: int,
    max_grad_norm: float = 1.0,
    on_step: Callable[[int, float], bool] = lambda done, loss: True,
) -> int:
    """Train `lm` in place, a step a batch; learning rates rise and fall as `warmup_cosine` says.

    Args:
        lm: the language model.
        stream: batches, at least `steps` of them.
        optimizers: what steps; the learning rates they come with are the peaks.
        steps: how many steps the schedule has.
        max_grad_norm: gradients are clipped to this norm.
        on_step: told the steps done and the last loss; False stops.

    Returns:
        The number of steps done.
    """
    parameters = [p for p in lm.parameters() if p.requires_grad]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peaks = [group["lr"] for group in groups]
    done = 0
    for tokens, labels in itertools.islice(stream, steps):
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * warmup_cosine(done, steps)
        loss = imitation_loss(lm, tokens.to(lm.device), labels.to(lm.device))
        lm.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        done += 1
        if not on_step(done, loss.item()):
            break
    return done
