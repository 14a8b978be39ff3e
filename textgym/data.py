"""Rows of the user's own data, from files and datasets of the usual kinds."""

from __future__ import annotations

import csv
import difflib
import gzip
import importlib
import io
import json
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from textgym.seeding import SPLITS, Split, split_of

# With fewer texts than this, both splits have all of them.
MIN_TEXTS_TO_SPLIT = 16

_FORMATS = "a .jsonl, .csv, .tsv or .parquet file (the text ones may be gzipped)"
_RENAME = "Rename it, or name another column in the environment's arguments."


class Row(dict[str, Any]):
    """The fields of one row, which also knows where it was read.

    Attributes:
        where: the file and line, or the argument and row, for messages.
    """

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        super().__init__(fields)
        self.where = where


Rows = list[Row]
# What a reader yields: where each row is, and what was found there.
_Found = Iterable[tuple[str, Any]]


def read_rows(
    source: Any,
    columns: Sequence[str],
    *,
    name: str = "dataset",
    header: Sequence[str] | None = None,
    remedy: str = _RENAME,
) -> Rows:
    """The rows of `source`, each with exactly `columns`.

    Args:
        source: a list of mappings; a `.jsonl`, `.csv`, `.tsv` or `.parquet` file; a Hugging Face
            dataset, or the hub id of one (its `train` part is read).
        columns: the fields that every row must have.
        name: the argument this came from, for messages.
        header: the columns of a `.csv` or `.tsv` file whose first line is a row already; None
            where that line names them.
        remedy: what to do about a missing column.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the format needs a library that is missing.
        TypeError, ValueError: something that holds no such rows; names the file, row and remedy.

    Example:
        >>> read_rows([{"prompt": "1 + 1 =", "target": "2", "id": 7}], ["prompt", "target"])
        [{'prompt': '1 + 1 =', 'target': '2'}]
    """
    place = f"`{name}`"
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        place = text if is_table(text) else place
        found = _from_name(text, columns, name, header, remedy)
    elif hasattr(source, "column_names"):
        found = _from_dataset(source, columns, place, remedy)
    elif isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        found = ((f"{place}, row {number}", row) for number, row in enumerate(source, 1))
    else:
        raise TypeError(
            f"{place} must be a list of mappings, {_FORMATS}, or a dataset, got "
            f"{type(source).__name__}."
        )
    rows = [_checked(row, where, columns, remedy) for where, row in found]
    if not rows:
        raise ValueError(f"{place}: no rows. Give at least one with {_listed(columns)}.")
    return rows


def is_table(source: str) -> bool:
    """Whether `source` is named as a file of rows is.

    >>> is_table("reviews.tsv.gz"), is_table("Once upon a time")
    (True, False)
    """
    return _suffix(Path(source)) in _READERS


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, gzipped where its name ends in ``.gz``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or not gzip; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}. Check the path, from {Path.cwd()}.")
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: not a whole gzip file: {error}. Pack it again, or drop .gz from its name."
            ) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        likely = "UTF-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "LATIN1"
        raise ValueError(
            f"{path}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save the file as "
            f"UTF-8, for instance with `iconv -f {likely} -t UTF-8`."
        ) from error


def as_texts(rows: Rows, column: str) -> list[str]:
    """Column `column` of `rows`, every entry of which must be a non-blank `str`.

    Raises:
        ValueError: for the first that is not, naming its file and row.
    """
    for row in rows:
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{row.where}: {column!r} must be a non-blank text, got {text!r}. "
                "Correct the row or leave it out."
            )
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise ValueError(
                f"{row.where}: {column!r} holds half of a surrogate pair, which is no text, in "
                f"{text[:80]!r}. Correct the row or leave it out."
            )
    return [row[column] for row in rows]


def split_texts(texts: Sequence[str]) -> dict[Split, tuple[str, ...]]:
    """The texts of each split, by a hash of the text; all in both where there are too few."""
    parts: dict[Split, tuple[str, ...]] = {
        split: tuple(text for text in texts if split_of(text) == split) for split in SPLITS
    }
    if len(texts) < MIN_TEXTS_TO_SPLIT or not all(parts.values()):
        return dict.fromkeys(SPLITS, tuple(texts))
    return parts


def _suffix(path: Path) -> str:
    """The suffix that tells the format: that before ``.gz``, for the text formats."""
    if path.suffix == ".gz":
        inner = path.with_suffix("").suffix
        return inner if inner != ".parquet" else path.suffix
    return path.suffix


