"""`TranslationTask`: translate a sentence, English into German or back, of a grammar or real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from textgym.episode import Episode, Instance
from textgym.errors import check_positive_int, near_matches
from textgym.metrics import METRICS
from textgym.seeding import SPLITS, Split
from textgym.tasks.base import Task, TokenCounter, check_level
from textgym.tasks.translation_data import Pair, read_pairs
from textgym.tasks.translation_grammar import (
    Case,
    NounPhrase,
    draw_sentence,
    english_phrase,
    german_phrase,
    german_verb,
    in_english,
    in_german,
)
from textgym.tasks.translation_lexicon import (
    ADJECTIVES,
    DETERMINERS,
    LINKS,
    NAMES,
    NOUNS,
    PLACES,
    TIMES,
    Noun,
)
from textgym.tasks.translation_reader import english_verbs, parse_english
from textgym.tokenization import Tokenizer

LANGUAGES = {"en": "English", "de": "German"}
DIRECTIONS = ("en-de", "de-en")
SCORES = ("bleu", "chrf", "exact_match")
BUDGETS = {1: 48, 2: 64, 3: 112}

# What the target's own words are worth in disorder, and what is lost by not ending the text.
DISORDER, UNENDED = 0.05, 0.1


class TranslationTask(Task):
    """Translate a sentence from English into German, or from German into English.

    ## Description
    > English: The old man buys a red house.
    > German:

    to be continued with `` Der alte Mann kauft ein rotes Haus.`` Sentences come from a synchronous
    grammar (`translation_grammar`), in which each English word has one German translation and each
    sentence one translation, either way. With `dataset` they are real.

    Levels: 1 is main clauses in the present, of four to seven English words (gender, number,
    articles, adjective endings, nominative and accusative). 2 has more words, and adds times and
    places, first in the sentence or later (the German verb stays second), separable verbs, the
    dative and nouns without articles. 3 adds modal verbs, the past, negation, and dependent
    clauses, which have the verb last.

    ## Rewards
    On the last step, `metric` of what the agent wrote against the translation, stretched so that
    the right words in disorder earn next to nothing: if the translation's own words, every second
    one first, which parts all neighbours, have a metric of f, then f is worth 0.05, 0 is 0 and 1
    is 1, with straight lines between. BLEU has an f of 0.27 for four words and a full stop and of
    0.1 for long sentences, much the same for any such order. (chrF sees little of the order: f is
    0.4 to 0.8, and some other disorder of a short sentence may score up to 0.5.)

    A translation that the agent did not end itself loses a tenth. A text longer than four times the
    translation and 64 characters is worth 0.

    The plain `bleu`, `chrf` and `exact_match` are reported beside the score.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    Args:
        level: 1 to 3; of the grammar.
        direction: "en-de" or "de-en".
        metric: "bleu", "chrf" or "exact_match".
        dataset: real pairs in place of the grammar's. A folder with `train.en` and `train.de`, one
            sentence a line (`.gz` or not), where `test*` or else `val*` is the test split; or a
            `.jsonl`, `.csv`, `.tsv` or `.parquet` file, a list of mappings or a Hugging Face
            dataset, of which one pair in eight, by a hash, is for the test split. Pairs for the
            test split with a source that is in the train split are left out, as are repeated ones.
        source_column: in `dataset`, what holds the source; by default the code of its language.
        target_column: the same of the target.
        max_words: of `dataset`, only pairs with at most so many words on both sides.

    ## Version History
    - v0: first version.

    Example:
        >>> task = TranslationTask()
        >>> instance = task.from_prompt("English: The old man buys a red house.\\nGerman:")
        >>> task.solve(instance)
        ' Der alte Mann kauft ein rotes Haus.'
        >>> task.score_text(instance, "Der alte Mann kauft ein rotes Haus.")
        1.0
        >>> round(task.score_text(instance, "Der alte Mann kauft das rotes Haus."), 2)
        0.44
        >>> task.score_text(instance, "The old man buys a red house.") < 0.05
        True
    """

    levels: ClassVar[int] = 3
    metric_names = SCORES

    def __init__(
        self,
        *,
        level: int = 1,
        direction: str = "en-de",
        metric: str = "bleu",
        dataset: Any = None,
        source_column: str | None = None,
        target_column: str | None = None,
        max_words: int | None = None,
    ) -> None:
        self.level = check_level(self, level)
        self.direction = _check_one("direction", direction, DIRECTIONS)
        self.metric = _check_one("metric", metric, SCORES)
        self.source, self.target = direction.split("-")
        self.pairs: dict[Split, list[Pair]] | None = None
        self.max_new_tokens = BUDGETS[self.level]
        if dataset is None:
            given = {
                "source_column": source_column,
                "target_column": target_column,
                "max_words": max_words,
            }
            for name, value in given.items():
                if value is not None:
                    raise ValueError(
                        f"`{name}` is about `dataset`, which is not given. Give both or neither."
                    )
            return
        if self.level != 1:
            raise ValueError(
                f"`level` is of the grammar, got {self.level} with a `dataset`. Leave it out; "
                "`max_words` keeps the short pairs."
            )
        if max_words is not None:
            check_positive_int("max_words", max_words, "None is no limit.")
        columns = source_column or self.source, target_column or self.target
        self.pairs = read_pairs(dataset, columns, max_words)
        self._by_source = dict(pair for split in SPLITS for pair in self.pairs[split])
        # Under the embedded tokenizer; one with more words needs less.
        tokenizer = Tokenizer.load()
        targets = (" " + target for target in self._by_source.values())
        self.max_new_tokens = 1 + _most_tokens(targets, lambda text: len(tokenizer.encode(text)))

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw a sentence; of a data set, one of the train split."""
        if self.pairs is not None:
            return self.draw(rng, "train")
        sentence = draw_sentence(self.level, rng)
        pair = in_english(sentence), in_german(sentence)
        return self._instance(*(pair if self.source == "en" else pair[::-1]))

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw a sentence of `split`."""
        if self.pairs is None:
            return super().draw(rng, split)
        pairs = self.pairs[split]
        if not pairs:
            raise ValueError(
                f"`dataset` has no pair for the {split} split. Give more rows: about one in eight "
                "is for the test split."
            )
        return self._instance(*pairs[int(rng.integers(len(pairs)))])

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not one of this task's, or is of the grammar's German,
                which is written here but not read.
        """
        opening, closing = f"{LANGUAGES[self.source]}: ", f"\n{LANGUAGES[self.target]}:"
        if not (prompt.startswith(opening) and prompt.endswith(closing)):
            raise ValueError(
                f"not a translation prompt: {prompt[:200]!r}. Expected "
                f"{opening + '...' + closing!r}."
            )
        source = prompt[len(opening) : -len(closing)]
        if self.pairs is not None:
            if source not in self._by_source:
                raise ValueError(f"`dataset` has no sentence {source[:200]!r} to translate.")
            return self._instance(source, self._by_source[source])
        if self.source == "de":
            return super().from_prompt(prompt)
        sentence = parse_english(source)
        if sentence is None:
            raise ValueError(
                f"the grammar has no sentence {source[:200]!r}. Expected one such as "
                f"{in_english(draw_sentence(self.level, np.random.default_rng(0)))!r}"
            )
        return self._instance(source, in_german(sentence))

    def score(self, episode: Episode) -> float:
        """`metric` of the completion against the target, stretched."""
        ended = episode.finish_reason == "stop"
        return self.score_text(episode.instance, episode.completion_text, ended=ended)

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion` as it would be if the agent wrote it.

        Args:
            instance: what was asked for.
            completion: any text.
            ended: whether the agent ended the text itself.
        """
        target, text = _target(instance), completion.strip()
        if len(text) > 4 * len(target) + 64:
            return 0.0
        value, floor = METRICS[self.metric](text, target), _disordered(self.metric, target)
        if 0 < floor < 1:
            rise = DISORDER * value / floor
            above = 1 - (1 - DISORDER) * (1 - value) / (1 - floor)
            value = rise if value < floor else above
        return value if ended else (1 - UNENDED) * value

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """`bleu`, `chrf` and `exact_match`, as they are."""
        text, target = episode.completion_text.strip(), _target(episode.instance)
        return {name: METRICS[name](text, target) for name in SCORES}

    def solve(self, instance: Instance) -> str:
        """The translation."""
        return " " + _target(instance)

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt of either split."""
        if self.pairs is not None:
            prompts = (self._prompt(source) for source in self._by_source)
            return _most_tokens(prompts, count_tokens)
        return count_tokens(self._prompt(".")) + _longest(self.source, self.level, count_tokens)

    def _prompt(self, source: str) -> str:
        return f"{LANGUAGES[self.source]}: {source}\n{LANGUAGES[self.target]}:"

    def _instance(self, source: str, target: str) -> Instance:
        return Instance(self._prompt(source), target)


def _check_one(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"`{name}` {value!r} is unknown; {near_matches(str(value), known)}.")
    return value


def _target(instance: Instance) -> str:
    if not instance.target or not instance.target.strip():
        raise ValueError(
            f"no translation to compare with: {instance.prompt[:200]!r} has no `target`. "
            "Give `Instance(prompt, target=...)`."
        )
    return instance.target.strip()


@lru_cache(maxsize=4096)
def _disordered(metric: str, target: str) -> float:
    """The metric of the target's words, every second one first: no two neighbours stay."""
    words = target.split()
    return METRICS[metric](" ".join([*words[1::2], *words[::2]]), target)


def _most_tokens(texts: Iterable[str], count_tokens: TokenCounter) -> int:
    """The tokens of the longest of `texts`.

    Tried from the most bytes on, until the rest have fewer bytes than the longest has tokens: no
    tokenizer makes more tokens than bytes, but for special ones.
    """
    special, most = count_tokens("") + 1, 0
    sizes = {text: len(text.encode("utf-8", "surrogatepass")) for text in texts}
    for text in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if sizes[text] + special <= most:
            break
        most = max(most, count_tokens(text))
    return most


def _longest(language: str, level: int, count_tokens: TokenCounter) -> int:
    """An upper bound on the tokens of any sentence of the grammar: the longest word in each place.

    Words meet at spaces, where tokenizers do not merge.
    """
    alone = count_tokens("a")

    def most(texts: Iterable[str]) -> int:
        forms = {form for text in texts for form in (text, text[:1].upper() + text[1:])}
        return max(count_tokens(f"a {form}") for form in forms) - alone

    words = _english_words(level) if language == "en" else _german_words(level)
    phrases, adjectives, verbs, places, times, links = map(most, words)
    phrase = phrases + adjectives
    if level == 1:
        return phrase + verbs + phrase + 1
    clause = phrase + verbs + phrase + max(phrase, places) + times
    if level == 2:
        return clause + 1
    return 2 * clause + links + count_tokens("a,") - alone + 2


def _phrases(level: int) -> list[NounPhrase]:
    nouns: list[Noun | str] = [*NAMES, *(noun for noun in NOUNS if noun.level <= level)]
    return [
        NounPhrase(noun, determiner, plural=plural)
        for noun in nouns
        for determiner in DETERMINERS
        for plural in (False, True)
    ]


def _english_words(level: int) -> tuple[Iterable[str], ...]:
    """Noun phrases, adjectives, verbs, places, times and links."""
    # An adjective may turn "a" into "an".
    phrases = {english_phrase(phrase).replace("a ", "an ") for phrase in _phrases(level)}
    return phrases, ADJECTIVES, english_verbs(level), PLACES, TIMES, LINKS


def _german_words(level: int) -> tuple[Iterable[str], ...]:
    """The same in German: with every ending, verbs with whatever negates them."""
    cases: tuple[Case, ...] = ("nominative", "accusative", "dative")
    phrases = {german_phrase(phrase, case) for phrase in _phrases(level) for case in cases}
    adjectives = [row[0] + e for row in ADJECTIVES.values() for e in ("e", "er", "en", "es", "em")]
    verbs = {
        " ".join(german_verb(verb, tense, modal, plural)) + (" keinen nicht" if level > 2 else "")
        for verb, tense, modal, _ in english_verbs(level).values()
        for plural in (False, True)
    }
    times = [row[0] for row in TIMES.values()]
    return phrases, adjectives, verbs, PLACES.values(), times, LINKS.values()
