"""Real reviews: a classifier, what reads like one, and prompts and answers cut from them."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from textgym.data import Rows, as_texts, read_rows, split_texts
from textgym.episode import Instance
from textgym.seeding import Split
from textgym.tasks.bag_of_words import BagOfWords, pairs_of, words_of

LABELS = {"0": 0, "1": 1, "negative": 0, "positive": 1, "neg": 0, "pos": 1}
# A text is as positive as it need be at this probability; at one half it is not at all.
SATURATION = 0.9
MIN_WORDS = 5
# What a text is worth if it did not end by itself.
UNENDED = 0.5
# Longer texts are read this far: more than any budget of tokens gives.
MAX_CHARACTERS = 4000
_CALIBRATED_ON = 500
_ANSWER_WORDS = range(MIN_WORDS, 13)


class Verdict(NamedTuple):
    """What a completion is worth: three figures in [0, 1], whose product is the score."""

    tone: float
    fluency: float
    topic: float


class Reviews:
    """Reviews with labels, and what can be told from them about any text.

    Args:
        train: texts and labels (1 for positive, else 0) to learn from.
        test: those held out.
        prompt_words: the words of a review that its prompt has.
        max_probability: prompts that read more positive than this are left out.

    Attributes:
        classifier: P(positive).
        accuracy: the classifier's, on `test`.
        prompts: the prompts of each split.
    """

    def __init__(
        self,
        train: tuple[Sequence[str], Sequence[int]],
        test: tuple[Sequence[str], Sequence[int]],
        *,
        prompt_words: int = 6,
        max_probability: float = 1.0,
    ) -> None:
        self.classifier = BagOfWords.fit(*train, l2=2.0, min_count=2, steps=60)
        self.accuracy = self.classifier.accuracy(*test)
        self.prompt_words = prompt_words
        texts = [words_of(text) for text in train[0]]
        self._known = {word for words in texts for word in words}
        self._pairs = {pair for words in texts for pair in pairs_of(words)}
        self._triples = {triple for words in texts for triple in _triples_of(words)}
        self._positive = [t for t, label in zip(*train, strict=True) if label == 1]
        self._low, self._high = self._calibrate(test[0])
        held_out = self._cut(test[0], max_probability)
        ours = tuple(p for p in self._cut(train[0], max_probability) if p not in set(held_out))
        self.prompts: dict[Split, tuple[str, ...]] = {
            "train": ours or held_out,
            "test": held_out or ours,
        }
        if not ours and not held_out:
            raise ValueError(
                f"`dataset`: no review has more than {prompt_words + MIN_WORDS} words and opens as "
                "the level asks. Give more reviews, a smaller `prompt_words` or a lower `level`."
            )

    def judge(self, prompt: str, completion: str, *, ended: bool = True) -> Verdict:
        """What `completion` is worth after `prompt`."""
        before, words = words_of(prompt), words_of(completion[:MAX_CHARACTERS])
        if not words:
            return Verdict(0.0, 0.0, 0.0)
        p = self.classifier.probability(" ".join([*before, *words]))
        share = (self._familiar(before, words) - self._low) / (self._high - self._low)
        known = sum(word in self._known for word in words) / max(len(words), MIN_WORDS)
        return Verdict(
            _clip((p - 0.5) / (SATURATION - 0.5)),
            _clip(share) * (1.0 if ended else UNENDED),
            known,
        )

    def solve(self, prompt: str) -> str:
        """The end of a positive review that goes on from `prompt` and scores 1.0.

        Raises:
            NotImplementedError: none does.
        """
        for tail in self._candidates(prompt):
            if self.judge(prompt, tail) == (1.0, 1.0, 1.0):
                return tail
        raise NotImplementedError(
            f"no end of a positive review scores 1.0 after {prompt!r}. Take another prompt."
        )

    def _candidates(self, prompt: str) -> Iterator[str]:
        """Ends of positive reviews: those that go on from the last word of `prompt`, in an order
        of its own, then the most positive of all, then two of these in a row."""
        rng = np.random.default_rng(zlib.crc32(prompt.encode("utf-8", "surrogatepass")))
        last = words_of(prompt)[-1:]
        following = self._tails.get(last[0], []) if last else []
        for i in rng.permutation(len(following)):
            yield following[i]
        yield from self._praise
        for pair in itertools.permutations(self._praise[:20], 2):
            yield " ,".join(pair)

    @cached_property
    def _tails(self) -> dict[str, list[str]]:
        """Ends of positive reviews, by the word before them."""
        tails: dict[str, list[str]] = {}
        for text in self._positive:
            words = text.split()
            for i in _ANSWER_WORDS:
                if i < len(words):
                    before = words_of(words[-i - 1])
                    tails.setdefault(before[-1] if before else "", []).append(
                        " " + " ".join(words[-i:])
                    )
        return tails

    @cached_property
    def _praise(self) -> list[str]:
        """The most positive of those ends."""
        ends = sorted({end for ends in self._tails.values() for end in ends})
        return sorted(ends, key=self.classifier.logit, reverse=True)[:500]

    def _familiar(self, before: Sequence[str], words: Sequence[str]) -> float:
        """The share of the pairs and triples of words that training reviews have too.

        What is there for the second time, in the prompt or the completion, counts as if they had
        it not; so do those that a text of fewer than `MIN_WORDS` words lacks.
        """
        shares = []
        for known, grams_of, overlap in (
            (self._pairs, pairs_of, 1),
            (self._triples, _triples_of, 2),
        ):
            seen: set[Any] = set(grams_of(before))
            grams = list(grams_of([*before[-overlap:], *words]))
            fresh = 0
            for gram in grams:
                fresh += gram in known and gram not in seen
                seen.add(gram)
            shares.append(fresh / max(len(grams), MIN_WORDS))
        return sum(shares) / 2

    def _calibrate(self, texts: Sequence[str]) -> tuple[float, float]:
        """The shares that are worth nothing and all.

        Nothing: what nine in ten reviews stay under if their words are shuffled. All: what one in
        four reaches as it is. Both of the rests of held-out reviews, as long as a completion.
        """
        rng = np.random.default_rng(0)
        n = self.prompt_words
        told, shuffled = [], []
        for text in texts[:_CALIBRATED_ON]:
            words = words_of(text)[: n + 16]
            if len(words) >= n + MIN_WORDS:
                order = rng.permutation(len(words) - n) + n
                told.append(self._familiar(words[:n], words[n:]))
                shuffled.append(self._familiar(words[:n], [words[i] for i in order]))
        if not told:
            return 0.2, 0.45
        low, high = float(np.quantile(shuffled, 0.9)), float(np.quantile(told, 0.75))
        return low, max(high, low + 0.1)

    def _cut(self, texts: Sequence[str], max_probability: float) -> tuple[str, ...]:
        """The distinct openings of those of `texts` that go on for a while after them."""
        split = [text.split() for text in texts]
        openings = dict.fromkeys(
            " ".join(words[: self.prompt_words])
            for words in split
            if len(words) >= self.prompt_words + MIN_WORDS
        )
        if max_probability >= 1:
            return tuple(openings)
        return tuple(o for o in openings if self.classifier.probability(o) < max_probability)

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw a prompt of `split`, all equally likely."""
        prompts = self.prompts[split]
        return Instance(prompts[rng.integers(len(prompts))])


