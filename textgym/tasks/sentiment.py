"""`SentimentTask`: go on with a review so that it becomes positive and keeps to its subject."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from textgym.episode import Episode, Instance
from textgym.errors import check_positive_int
from textgym.seeding import SPLITS, Split
from textgym.tasks.base import Task, TokenCounter, check_level
from textgym.tasks.sentiment_reviews import Reviews, Verdict, load_reviews
from textgym.tasks.sentiment_world import (
    AND,
    ASPECTS,
    BUT,
    FIRST_NAMES,
    LAST_NAMES,
    STARTS,
    Clause,
    Review,
    classifier,
    clauses_about,
    clauses_on,
    pick,
    read,
    tell,
)
from textgym.tasks.story import split_sentences

# P(positive) that is worth nothing, and that is worth all.
NEUTRAL, SATURATION = 0.55, 0.95
# The aspects to speak of for full marks.
MIN_ASPECTS = 2
# No review that can be praised fully is longer; what is need not be read.
_MAX_CHARACTERS = 1200
_MAX_SENTENCES = 12
# The oracle's answers are no longer than this, by level: what fits into `max_new_tokens`.
_ANSWER_CHARACTERS = {1: 110, 2: 120, 3: 180}
_MAX_NEW_TOKENS = {1: 64, 2: 64, 3: 96}
_MAX_TRIED = 1000
# Real prompts read no more positive than this, by level.
_MAX_PROBABILITY = {1: 1.0, 2: 0.5, 3: 0.25}

_HEADER = "Review of the {kind} {name}: {opening}"
_PROMPT = re.compile(r"Review of the (\w+) (\w+ \w+): (.+)", re.DOTALL)
# What an opening that stops inside a sentence stops at.
_OPEN_ENDS = (AND.rstrip(), BUT.rstrip())


class SentimentTask(Task):
    """Continue a review so that it becomes positive while staying on topic.

    ## Description
    The prompt opens a review of something; the agent writes the rest:

    > Review of the cafe Blue Door: The soup was dull, but

    A good completion: " I loved the cake. Still, the tea was excellent and the bread was nice."
    At level 1 the opening is neutral, at level 2 it blames something mildly, and at level 3 it
    blames two things strongly. The texts are of a small grammar (`sentiment_world`), and the
    classifier, of words and pairs of words, is fitted to reviews drawn from it.

    With `dataset`, prompts are the first words of real reviews, and the classifier is fitted to
    them too: its accuracy on held-out ones is the attribute `accuracy`. Levels 2 and 3 then keep
    the prompts that read negative, and strongly so.

    ## Rewards
    On the last step, `tone * fluency * topic`, each in [0, 1] and reported in `info["metrics"]`:

    - tone is P(positive) of the opening and what follows it: 0 up to 0.55, 1 from 0.95, and linear
      in between. Only sound sentences are read.
    - fluency is the fraction of the sentences that are *sound*: the grammar has them, nothing is
      said twice, nothing that was blamed is praised (nor the other way round), and they speak of
      nothing that only other kinds of things have. Text after the last full stop, and an end that
      the agent did not write itself, count as a sentence that is not sound.
    - topic is 1 if sound sentences speak of two parts of the thing that is reviewed, 0.5 for one.

    With `dataset`:

    - tone is 0 up to a P(positive) of 0.5, and 1 from 0.9.
    - fluency is the share of the pairs and triples of words that training reviews have too,
      repeated ones counting as unknown; 0 where it is what shuffled reviews have (their 90%
      quantile), 1 where it is what held-out reviews have at their best (the 75% quantile); half of
      it if the agent did not end the text itself.
    - topic is the share of words that training reviews have; fewer than five words count as five.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    Args:
        level: 1, 2 or 3.
        dataset: real reviews in place of generated ones: a folder with `train.tsv` and `test.tsv`
            or `dev.tsv` (a sentence, a tab and a label a line); or a list of mappings, a file of
            rows, a Hugging Face dataset, or the hub id of one, one review in eight of which is
            held out, chosen by a hash of its text.
        text_column: the column of `dataset` that holds the review.
        label_column: the column that holds 1, "pos" or "positive", or 0, "neg" or "negative".
        prompt_words: the words of a real review that its prompt has.

    ## Version History
    - v0: first version.

    Example:
        >>> task = SentimentTask()
        >>> instance = task.from_prompt("Review of the cafe Blue Door: The soup was dull, but")
        >>> task.score_text(instance, " I loved the cake. The tea was superb. I enjoyed the bread.")
        1.0
        >>> task.score_text(instance, " good good good")
        0.0
        >>> task.score_text(instance, task.solve(instance))
        1.0
    """

    levels: ClassVar[int] = 3
    metric_names = Verdict._fields

    def __init__(
        self,
        *,
        level: int = 1,
        dataset: Any = None,
        text_column: str = "sentence",
        label_column: str = "label",
        prompt_words: int = 6,
    ) -> None:
        self.level = check_level(self, level)
        self.max_new_tokens = _MAX_NEW_TOKENS[self.level]
        check_positive_int("prompt_words", prompt_words)
        self.reviews: Reviews | None = None
        if dataset is not None:
            self.max_new_tokens = 72
            most = _MAX_PROBABILITY[self.level]
            self.reviews = load_reviews(dataset, text_column, label_column, prompt_words, most)

    @property
    def accuracy(self) -> float:
        """The share of held-out reviews that the classifier of `dataset` puts on the right side."""
        if self.reviews is None:
            raise AttributeError("`accuracy` is of real reviews. Give some as `dataset`.")
        return self.reviews.accuracy

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw an instance of `split`."""
        return super().draw(rng, split) if self.reviews is None else self.reviews.draw(rng, split)

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: a thing to review, and what opens the review."""
        if self.reviews is not None:
            return self.reviews.draw(rng, "train")
        kind = pick(tuple(ASPECTS), rng)
        name = f"{pick(FIRST_NAMES, rng)} {pick(LAST_NAMES, rng)}"
        said = [pick(clauses_about(kind, 1 - self.level), rng)]
        if self.level == 3:
            said.append(_another_clause(clauses_about(kind, -2), said[0], rng))
        sentences = [tell([clause]) for clause in said]
        if rng.random() < 0.5:
            joint = BUT if self.level > 1 else AND
            sentences[-1] = sentences[-1].removesuffix(".") + joint.rstrip()
        return _instance(kind, name, " ".join(sentences))

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for; with `dataset`, any text will do.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        if self.reviews is not None:
            return Instance(prompt)
        match = _PROMPT.fullmatch(prompt)
        if match is not None:
            kind, name, opening = match.groups()
            if kind not in ASPECTS:
                raise ValueError(f"review prompt: no kind {kind!r}. Known: {', '.join(ASPECTS)}.")
            if _Opening.read(kind, opening) is not None:
                return _instance(kind, name, opening)
        raise ValueError(
            f"not a review prompt: {prompt[:200]!r}. Expected one such as "
            f"{self.sample(np.random.default_rng(0)).prompt!r}"
        )

    def score(self, episode: Episode) -> float:
        """`tone * fluency * topic` of the completion."""
        return _product(self._judge_episode(episode))

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """The factors of the score."""
        return self._judge_episode(episode)._asdict()

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion` as it would be if the agent wrote it.

        Args:
            instance: what was asked for.
            completion: any text.
            ended: whether the agent ended the text itself.
        """
        return _product(self.judge(instance, completion, ended=ended))

    def judge(self, instance: Instance, completion: str, *, ended: bool = True) -> Verdict:
        """The factors of the score of `completion`; arguments as of `score_text`."""
        if self.reviews is not None:
            return self.reviews.judge(instance.prompt, completion, ended=ended)
        if len(completion) > _MAX_CHARACTERS:
            return Verdict(0.0, 0.0, 0.0)
        data = instance.data or self.from_prompt(instance.prompt).data
        opening = _Opening.read(data["kind"], data["opening"])
        if opening is None:
            raise ValueError(f"review prompt: no opening of a review: {data['opening']!r}.")
        review, half = opening.review, opening.half
        sentences = split_sentences(
            f"{half} {completion.removeprefix(' ')}" if half else completion
        )
        sound = [review.say(sentence) for sentence in sentences[:_MAX_SENTENCES]]
        if not completion.strip() or not any(sound):
            return Verdict(0.0, 0.0, 0.0)
        begun = opening.sentences if sound[0] else [*opening.sentences, half]
        said = [sentence for sentence, is_sound in zip(sentences, sound, strict=False) if is_sound]
        p = classifier().probability(" ".join([*begun, *said]))
        return Verdict(
            min(1.0, max(0.0, (p - NEUTRAL) / (SATURATION - NEUTRAL))),
            sum(sound) / (len(sentences) + (not ended)),
            min(1.0, len(review.aspects - opening.aspects) / MIN_ASPECTS),
        )

    def solve(self, instance: Instance) -> str:
        """A completion that scores 1.0: praise, until the whole is positive.

        Raises:
            NotImplementedError: with `dataset`, where no end of a positive review does.
        """
        if self.reviews is not None:
            return self.reviews.solve(instance.prompt)
        data = instance.data or self.from_prompt(instance.prompt).data
        # Varied from prompt to prompt, the same for the same prompt.
        rng = np.random.default_rng(zlib.crc32(instance.prompt.encode()))
        for _ in range(_MAX_TRIED):
            answer = self._praise(instance, data["kind"], data["opening"], rng)
            if answer is not None:
                return answer
        raise NotImplementedError(
            f"no review that goes on from {instance.prompt!r} was found to score 1.0. Leave it "
            "more to praise."
        )

    def _praise(
        self, instance: Instance, kind: str, text: str, rng: np.random.Generator
    ) -> str | None:
        """Sentence after sentence of praise, up to a score of 1.0; None if it comes to none."""
        opening = _Opening.read(kind, text)
        free = [a for a in ASPECTS[kind] if opening is None or a not in opening.aspects]
        # Each aspect in turn, and now and then none.
        aspects = itertools.cycle([free[i] for i in rng.permutation(len(free))] or [None])
        answer = ""
        while len(answer) <= _ANSWER_CHARACTERS[self.level]:
            clauses = [
                pick(clauses_on(a if rng.random() < 0.9 else None, 2 - (rng.random() < 0.25)), rng)
                for a in itertools.islice(aspects, 2 if rng.random() < 0.3 else 1)
            ]
            if not answer and opening is not None and opening.half:
                answer = f" {clauses[0].text}."
            else:
                start = pick(STARTS, rng) if rng.random() < 0.2 else ""
                answer += " " + tell(clauses, start=start)
            verdict = self.judge(instance, answer)
            if verdict == (1.0, 1.0, 1.0):
                return answer if len(answer) <= _ANSWER_CHARACTERS[self.level] else None
            if verdict.fluency < 1:
                return None
        return None

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt.

        Of real reviews, the length of the longest. Otherwise the longest header and the longest
        clauses; words meet at spaces, where tokenizers do not merge.
        """
        if self.reviews is not None:
            prompts = self.reviews.prompts
            return max(count_tokens(prompt) for split in SPLITS for prompt in prompts[split])
        names = sum(max(map(count_tokens, words)) for words in (FIRST_NAMES, LAST_NAMES))
        header = count_tokens(_HEADER.format(kind="", name="", opening="")) + names
        clause = max(count_tokens(tell([clause])) for clause in _openings(self.level))
        sentences = 2 if self.level == 3 else 1
        return header + max(map(count_tokens, ASPECTS)) + sentences * (clause + 1) + 4

    def _judge_episode(self, episode: Episode) -> Verdict:
        ended = episode.finish_reason == "stop"
        return self.judge(episode.instance, episode.completion_text, ended=ended)


def _instance(kind: str, name: str, opening: str) -> Instance:
    prompt = _HEADER.format(kind=kind, name=name, opening=opening)
    return Instance(prompt, data={"kind": kind, "opening": opening})


class _Opening(NamedTuple):
    """What a prompt says: whole sentences, and a half that the agent goes on with."""

    sentences: list[str]
    half: str
    aspects: frozenset[str]
    review: Review

    @classmethod
    def read(cls, kind: str, text: str) -> Self | None:
        """The opening that `text` is of the review of a `kind`; None where it is none."""
        sentences = split_sentences(text)
        half = "" if text.endswith(".") else sentences.pop()
        whole = sentences
        if half:
            end = next((end for end in _OPEN_ENDS if half.endswith(end)), None)
            clauses = read(half.removesuffix(end) + ".") if end else None
            if clauses is None or len(clauses) > 1:
                return None
            whole = [*sentences, tell(clauses)]
        told, review = _told(kind, whole), _told(kind, sentences)
        if told is None or review is None:
            return None
        return cls(sentences, half, frozenset(told.aspects), review)


def _told(kind: str, sentences: list[str]) -> Review | None:
    """The review of a `kind` so far; None where one of `sentences` is not sound."""
    review = Review(kind)
    for sentence in sentences:
        if not review.say(sentence):
            return None
    return review


def _openings(level: int) -> list[Clause]:
    worth = 1 - level
    return [clause for kind in ASPECTS for clause in clauses_about(kind, worth)]


def _another_clause(
    clauses: tuple[Clause, ...], clause: Clause, rng: np.random.Generator
) -> Clause:
    """One of `clauses` that speaks of something else than `clause`."""
    others = tuple(c for c in clauses if c.aspect != clause.aspect)
    return pick(others, rng)


def _product(verdict: Verdict) -> float:
    return verdict.tone * verdict.fluency * verdict.topic
