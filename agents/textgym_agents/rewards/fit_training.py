"""Training a classifier of texts, or a preference model, on examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textgym_agents.rewards.classifier import encode, fitted, logits
from textgym_agents.rewards.fit_calibration import fit_temperature, nll
from textgym_agents.rewards.fit_data import Examples, Text
from textgym_agents.rewards.models import forward, padded

# Batches are made of texts of similar length, out of so many at a time.
_SORTED_BATCHES = 16
_WARM_UP = 50


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: the most passes through the data; the best one is kept.
        learning_rate: the greatest; it rises over 50 steps and falls linearly to 0.
        batch_size: examples a step.
        weight_decay: of AdamW, on matrices.
        word_dropout: the share of tokens that are hidden (as unknown) while learning.
        consistency: weight of the divergence between what two looks at a text, each with dropout
            and hidden words of its own, make of it (R-Drop); 0 looks once.
        averaged: whether to keep a running average of the weights, over a fifth of all steps.
        patience: epochs without improvement after which to stop.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 0.1
    word_dropout: float = 0.0
    consistency: float = 0.0
    averaged: bool = False
    patience: int = 3


@dataclass
class Trained:
    """What training led to.

    Args:
        model: the best one, in eval mode.
        best_epoch: from 1 on.
        history: of each epoch: training loss, held-out loss (calibrated) and accuracy.
    """

    model: nn.Module
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class TextJudge:
    """A model and its tokenizer: what it makes of texts.

    Args:
        model: gives one logit, or one a label.
        tokenizer: of `transformers`.
        max_tokens: read of a text.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int) -> None:
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens

    def ids(self, texts: tuple[Text, ...] | list[Text]) -> list[list[int]]:
        """Token ids, as `Classifier` reads them."""
        whole = [fitted(self.tokenizer, *text, self.max_tokens) for text in texts]
        return encode(self.tokenizer, whole, self.max_tokens)

    def logits(self, texts: tuple[Text, ...] | list[Text]) -> NDArray[np.float64]:
        """`[S, labels]`."""
        return logits(self.model, self.ids(texts))

    def decisions(self, examples: Examples) -> NDArray[np.float64]:
        """`[N, C]`, logits whose softmax says which label, or which of a pair, is right."""
        if not examples.pairs:
            return self.logits(examples.texts[0])
        return np.concatenate([self.logits(column) for column in examples.texts], axis=1)


def train(
    judge: TextJudge,
    examples: Examples,
    chosen_by: Examples,
    recipe: Recipe,
    seed: int,
    on_step: Callable[[int, dict[str, float]], None] = lambda done, figures: None,
) -> Trained:
    """Fit the model of `judge` in place: cross-entropy for labels, Bradley-Terry for pairs.

    Args:
        judge: the model to train.
        examples: to learn from.
        chosen_by: held out, to choose the best epoch by: the one with the least loss after
            temperature scaling.
        recipe: how.
        seed: of the order of examples, dropout and hidden words.
        on_step: told examples done, and figures at the end of an epoch.

    Raises:
        ValueError: the loss is not finite.

    Source: Bradley and Terry (1952); Wu et al. (2021), "R-Drop", for the consistency.
    """
    model = judge.model
    learner = _Learner(judge, examples, recipe, seed)
    trained, best = Trained(model), (np.inf, model.state_dict())
    for epoch in range(1, recipe.epochs + 1):
        before = (epoch - 1) * len(examples)
        losses = learner.epoch(lambda done, before=before: on_step(before + done, {}))
        with learner.average or nullcontext():
            model.eval()
            figures = {"loss": float(np.mean(losses)), **_figures(judge, chosen_by)}
            if figures["held-out loss"] < best[0]:
                best = figures["held-out loss"], copy.deepcopy(model.state_dict())
                trained.best_epoch = epoch
        trained.history.append(figures)
        on_step(epoch * len(examples), figures)
        if epoch - trained.best_epoch >= recipe.patience:
            break
    if not trained.best_epoch:
        raise ValueError(
            f"training led nowhere: the loss is {trained.history[0]['held-out loss']}. Lower "
            f"--learning-rate, which was {recipe.learning_rate:g}."
        )
    model.load_state_dict(best[1])
    return trained


