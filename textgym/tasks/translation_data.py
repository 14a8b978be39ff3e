"""Real sentence pairs for `TranslationTask`, split so that no source is in both splits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from textgym.data import as_texts, read_rows, read_text
from textgym.seeding import SPLITS, Split, split_of

Pair = tuple[str, str]

_LAYOUT = (
    "Expected files such as train.{0}, train.{1}, test.{0} and test.{1}, one sentence a line, "
    "plain or with .gz at the end."
)


def read_pairs(
    dataset: Any, columns: tuple[str, str], max_words: int | None = None
) -> dict[Split, list[Pair]]:
    """The (source, target) pairs of both splits, each source once.

    Args:
        dataset: a folder of line-aligned files, or what `textgym.data.read_rows` takes.
        columns: those of source and target; in a folder, how the names of the files end.
        max_words: leave out pairs with more words on either side.

    Raises:
        FileNotFoundError: no such file.
        ValueError: files that are no such pairs, or none that is short enough.
    """
    folder = isinstance(dataset, str | os.PathLike) and Path(dataset).is_dir()
    if folder:
        found = _read_folder(Path(dataset), columns)
    else:
        rows = read_rows(dataset, columns)
        texts = [[text.strip() for text in as_texts(rows, column)] for column in columns]
        found = _split(zip(*texts, strict=True))
    train = _short({}, found["train"], max_words)
    test = _short(train, found["test"], max_words)
    if not train:
        shortest = min(max(map(_words, pair)) for pairs in found.values() for pair in pairs)
        raise ValueError(
            f"`dataset`: no pair of the train split has at most {max_words} words on both sides. "
            f"Use a greater `max_words`: the shortest pair has {shortest}."
        )
    return {"train": list(train.items()), "test": list(test.items())}


def _words(text: str) -> int:
    return len(text.split())


def _short(others: dict[str, str], pairs: Iterable[Pair], max_words: int | None) -> dict[str, str]:
    """Target by source, the first of each, without the sources in `others`."""
    kept: dict[str, str] = {}
    for source, target in pairs:
        fits = max_words is None or max(_words(source), _words(target)) <= max_words
        if fits and source not in others:
            kept.setdefault(source, target)
    return kept


def _split(pairs: Iterable[Pair]) -> dict[Split, list[Pair]]:
    parts: dict[Split, list[Pair]] = {split: [] for split in SPLITS}
    for source, target in pairs:
        parts[split_of(source)].append((source, target))
    return parts


def _read_folder(folder: Path, columns: tuple[str, str]) -> dict[Split, list[Pair]]:
    """The pairs of `train.*` and of `test*.*` or else `val*.*`; without those, train is split."""
    layout = _LAYOUT.format(*columns)
    stems = sorted(
        {
            path.name.removesuffix(".gz").rpartition(".")[0]
            for path in folder.iterdir()
            if path.name.removesuffix(".gz").rpartition(".")[2] in columns
        }
    )
    if "train" not in stems:
        raise FileNotFoundError(
            f"{folder}: no file train.{columns[0]} or train.{columns[0]}.gz. {layout}"
        )
    train = _read_aligned(folder, "train", columns, layout)
    held_out = [stem for kind in ("test", "val") for stem in stems if stem.startswith(kind)]
    if not held_out:
        return _split(train)
    return {"train": train, "test": _read_aligned(folder, held_out[0], columns, layout)}


def _read_aligned(folder: Path, stem: str, columns: tuple[str, str], layout: str) -> list[Pair]:
    paths = []
    for column in columns:
        path = folder / f"{stem}.{column}"
        packed = path.with_name(path.name + ".gz")
        if not path.is_file() and not packed.is_file():
            raise FileNotFoundError(f"no such file: {path} (or {packed.name}). {layout}")
        paths.append(path if path.is_file() else packed)
    sides = [_lines(path) for path in paths]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{paths[0]} has {len(sides[0])} lines and {paths[1]} has {len(sides[1])}: line n of "
            "one must translate line n of the other. Correct or fetch them again."
        )
    pairs: list[Pair] = []
    for number, pair in enumerate(zip(*sides, strict=True), 1):
        if all(pair):
            pairs.append((pair[0], pair[1]))
        elif any(pair):
            blank = paths[0] if not pair[0] else paths[1]
            raise ValueError(
                f"{blank}, line {number}: blank, but its translation is not. Write the sentence, "
                "or delete the line from both files."
            )
    if not pairs:
        raise ValueError(f"{paths[0]}: no sentences. {layout}")
    return pairs


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in read_text(path).split("\n")]
    return lines[:-1] if not lines[-1] else lines