def load_reviews(
    source: Any,
    text_column: str,
    label_column: str,
    prompt_words: int,
    max_probability: float,
) -> Reviews:
    """The reviews of a folder, or of anything that `read_rows` reads.

    Fitting takes a second, so what a file or folder gives is kept while it does not change.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        files = sorted(path.glob("*.tsv")) if path.is_dir() else [path]
        stamps = tuple(file.stat().st_mtime_ns for file in files if file.exists())
        return _load_named(
            os.fspath(source), stamps, text_column, label_column, prompt_words, max_probability
        )
    return _load(source, text_column, label_column, prompt_words, max_probability)


@lru_cache(maxsize=4)
def _load_named(source: str, stamps: tuple[int, ...], *arguments: Any) -> Reviews:
    return _load(source, *arguments)


def _load(
    source: Any, text_column: str, label_column: str, prompt_words: int, max_probability: float
) -> Reviews:
    columns = (text_column, label_column)
    if isinstance(source, str) and Path(source).is_dir():
        train, test = (_labelled(_of_file(file, columns), columns) for file in _files(Path(source)))
    else:
        remedy = "Rename it, or name it with `text_column=` and `label_column=`."
        texts, labels = _labelled(read_rows(source, columns, remedy=remedy), columns)
        label_of = dict(zip(texts, labels, strict=True))
        parts = split_texts(tuple(label_of))
        train, test = (
            (list(parts[split]), [label_of[text] for text in parts[split]])
            for split in ("train", "test")
        )
    for label, meaning in ((0, "negative"), (1, "positive")):
        if label not in train[1]:
            raise ValueError(
                f"`dataset`: no {meaning} review to learn from. Give reviews of both labels."
            )
    return Reviews(train, test, prompt_words=prompt_words, max_probability=max_probability)


def _files(folder: Path) -> tuple[Path, Path]:
    """The training and the held-out file of `folder`."""
    train = folder / "train.tsv"
    held_out = [folder / name for name in ("test.tsv", "dev.tsv") if (folder / name).is_file()]
    if not train.is_file() or not held_out:
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(
            f"`dataset`: {folder} must hold train.tsv, and test.tsv or dev.tsv, with a sentence, a "
            f"tab and a label a line, got {there}. Or give a single file of rows."
        )
    return train, held_out[0]


def _of_file(file: Path, columns: tuple[str, str]) -> Rows:
    rows = read_rows(file, columns, header=columns)
    return rows[1:] if tuple(rows[0].values()) == columns else rows  # a header after all


def _labelled(rows: Rows, columns: tuple[str, str]) -> tuple[list[str], list[int]]:
    text_column, label_column = columns
    texts, labels = as_texts(rows, text_column), []
    for row in rows:
        value = row[label_column]
        plain = int(value) if isinstance(value, bool | float) and value in (0, 1) else value
        label = LABELS.get(str(plain).strip().lower())
        if label is None:
            raise ValueError(
                f"{row.where}: {label_column!r} must be one of {', '.join(LABELS)}, got "
                f"{value!r}. Correct the row, or name the column with `label_column=`."
            )
        labels.append(label)
    return texts, labels


def _triples_of(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    return zip(words, words[1:], words[2:], strict=False)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
