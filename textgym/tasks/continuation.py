"""`ContinuationTask`: continue a prompt of the user's own; all reward comes from wrappers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from textgym.data import is_table, read_rows, read_text, split_texts
from textgym.episode import Episode, Instance
from textgym.seeding import SPLITS, Split
from textgym.tasks.base import Task, TokenCounter

DEFAULT_PROMPTS = (
    "Once upon a time",
    "One day",
    "There was a little",
    "It was a sunny morning and",
    "In the middle of the forest",
    "At the end of the road",
)


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
        prompts: a list of texts; a `.txt` file (one prompt a line), or a `.jsonl`, `.csv`, `.tsv`
            or `.parquet` file; a Hugging Face dataset, or the hub id of one (its `train` part is
            read).
        test_prompts: those of the test split, given alike. By default one prompt in eight, chosen
            by a hash of its text; with fewer than 16 prompts both splits ask all of them.
        column: the field that holds the prompt, in all but lists and `.txt` files.

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
            self.prompts = split_texts(train)
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


def read_prompts(source: Any, column: str = "prompt", *, name: str = "prompts") -> tuple[str, ...]:
    """The distinct prompts of a list, file or dataset, in order; blank ones are left out.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the format needs a library that is missing.
        TypeError, ValueError: something that holds no prompts; names the file, row and remedy.
    """
    texts = [(where, text) for where, text in _texts(source, column, name) if not _is_blank(text)]
    if not texts:
        raise ValueError(f"`{name}` holds no prompt. Give at least one non-blank text.")
    for where, text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{where}: a prompt must be a str, got {text!r}.")
    return tuple(dict.fromkeys(text for _, text in texts))


def _is_blank(text: Any) -> bool:
    return isinstance(text, str) and not text.strip()


def _texts(source: Any, column: str, name: str) -> Iterable[tuple[str, Any]]:
    """Where each prompt of `source` is, and what was found there."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if path.removesuffix(".gz").endswith(".txt"):
            lines = read_text(path).splitlines()
            return ((f"{path}, line {number}", line) for number, line in enumerate(lines, 1))
        if not is_table(path) and (not path or any(map(str.isspace, path))):
            raise ValueError(
                f"`{name}` must be a list of str, a .txt file, a file of rows or a dataset, got "
                f"{path!r}. For a single prompt use `[{path!r}]`."
            )
    elif not hasattr(source, "column_names"):
        if not isinstance(source, Iterable):
            raise TypeError(
                f"`{name}` must be a list of str, a .txt file, a file of rows or a dataset, got "
                f"{type(source).__name__}."
            )
        return ((f"`{name}`, prompt {number}", text) for number, text in enumerate(source, 1))
    remedy = "Name the field with `column=`."
    rows = read_rows(source, [column], name=name, remedy=remedy)
    return ((row.where, row[column]) for row in rows)
