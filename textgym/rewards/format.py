"""`Format`: does the completion have the parts asked for, in order?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.rewards.base import Reward

DEFAULT_TAGS = ("think", "answer")

# A part as it stands in a text: where it begins and ends.
Span = tuple[int, int]


class Format(Reward):
    """1 for a completion made of the parts asked for, each exactly once, in order, none empty.

    The parts are either tags, ``<think>...</think> <answer>...</answer>``, or sections under
    Markdown headings: ``# Summary``, of any level, case and a colon at the end ignored. A section
    goes to the next heading asked for; the headings of other parts of it are no matter.

    With k parts, of which g are there exactly once and hold anything but white space, partial
    credit is g / (k + 2), (k + 1) / (k + 2) where all k are in order and none lies in another, and
    1 where nothing but white space stands outside them. (For sections, that is before the first.)
    With `outside`, what stands there is no matter, and it is g / (k + 1), or 1.

    What the parts hold is not judged: one character in each maximises it. Pair it with a reward
    of what is said, `Answer` for one.

    Args:
        tags: the names of the tags; ``think`` and ``answer`` unless there are `sections`.
        sections: the headings of the sections, instead of tags.
        outside: whether text may stand outside the parts.
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: both tags and sections, none, or one twice.

    Example:
        >>> form = Format(["think", "answer"])
        >>> form.value("<think>2 + 2 = 4</think> <answer>4</answer>")
        1.0
        >>> form.value("<think>2 + 2 = 4</think> so: <answer>4</answer>")
        0.75
        >>> form.value("The answer is <answer>4</answer>")
        0.25
        >>> Format(sections=["Summary", "Details"]).value("# Summary\\nRain.\\n## Details\\nMuch.")
        1.0
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        tags: Sequence[str] | None = None,
        *,
        sections: Sequence[str] | None = None,
        outside: bool = False,
        name: str = "format",
    ) -> None:
        if tags is not None and sections is not None:
            raise ValueError(
                f"`Format` takes either `tags` or `sections`, got {tags!r} and {sections!r}."
            )
        if sections is None:
            self.tags = _names("tags", DEFAULT_TAGS if tags is None else tags)
            if not all(all(c.isalnum() or c in "_-" for c in tag) for tag in self.tags):
                raise ValueError(
                    f'`tags` must be names without brackets, got {tags!r}. Use `["think"]`.'
                )
            self.sections: tuple[str, ...] = ()
        else:
            self.tags = ()
            self.sections = _names("sections", [_heading(f"# {title}") for title in sections])
        self.outside = outside
        self.name = name

    def value(self, text: str) -> float:
        """The reward of the completion `text`."""
        spans = self._tagged(text) if self.tags else self._under_headings(text)
        good = [span for span in spans if span is not None]
        steps = len(spans) + (1 if self.outside else 2)
        in_order = len(good) == len(spans) and all(
            before[1] <= after[0] for before, after in pairwise(good)
        )
        if not in_order:
            return len(good) / steps
        ends = [0, *(end for _, end in good)]
        starts = [*(start for start, _ in good), len(text)]
        if self.outside or not any(
            text[end:start].strip() for end, start in zip(ends, starts, strict=True)
        ):
            return 1.0
        return (len(good) + 1) / steps

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in [0, 1]."""
        return np.array([self.value(e.completion_text) for e in episodes], np.float32)

    def _tagged(self, text: str) -> list[Span | None]:
        spans: list[Span | None] = []
        for tag in self.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            start, stop = text.find(opening), text.find(closing)
            once = text.count(opening) == text.count(closing) == 1 and start < stop
            filled = once and text[start + len(opening) : stop].strip() != ""
            spans.append((start, stop + len(closing)) if filled else None)
        return spans

    def _under_headings(self, text: str) -> list[Span | None]:
        # The places of the headings asked for: where each line starts, and where its text does.
        found = [
            (title, start, end) for title, start, end in _headings(text) if title in self.sections
        ]
        stops = [*(start for _, start, _ in found[1:]), len(text)]
        spans: dict[str, list[Span | None]] = {title: [] for title in self.sections}
        for (title, start, end), stop in zip(found, stops, strict=False):
            spans[title].append((start, stop) if _has_text(text[end:stop]) else None)
        return [spans[title][0] if len(spans[title]) == 1 else None for title in self.sections]


def _names(kind: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"`{kind}` must be a list of str, got {names!r}.")
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"`{kind}` must be different names, one at least, got {list(names)!r}.")
    return tuple(names)


def _headings(text: str) -> Iterator[tuple[str, int, int]]:
    """Each Markdown heading: its title, where its line begins, and where that ends."""
    start = 0
    for line in text.split("\n"):
        title = _heading(line)
        if title:
            yield title, start, start + len(line)
        start += len(line) + 1


def _heading(line: str) -> str:
    """The title of a line that is a heading, plain and in lower case; empty for other lines."""
    if not line.startswith("#"):
        return ""
    marks = len(line) - len(line.lstrip("#"))
    rest = line[marks:]
    if marks > 6 or not rest[:1].isspace():
        return ""
    return " ".join(rest.rstrip().rstrip("#").casefold().split()).removesuffix(":").rstrip()


def _has_text(section: str) -> bool:
    """Whether a section holds anything besides white space and headings."""
    return any(line.strip() and not _heading(line) for line in section.split("\n"))
