"""`ContinuationTask`: continue a prompt of the user's own; all reward comes from wrappers."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textgym.episode import Episode, Instance
from textgym.seeding import SPLITS, Split, split_of
from textgym.tasks.base import Task, TokenCounter

DEFAULT_PROMPTS = (
    "Once upon a time",
    "One day",
    "There was a little",
    "It was a sunny morning and",
    "In the middle of the forest",
    "At the end of the road",
)

# With fewer prompts than this, both splits ask all of them.
MIN_PROMPTS_TO_SPLIT = 16


class ContinuationTask(Task):
    """Continue a prompt: any text, of any prompts, with no score of its own.

    ## Description
    The agent continues one of `prompts`. What is good is for added rewards to say.

    ## Rewards
    0, plus those added: `rewards=[...]` or `textgym.wrappers.AddReward`.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    Args:
        prompts: a list of texts; a path to a `.txt` file (one prompt a line) or a `.jsonl` file; a
            Hugging Face dataset, or the hub id of one (its `train` part is read).
        test_prompts: those of the test split, given alike. By default one prompt in eight, chosen
            by a hash of its text; with fewer than 16 prompts both splits ask all of them.
        column: the field that holds the prompt in a JSONL file or dataset.

    ## Version History
    - v0: first version.

    Example:
        >>> task = ContinuationTask(["Once upon a time"])
        >>> task.draw(np.random.default_rng(0), "train").prompt
        'Once upon a time'
    """

    max_new_tokens = 48
    scored = False
    has_oracle = False

    def __init__(
        self,
        prompts: Any = DEFAULT_PROMPTS,
        *,
        test_prompts: Any = None,
        column: str = "prompt",
    ) -> None:
        train = read_prompts(prompts, column)
        if test_prompts is None:
            self.prompts = _split(train)
        else:
            test = read_prompts(test_prompts, column, name="test_prompts")
            both = set(train) & set(test)
            if both:
                raise ValueError(
                    f"{len(both)} of `test_prompts` are among `prompts` too, such as "
                    f"{min(both)!r}. Take them out of one."
                )
            self.prompts = {"train": train, "test": test}

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw a prompt of the train split."""
        return self.draw(rng, "train")

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw a prompt of `split`, all equally likely."""
        prompts = self.prompts[split]
        return Instance(prompts[rng.integers(len(prompts))])

    def from_prompt(self, prompt: str) -> Instance:
        """Any prompt will do."""
        return Instance(prompt)

    def score(self, episode: Episode) -> float:
        """0: this task has no score of its own."""
        return 0.0

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """The length of the longest prompt."""
        return max(count_tokens(prompt) for split in SPLITS for prompt in self.prompts[split])


def _split(prompts: tuple[str, ...]) -> dict[Split, tuple[str, ...]]:
    parts: dict[Split, tuple[str, ...]] = {
        split: tuple(p for p in prompts if split_of(p) == split) for split in SPLITS
    }
    if len(prompts) < MIN_PROMPTS_TO_SPLIT or not all(parts.values()):
        return dict.fromkeys(SPLITS, prompts)
    return parts


def read_prompts(source: Any, column: str = "prompt", *, name: str = "prompts") -> tuple[str, ...]:
    """The distinct prompts of a list, file or dataset, in order.

    Raises:
        FileNotFoundError: no such file.
        ImportError: a hub id, and the `datasets` library is missing.
        TypeError, ValueError: something that holds no prompts.
    """
    if isinstance(source, str | os.PathLike):
        texts = _from_name(os.fspath(source), column, name)
    elif hasattr(source, "column_names"):
        texts = _from_dataset(source, column, name)
    elif isinstance(source, Iterable):
        texts = list(source)
    else:
        raise TypeError(
            f"`{name}` must be a list of str, a .txt or .jsonl file, or a dataset, got "
            f"{type(source).__name__}."
        )
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"`{name}` must hold str, got {text!r}.")
    prompts = tuple(dict.fromkeys(text for text in texts if text.strip()))
    if not prompts:
        raise ValueError(f"`{name}` holds no prompt. Give at least one non-blank text.")
    return prompts


def _from_name(source: str, column: str, name: str) -> Sequence[Any]:
    path = Path(source)
    if path.suffix in (".txt", ".jsonl"):
        if not path.is_file():
            raise FileNotFoundError(f"`{name}`: no such file: {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.suffix == ".txt":
            return lines
        return [_field(line, i, path, column) for i, line in enumerate(lines, 1) if line.strip()]
    if not source or any(c.isspace() for c in source) or path.exists():
        raise ValueError(
            f"`{name}` must be a list of str, a .txt or .jsonl file or a dataset, got {source!r}. "
            f"For a single prompt use `[{source!r}]`."
        )
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ImportError(
            f"`{name}`: {source!r} reads as the hub id of a dataset, which needs the `datasets` "
            "library: `pip install datasets`. A single prompt is given as a list of one."
        ) from error
    return _from_dataset(datasets.load_dataset(source, split="train"), column, name)


def _field(line: str, number: int, path: Path, column: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
    if not isinstance(row, dict) or column not in row:
        raise ValueError(
            f"{path}, line {number}: expected an object with a field {column!r}, got "
            f"{line[:80]}. Name the field with `column=`."
        )
    return row[column]


def _from_dataset(dataset: Any, column: str, name: str) -> Sequence[Any]:
    columns = dataset.column_names
    if isinstance(columns, dict):
        raise TypeError(
            f"`{name}` is a collection of datasets ({', '.join(columns)}). Give one of them: "
            f'`dataset["{next(iter(columns), "train")}"]`.'
        )
    if column not in columns:
        raise ValueError(
            f"`{name}`: the dataset has no column {column!r}, only {', '.join(columns)}. Name one "
            "with `column=`."
        )
    return list(dataset[column])
