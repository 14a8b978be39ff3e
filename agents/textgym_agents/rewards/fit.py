"""Fit a reward model to labelled texts or preferences, and find out how far it can be trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from textgym_agents.rewards.classifier import label_index
from textgym_agents.rewards.fit_calibration import (
    Bin,
    auc,
    calibration_error,
    fit_temperature,
    fold,
    nll,
    reliability,
)
from textgym_agents.rewards.fit_checks import (
    BestOfN,
    Overpaid,
    best_of_n,
    curve_means,
    degenerate_texts,
    overpaid,
)
from textgym_agents.rewards.fit_data import Examples, Text, hold_out, read_examples, split
from textgym_agents.rewards.fit_model import pretrained, small_encoder
from textgym_agents.rewards.fit_training import Recipe, TextJudge, Trained, train

# Smaller pretrained models take, and need, larger steps.
_LARGE = 20_000_000

# Told a stage, examples done in it, and figures at the end of an epoch.
Progress = Callable[[str, int, dict[str, float]], None]


@dataclass(frozen=True)
class FitOptions:
    """Everything that determines a fit.

    Args:
        train: a TSV, CSV, JSONL or Parquet file: texts and labels, or columns `chosen`, `rejected`
            and maybe `prompt`.
        dev: held-out examples; None holds out a tenth of `train`.
        base: a model to start from; None makes a small encoder and trains it from scratch.
        text_column: the column of texts.
        label_column: the column of labels.
        label: the one that the reward is to pay; None is ``positive``, else the last.
        epochs: the most; None is 8 from scratch, 3 from a base.
        learning_rate: None chooses: 1e-3 from scratch, 5e-5 for a large base, 5e-4 for a small one.
        batch_size: examples a step.
        max_tokens: read of a text.
        seed: of weights, order and choice.
        best_of_n: whether to fit two more models, on halves, for the curve of best-of-n.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
    """

    train: str
    dev: str | None = None
    base: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    label: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int = 64
    max_tokens: int = 256
    seed: int = 0
    best_of_n: bool = True
    device: str = "auto"

    @property
    def most_epochs(self) -> int:
        """Epochs, where not given those that suit the model."""
        return self.epochs or (3 if self.base else 8)


@dataclass(frozen=True)
class HeldOut:
    """How good a model is on examples that played no part in making it.

    Args:
        accuracy: the share it is right about (of pairs: whose preferred text scores more).
        majority: the share that always giving the most frequent label is right about.
        auc: of the paid label against the rest; None for pairs.
        loss: nats an example, before and after temperature scaling.
        calibration_error: expected, before and after.
        before: reliability of the probabilities before temperature scaling.
        after: and after.
    """

    accuracy: float
    majority: float
    auc: float | None
    loss: tuple[float, float]
    calibration_error: tuple[float, float]
    before: list[Bin]
    after: list[Bin]


@dataclass
class Fit:
    """A fitted reward model and what is known of it.

    Args:
        judge: model and tokenizer, calibrated.
        label: the name of the label to pay; None for pairs.
        examples: how many there were of each part and label.
        trained: how training went.
        temperature: that was folded into the model.
        held_out: its figures.
        dev_accuracy: on all held-out examples, those included by which the epoch was chosen.
        overpaid: worthless texts and what they are paid.
        curve: best-of-n; empty where it could not be had.
        no_curve: why not.
    """

    judge: TextJudge
    label: str | None
    examples: dict[str, Any]
    trained: Trained
    temperature: float
    held_out: HeldOut
    dev_accuracy: float
    overpaid: Overpaid
    curve: list[BestOfN] = field(default_factory=list)
    no_curve: str | None = None

    @property
    def curve_means(self) -> str:
        """What the curve says."""
        return curve_means(self.curve) if self.curve else ""

    def save(self, folder: Path) -> None:
        """Write the model as Hugging Face files."""
        self.judge.model.save_pretrained(folder)
        self.judge.tokenizer.save_pretrained(folder)

    def figures(self) -> dict[str, Any]:
        """All that is known, as plain data."""
        model = self.judge.model
        return {
            "label": self.label,
            "examples": self.examples,
            "parameters": sum(p.numel() for p in model.parameters()),
            "best_epoch": self.trained.best_epoch,
            "history": self.trained.history,
            "temperature": self.temperature,
            "dev_accuracy": self.dev_accuracy,
            "held_out": dataclasses.asdict(self.held_out),
            "worthless": {
                "share": self.overpaid.share,
                "means": self.overpaid.means,
                **dataclasses.asdict(self.overpaid),
            },
            "best_of_n": [dataclasses.asdict(row) for row in self.curve],
            "best_of_n_means": self.curve_means,
            "no_best_of_n": self.no_curve,
        }


def read(options: FitOptions) -> tuple[Examples, Examples, Examples]:
    """Examples to learn from, to choose by, and to report on.

    Raises:
        FileNotFoundError, ValueError: a file that is missing or cannot be used.
    """
    columns = (options.text_column, options.label_column)
    examples = read_examples(options.train, *columns)
    dev = None
    if options.dev is not None:
        dev = read_examples(options.dev, *columns, examples.names, pairs=examples.pairs)
    if not examples.pairs:
        label_index(dict(enumerate(examples.names)), options.label)
    return hold_out(examples, dev, np.random.default_rng((options.seed, 0)))


def fit(
    options: FitOptions,
    parts: tuple[Examples, Examples, Examples],
    progress: Progress = lambda stage, done, figures: None,
) -> Fit:
    """Fit a reward model to what `read` gave.

    Args:
        options: how.
        parts: examples to learn from, to choose by, to report on.
        progress: told how far it is; stages are ``"reward"``, ``"proxy"`` and ``"gold"``.
    """
    with torch.random.fork_rng():
        return _fit(options, parts, progress)


def _fit(
    options: FitOptions, parts: tuple[Examples, Examples, Examples], progress: Progress
) -> Fit:
    examples, chosen_by, reported = parts
    label = None if examples.pairs else label_index(dict(enumerate(examples.names)), options.label)
    judge, trained = _trained(options, examples, chosen_by, options.seed, "reward", progress)
    found, raw = judge.decisions(chosen_by), judge.decisions(reported)
    temperature = fit_temperature(found, chosen_by.labels)
    held_out = _held_out(raw, reported, label, temperature)
    right = np.concatenate(
        [found.argmax(axis=1) == chosen_by.labels, raw.argmax(axis=1) == reported.labels]
    )
    # A preference is about differences: scores are moved so that the mean one is 0.
    fold(judge.model, temperature, float(found.mean()) if examples.pairs else 0.0)
    if not np.allclose(
        _log_softmax(judge.decisions(reported)), _log_softmax(raw / temperature), atol=1e-3
    ):
        raise ValueError(
            f"model: the logits of {type(judge.model).__name__} are not those of its last linear "
            "layer, so that it cannot be calibrated. Give another --base."
        )
    curve, no_curve = _curve(options, parts, label, progress)
    return Fit(
        judge,
        None if label is None else examples.names[label],
        {
            name: {"count": len(part), "labels": part.counts()}
            for name, part in zip(("train", "chosen_by", "reported"), parts, strict=True)
        },
        trained,
        temperature,
        held_out,
        float(right.mean()),
        _overpaid(judge, examples, reported, label, np.random.default_rng((options.seed, 1))),
        curve,
        no_curve,
    )


def _trained(
    options: FitOptions,
    examples: Examples,
    chosen_by: Examples,
    seed: int,
    stage: str,
    progress: Progress,
) -> tuple[TextJudge, Trained]:
    if options.base is None:
        judge = small_encoder(examples, options.max_tokens, seed)
        rate, more = 1e-3, {"word_dropout": 0.4, "consistency": 1.0, "averaged": True}
    else:
        torch.manual_seed(seed)
        judge = pretrained(options.base, examples, options.max_tokens)
        large = sum(p.numel() for p in judge.model.parameters()) > _LARGE
        rate, more = 5e-5 if large else 5e-4, {}
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    judge.model.to(device)
    recipe = Recipe(
        options.most_epochs,
        options.learning_rate or rate,
        options.batch_size,
        **more,
    )

    def on_step(done: int, figures: dict[str, float]) -> None:
        progress(stage, done, figures)

    return judge, train(judge, examples, chosen_by, recipe, seed, on_step)


def _score(judge: TextJudge, label: int | None) -> Callable[[list[Text]], NDArray[np.float64]]:
    """What `judge` gives texts: log-odds of `label`, or the one output."""

    def score(texts: list[Text]) -> NDArray[np.float64]:
        found = judge.logits(texts)
        if label is None:
            return found[:, 0]
        return found[:, label] - np.logaddexp.reduce(np.delete(found, label, axis=1), axis=1)

    return score


def _log_softmax(found: NDArray[np.float64]) -> NDArray[np.float64]:
    return found - np.logaddexp.reduce(found, axis=1, keepdims=True)


def _held_out(
    raw: NDArray[np.float64], examples: Examples, label: int | None, temperature: float
) -> HeldOut:
    labels = examples.labels
    bins = []
    for logits in (raw, raw / temperature):
        probabilities = np.exp(_log_softmax(logits))
        if label is None:  # each pair in both orders, so that there are two kinds
            of, positive = probabilities.T.ravel(), np.repeat([True, False], len(labels))
        else:
            of, positive = probabilities[:, label], labels == label
        bins.append(reliability(of, positive))
    frequent = float(np.bincount(labels).max() / len(labels)) if examples.names else 0.5
    return HeldOut(
        accuracy=float((raw.argmax(axis=1) == labels).mean()),
        majority=frequent,
        auc=None if label is None else auc(_log_softmax(raw)[:, label], labels == label),
        loss=(nll(raw, labels), nll(raw / temperature, labels)),
        calibration_error=(calibration_error(bins[0]), calibration_error(bins[1])),
        before=bins[0],
        after=bins[1],
    )


def _positives(examples: Examples, label: int | None) -> list[Text]:
    column = examples.texts[0]
    return [
        text for text, of in zip(column, examples.labels, strict=True) if label in (None, int(of))
    ]


def _overpaid(
    judge: TextJudge,
    examples: Examples,
    reported: Examples,
    label: int | None,
    rng: np.random.Generator,
) -> Overpaid:
    score = _score(judge, label)
    texts = [text for column in examples.texts for text in column]
    kinds = degenerate_texts(_positives(examples, label), texts, score, rng)
    return overpaid(kinds, score(_positives(reported, label)), score)


def _curve(
    options: FitOptions,
    parts: tuple[Examples, Examples, Examples],
    label: int | None,
    progress: Progress,
) -> tuple[list[BestOfN], str | None]:
    """Best-of-n of a model of one half of the training examples, as one of the other half sees it.

    Two models of halves, for what a model of all has learnt wrong, one of a half would confirm.
    """
    examples, chosen_by, reported = parts
    if not options.best_of_n:
        return [], "it was not asked for"
    if examples.pairs and any(prompt for prompt, _ in reported.texts[0]):
        return [], "scores of answers to different prompts cannot be compared"
    halves = split(examples, 0.5, np.random.default_rng((options.seed, 2)))
    if min(map(len, halves)) < options.batch_size or any(0 in h.counts().values() for h in halves):
        return [], "there are too few examples for two models"
    pool = [text for column in reported.texts for text in column]
    scores = []
    for number, (stage, half) in enumerate(zip(("proxy", "gold"), halves, strict=True), 1):
        judge, _ = _trained(options, half, chosen_by, options.seed + number, stage, progress)
        scores.append(_score(judge, label)(pool))
    positive = None if label is None else reported.labels == label
    return best_of_n(scores[0], scores[1], positive), None