def _from_name(
    source: str, columns: Sequence[str], name: str, header: Sequence[str] | None, remedy: str
) -> _Found:
    path = Path(source)
    if is_table(source):
        if not path.is_file():
            raise FileNotFoundError(
                f"`{name}`: no such file: {path}. Check the path, from {Path.cwd()}."
            )
        match _suffix(path):
            case ".jsonl":
                return _from_jsonl(path)
            case ".parquet":
                return _from_parquet(path, columns, remedy)
            case suffix:
                return _from_table(path, columns, header, remedy, tabbed=suffix == ".tsv")
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if is_table(file.name))
        listed = f"one of its files: {', '.join(files[:8])}" if files else "a file of rows"
        raise ValueError(f"`{name}`: {source!r} is a folder. Give {listed}.")
    if not source or path.exists() or any(c.isspace() for c in source):
        raise ValueError(f"`{name}` must be {_FORMATS}, or a dataset, got {source!r}.")
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise FileNotFoundError(f"`{name}`: no such file: {path}. Expected {_FORMATS}.")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(
            f"`{name}`: {source!r} is no file here and reads as the hub id of a dataset, which "
            "needs the `datasets` library: `pip install datasets`."
        ) from error
    dataset = datasets.load_dataset(source, split="train")
    return _from_dataset(dataset, columns, f"`{name}`", remedy)


def _from_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    # Not `splitlines`: a JSON text may hold other line separators, such as U+2028.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{where}: not JSON: {error}. Write one object a line; correct this line or "
                    "delete it."
                ) from error


def _from_table(
    path: Path, columns: Sequence[str], header: Sequence[str] | None, remedy: str, *, tabbed: bool
) -> Iterator[tuple[str, Any]]:
    # Tab-separated files are read as they stand: a quotation mark in them is one of the text.
    reader = (
        csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
        if tabbed
        else csv.reader(_lines(path), strict=True)
    )
    line = 1
    try:
        for fields in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if header is None:
                header = fields
                _check_columns(header, where, columns, remedy)
            elif len(fields) == len(header):
                yield where, dict(zip(header, fields, strict=True))
            elif fields:  # a blank line has none
                separator = "tab" if tabbed else "comma"
                raise ValueError(
                    f"{where}: expected {len(header)} fields ({', '.join(header)[:80]}), got "
                    f"{len(fields)}. Correct the line"
                    f"{'' if tabbed else f', or quote the fields that hold a {separator}'}."
                )
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line}: {error}. Correct the quotation marks of this row: inside a "
            'quoted field write "" for one.'
        ) from error


def _lines(path: Path) -> io.StringIO:
    return io.StringIO(read_text(path), newline="")


def _from_parquet(path: Path, columns: Sequence[str], remedy: str) -> Iterator[tuple[str, Any]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow: `pip install pyarrow`.") from error
    try:
        table = parquet.read_table(path)
    except Exception as error:  # the library's errors share no base class of their own
        raise ValueError(
            f"{path}: not a readable Parquet file: {error}. Write or fetch it again."
        ) from error
    _check_columns(table.column_names, str(path), columns, remedy)
    for number, row in enumerate(table.select(list(columns)).to_pylist(), 1):
        yield f"{path}, row {number}", row


_READERS = frozenset((".jsonl", ".csv", ".tsv", ".parquet"))


def _from_dataset(
    dataset: Any, columns: Sequence[str], place: str, remedy: str
) -> Iterator[tuple[str, Any]]:
    known = dataset.column_names
    if isinstance(known, dict):
        raise TypeError(
            f"{place} is a collection of datasets ({', '.join(known)}). Give one of them: "
            f'`dataset["{next(iter(known), "train")}"]`.'
        )
    _check_columns(known, place, columns, remedy)
    series = [list(dataset[column]) for column in columns]
    for number, values in enumerate(zip(*series, strict=True), 1):
        yield f"{place}, row {number}", dict(zip(columns, values, strict=True))


def _checked(row: Any, where: str, columns: Sequence[str], remedy: str) -> Row:
    if not isinstance(row, Mapping):
        raise ValueError(
            f"{where}: expected an object with {_listed(columns)}, got {str(row)[:80]!r}. "
            "Write one object a row."
        )
    if not all(column in row for column in columns):
        _check_columns(row, where, columns, remedy)
    return Row({column: row[column] for column in columns}, where)


def _check_columns(known: Collection[Any], where: str, columns: Sequence[str], remedy: str) -> None:
    names = [str(column) for column in known]
    for column in columns:
        if names.count(column) == 1:
            continue
        if column in names:
            raise ValueError(f"{where}: several columns {column!r}. Rename all but one.")
        close = difflib.get_close_matches(column, names, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(names) if names else "none"
        raise ValueError(f"{where}: no column {column!r}, only {listed[:200]}.{meant} {remedy}")


def _listed(columns: Sequence[str]) -> str:
    return f"the column{'s'[: len(columns) > 1]} " + ", ".join(repr(c) for c in columns)
