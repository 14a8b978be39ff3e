"""The data a reward is fitted to: texts with labels, or pairs of which one is preferred."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textgym.data import Rows, as_texts, read_rows, read_text

# More are hardly classes.
_MOST_CLASSES = 100
# Held-out rows: half of them choose temperature and epoch, half are for the figures.
LEAST_HELD_OUT = 20
_HELD_OUT_SHARE = 0.1
_REMEDY = "Name the columns with --text-column and --label-column."

# A prompt, which may be empty, and what is judged.
Text = tuple[str, str]


@dataclass(frozen=True)
class Examples:
    """Labelled texts, or pairs.

    Args:
        texts: a column an answer: one of labelled texts; of pairs the preferred and the other.
        labels: `[N] int64`, an index of `names`; all 0 for pairs.
        names: of the labels; none for pairs.
    """

    texts: tuple[tuple[Text, ...], ...]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pairs(self) -> bool:
        """Whether these are pairs."""
        return len(self.texts) == 2

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Examples:
        """Those of `rows`."""
        columns = tuple(tuple(column[i] for i in rows) for column in self.texts)
        return Examples(columns, self.labels[np.asarray(rows, np.int64)], self.names)

    def keys(self) -> list[Text | str]:
        """What may not be in two parts of the data at once: the prompt, else the text."""
        return [text[0] or text for text in self.texts[0]]

    def counts(self) -> dict[str, int]:
        """Examples of each label."""
        found = Counter(self.labels.tolist())
        return {name: found[i] for i, name in enumerate(self.names)}


def read_examples(
    source: str | os.PathLike[str],
    text_column: str = "text",
    label_column: str = "label",
    names: Sequence[str] | None = None,
    *,
    pairs: bool | None = None,
) -> Examples:
    """The examples in a TSV, CSV, JSONL or Parquet file.

    Columns `chosen` and `rejected` (and maybe `prompt`) make pairs; else the text and label columns
    are read. A TSV or CSV file of two columns without a line of names holds texts and labels.

    Args:
        source: the file.
        text_column: the column of texts.
        label_column: the column of labels.
        names: the labels there may be, those of the training file.
        pairs: what it must hold; None is either.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no usable examples; names the file, the line and what to do.
    """
    columns = _columns(source)
    is_pairs = "chosen" in columns and "rejected" in columns
    if pairs is not None and pairs != is_pairs:
        kinds = ("labelled texts", "pairs (columns `chosen`, `rejected`)")
        raise ValueError(f"{source}: expected {kinds[pairs]}, as in the training file.")
    if is_pairs:
        return _read_pairs(source, columns)
    wanted = [text_column, label_column]
    header = wanted if _headless(source, columns, wanted) else None
    rows = read_rows(source, wanted, name="file", header=header, remedy=_REMEDY)
    texts = as_texts(rows, text_column)
    labels, names = _labels(rows, label_column, names, source)
    return Examples((tuple(("", text) for text in texts),), labels, names)


def split(examples: Examples, share: float, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """All but about `share` of `examples`, and these; none with the text or prompt of another."""
    keys = examples.keys()
    distinct = list(dict.fromkeys(keys))
    count = round(share * len(distinct))
    second = {distinct[i] for i in rng.permutation(len(distinct))[:count]}
    parts = [[i for i, key in enumerate(keys) if (key in second) == part] for part in (False, True)]
    return examples.take(parts[0]), examples.take(parts[1])


def hold_out(
    train: Examples, dev: Examples | None, rng: np.random.Generator
) -> tuple[Examples, Examples, Examples]:
    """Examples to learn from, to choose by, and to report on; no text is in two of them.

    Args:
        train: all there are, or those besides `dev`.
        dev: held-out ones, whose texts are left out of the training; None takes a tenth of `train`.
        rng: of the choice.

    Raises:
        ValueError: too few.
    """
    if dev is None:
        share = min(0.5, max(_HELD_OUT_SHARE, 2 * LEAST_HELD_OUT / len(train)))
        train, dev = split(train, share, rng)
    held_out = set(dev.keys())
    train = train.take([i for i, key in enumerate(train.keys()) if key not in held_out])
    chosen_by, reported = split(dev, 0.5, rng)
    if min(len(chosen_by), len(reported)) < LEAST_HELD_OUT // 2 or len(train) < LEAST_HELD_OUT:
        raise ValueError(
            f"there are {len(train)} examples to learn from and {len(dev)} different ones held "
            f"out; at least {LEAST_HELD_OUT} of each are needed. Give more."
        )
    for part, of in ((train, "to learn from"), (chosen_by, "held out"), (reported, "held out")):
        missing = [name for name, count in part.counts().items() if count == 0]
        if missing:
            raise ValueError(
                f"no example {of} has the label {missing[0]!r}. Give more of them, or leave that "
                "label out."
            )
    return train, chosen_by, reported


def _read_pairs(source: str | os.PathLike[str], columns: Sequence[str]) -> Examples:
    prompted = "prompt" in columns
    wanted = ["chosen", "rejected", *(["prompt"] if prompted else [])]
    rows = read_rows(source, wanted, name="file")
    prompts = as_texts(rows, "prompt") if prompted else [""] * len(rows)
    both = tuple(
        tuple(zip(prompts, as_texts(rows, column), strict=True))
        for column in ("chosen", "rejected")
    )
    for row, chosen, rejected in zip(rows, *both, strict=True):
        if chosen == rejected:
            raise ValueError(
                f"{row.where}: `chosen` and `rejected` are the same text. Leave the row out."
            )
    return Examples(both, np.zeros(len(rows), np.int64))


def _labels(
    rows: Rows, column: str, names: Sequence[str] | None, source: str | os.PathLike[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    said = []
    for row in rows:
        label = row[column]
        if isinstance(label, list | dict) or label is None or not str(label).strip():
            raise ValueError(
                f"{row.where}: {column!r} must be a label, got {label!r}. Correct the row or leave "
                "it out."
            )
        said.append(str(label).strip().lower() if isinstance(label, bool) else str(label).strip())
    found = _ordered(set(said))
    if names is None:
        if not 2 <= len(found) <= min(_MOST_CLASSES, len(rows) // 2):
            raise ValueError(
                f"{source}: {column!r} has {len(found)} different values in {len(rows)} rows, "
                f"such as {found[0]!r}; expected from 2 to {_MOST_CLASSES} classes. {_REMEDY}"
            )
        # What 0 and 1 mean is known; a name tells it to those who load the model.
        names = ("negative", "positive") if found == ("0", "1") else found
    index = {name: i for i, name in enumerate(names)}
    if tuple(names) == ("negative", "positive"):
        index |= {"0": 0, "1": 1}
    for row, label in zip(rows, said, strict=True):
        if label not in index:
            raise ValueError(
                f"{row.where}: the label {label!r} is none of those to learn from: "
                f"{', '.join(names)}."
            )
    return np.array([index[label] for label in said], np.int64), tuple(names)


def _ordered(labels: set[str]) -> tuple[str, ...]:
    """By number where all are numbers, else by name."""
    try:
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def _columns(source: str | os.PathLike[str]) -> list[str]:
    """The fields of the first line, or the keys of the first object; none where it cannot tell."""
    name = os.fspath(source).removesuffix(".gz")
    if not name.endswith((".tsv", ".csv", ".jsonl")):
        return []  # `read_rows` knows other formats, and says what is wrong with the rest
    text = read_text(source)
    if name.endswith(".jsonl"):
        first = next((line for line in text.split("\n") if line.strip()), "{}")
        try:
            found = json.loads(first)
        except ValueError:
            return []
        return list(found) if isinstance(found, dict) else []
    if name.endswith(".tsv"):
        return text.split("\n", 1)[0].rstrip("\r").split("\t")
    return next(csv.reader(io.StringIO(text, newline="")), [])


def _headless(
    source: str | os.PathLike[str], columns: Sequence[str], wanted: Sequence[str]
) -> bool:
    """Whether the first line of a table is an example: one that has the label of another."""
    name = os.fspath(source).removesuffix(".gz")
    if not name.endswith((".tsv", ".csv")) or len(columns) != 2 or set(wanted) & set(columns):
        return False
    rows = read_rows(source, wanted, name="file", header=wanted, remedy=_REMEDY)
    return any(row[wanted[1]] == columns[1] for row in rows[1:])