class _Learner:
    """Takes the steps of `train`."""

    def __init__(self, judge: TextJudge, examples: Examples, recipe: Recipe, seed: int) -> None:
        self.judge, self.recipe = judge, recipe
        self.columns = [judge.ids(column) for column in examples.texts]
        self.labels = torch.from_numpy(examples.labels)
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)  # of dropout, which knows no other
        self.steps = recipe.epochs * -(-len(examples) // recipe.batch_size)
        self.step = 0
        self.optimizer = _optimizer(judge.model, recipe)
        averaged = recipe.averaged
        self.average = _Average(judge.model, max(1, self.steps // 5)) if averaged else None
        self.hidden = judge.tokenizer.unk_token_id if recipe.word_dropout else None

    def epoch(self, on_step: Callable[[int], None]) -> list[float]:
        """The losses of one pass; `on_step` is told the examples done."""
        model, recipe = self.judge.model, self.recipe
        model.train()
        losses = []
        for done, rows in _batches(self.columns, recipe.batch_size, self.rng):
            share = min((self.step + 1) / min(_WARM_UP, self.steps), 1.0 - self.step / self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * min(1.0, share)
            labels = self.labels[rows]
            loss = _loss(self.judge, self.columns, rows, labels, self.hidden, recipe)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            losses.append(float(loss.detach()))
            if self.average is not None:
                self.average.update()
            on_step(done)
        return losses


def _figures(judge: TextJudge, chosen_by: Examples) -> dict[str, float]:
    found = judge.decisions(chosen_by)
    loss = np.nan  # of logits that are not finite, which no temperature would mend
    if np.isfinite(found).all():
        loss = nll(found / fit_temperature(found, chosen_by.labels), chosen_by.labels)
    accuracy = float((found.argmax(axis=1) == chosen_by.labels).mean())
    return {"held-out loss": loss, "held-out accuracy": accuracy}


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _batches(
    columns: list[list[list[int]]], size: int, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Examples done after it, and rows, of each batch; those of a batch are of similar length."""
    order = rng.permutation(len(columns[0]))
    lengths = np.array([sum(map(len, row)) for row in zip(*columns, strict=True)])
    batches = []
    for start in range(0, len(order), size * _SORTED_BATCHES):
        part = order[start : start + size * _SORTED_BATCHES]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    done = 0
    for i in rng.permutation(len(batches)):
        done += len(batches[i])
        yield done, batches[i]


def _loss(
    judge: TextJudge,
    columns: list[list[list[int]]],
    rows: NDArray[np.int64],
    labels: Tensor,
    hidden: int | None,
    recipe: Recipe,
) -> Tensor:
    """The mean negative log-likelihood of `rows`, and what their looks at the texts disagree by."""
    model = judge.model
    device = next(model.parameters()).device
    labels = labels.to(device)
    looks = 2 if recipe.consistency else 1
    ids, mask = padded([column[i] for column in columns for i in rows], device)
    ids = ids.masked_fill(mask == 0, model.config.pad_token_id).repeat(looks, 1)
    if hidden is not None:
        special = torch.isin(ids, torch.tensor(judge.tokenizer.all_special_ids, device=device))
        chosen = torch.rand(ids.shape, device=device) < recipe.word_dropout
        ids = ids.masked_fill(chosen & ~special, hidden)
    logits = forward(model, ids, mask.repeat(looks, 1)).logits.float()
    decisions = []
    for look in logits.chunk(looks):
        # Of a pair, the outputs of both are the logits of which is preferred: Bradley-Terry.
        both = look if len(columns) == 1 else torch.cat(look.chunk(2), dim=1)
        decisions.append(both.log_softmax(dim=1))
    loss = torch.stack([nn.functional.nll_loss(one, labels) for one in decisions]).mean()
    if looks == 2:
        a, b = decisions
        loss = loss + recipe.consistency / 4 * ((a.exp() - b.exp()) * (a - b)).sum(dim=1).mean()
    return loss


class _Average:
    """A running average of weights, which `model` has while entered.

    Args:
        model: that trains.
        horizon: steps over which it averages.
    """

    def __init__(self, model: nn.Module, horizon: int) -> None:
        self.parameters = list(model.parameters())
        self.mean = [p.detach().clone() for p in self.parameters]
        self.own: list[Tensor] = []
        self.horizon, self.count = horizon, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of now."""
        self.count += 1
        # A plain mean first: the random weights of the start have no part in it.
        share = 1.0 / min(self.count, self.horizon)
        for mean, now in zip(self.mean, self.parameters, strict=True):
            mean.lerp_(now, share)

    @torch.no_grad()
    def __enter__(self) -> None:
        self.own = [p.detach().clone() for p in self.parameters]
        for now, mean in zip(self.parameters, self.mean, strict=True):
            now.copy_(mean)

    @torch.no_grad()
    def __exit__(self, *exception: object) -> None:
        for now, own in zip(self.parameters, self.own, strict=True):
            now.copy_(own)
