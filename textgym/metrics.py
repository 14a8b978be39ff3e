"""How close a text is to its target: pure functions of two strings, all in [0, 1].

Any text is valid. Of a long one, as much is read as can matter: what a model writes without end
must not stall the run. Where a target holds nothing that a metric counts (no words, say), only the
target itself is worth anything.

`meteor` and `edit_similarity` need libraries of their own: `pip install "textgym[rewards]"`.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from textgym.errors import check_known

Metric = Callable[[str, str], float]

# A text is read this far, or to twice the length of its target if that is more.
MAX_CHARACTERS = 2000

# The longest target, in words, that `ter` looks for moved words in: the search takes up to a second
# at this length, and many of them for a page.
MOST_WORDS_WITH_SHIFTS = 40

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_ARTICLES = frozenset(("a", "an", "the"))
_WORD_OR_SIGNS = re.compile(r"\w+|[^\w\s]+")


def chrf(text: str, target: str) -> float:
    """Character n-gram F-score, sentence level, as sacrebleu's `CHRF()` gives it, over 100.

    Source: Popovic, chrF: character n-gram F-score for automatic MT evaluation, 2015.

    >>> chrf("the fox", "the fox")
    1.0
    """
    return _sacrebleu_score("CHRF", text, target)


def bleu(text: str, target: str) -> float:
    """BLEU of one sentence, exponential smoothing, effective order, as sacrebleu gives it.

    Source: Papineni et al., BLEU: a method for automatic evaluation of machine translation, 2002.

    >>> bleu("the red fox ran home", "the red fox ran home")
    1.0
    """
    return _sacrebleu_score("BLEU", text, target)


def ter(text: str, target: str) -> float:
    """1 less the translation edit rate, and 0 where that is above 1; case ignored.

    The rate is sacrebleu's `TER()`: the words to insert, delete, substitute or move (a phrase at a
    time), over the words of the target. For targets of more than 40 words, where the search for
    what to move would take seconds, a phrase that is moved is deleted and inserted instead.

    Source: Snover et al., A study of translation edit rate with targeted human annotation, 2006.

    >>> ter("home the red fox ran", "the red fox ran home")
    0.8
    """
    words, wanted = _read(text, target).lower().split(), target.lower().split()
    if not wanted:
        return exact_match(text, target)
    # An edit mends one word at most, so this many are needed: spares most bad texts the search.
    if max(len(words), len(wanted)) - _in_common(words, wanted) >= len(wanted):
        return 0.0
    if len(wanted) > MOST_WORDS_WITH_SHIFTS:
        edits = _distance(words, wanted)
    else:
        from sacrebleu.metrics.lib_ter import translation_edit_rate

        edits, _ = translation_edit_rate(words, wanted)
    return max(0.0, 1 - edits / len(wanted))


def meteor(text: str, target: str) -> float:
    """METEOR: F-score of the words in common, mostly recall, less for each break in their order.

    As nltk gives it for words and punctuation marks, exact and by Porter stem, synonyms aside:
    these would need a download. The target itself, of m words, is worth 1 - 1 / (2 m^3): 0.5 for
    one word, 0.996 for five.

    Raises:
        ImportError: nltk is not installed.

    Source: Lavie and Agarwal, METEOR: an automatic metric for MT evaluation with high levels of
    correlation with human judgments, 2007.
    """
    nltk = _optional("meteor", "nltk.translate.meteor_score")
    words, wanted = (_WORD_OR_SIGNS.findall(t) for t in (_read(text, target), target))
    if not wanted:
        return exact_match(text, target)
    return float(nltk.single_meteor_score(wanted, words, wordnet=_NoSynonyms()))


def edit_similarity(text: str, target: str) -> float:
    """1 less the Levenshtein distance in characters over the length of the longer text.

    As rapidfuzz gives it.

    Raises:
        ImportError: rapidfuzz is not installed.

    Source: Levenshtein, Binary codes capable of correcting deletions, insertions and reversals,
    1966.
    """
    levenshtein = _optional("edit_similarity", "rapidfuzz.distance.Levenshtein")
    return float(levenshtein.normalized_similarity(_read(text, target), target))


def exact_match(text: str, target: str) -> float:
    """1.0 where both are the same text, white space at either end aside.

    >>> exact_match(" Paris", "Paris"), exact_match("paris", "Paris")
    (1.0, 0.0)
    """
    return float(text.strip() == target.strip())


def token_f1(text: str, target: str) -> float:
    """F1 of the words in common, case, punctuation and articles aside.

    Source: Rajpurkar et al., SQuAD: 100,000+ questions for machine comprehension of text, 2016.

    >>> token_f1("The red fox.", "a fox")
    0.6666666666666666
    """
    words, wanted = _answer_words(_read(text, target)), _answer_words(target)
    if not wanted:
        return exact_match(text, target)
    return _f1(_in_common(words, wanted), len(words), len(wanted))


def rouge1(text: str, target: str) -> float:
    """ROUGE-1: F1 of the words in common, unstemmed.

    Source: Lin, ROUGE: a package for automatic evaluation of summaries, 2004.

    >>> rouge1("the cat sat", "the cat lay down")
    0.5714285714285714
    """
    return _rouge_n(text, target, 1)


def rouge2(text: str, target: str) -> float:
    """ROUGE-2: F1 of the pairs of neighbouring words in common, unstemmed.

    Source: as `rouge1`.

    >>> rouge2("the cat sat", "the cat lay down")
    0.4
    """
    return _rouge_n(text, target, 2)


def rouge_l(text: str, target: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, unstemmed.

    Source: as `rouge1`.

    >>> rouge_l("a c", "a b c")
    0.8
    """
    words, wanted = _rouge_words(_read(text, target)), _rouge_words(target)
    if not wanted:
        return exact_match(text, target)
    return _f1(_common_subsequence(words, wanted), len(words), len(wanted))


METRICS: dict[str, Metric] = {
    function.__name__: function
    for function in (
        chrf,
        bleu,
        ter,
        meteor,
        edit_similarity,
        exact_match,
        token_f1,
        rouge1,
        rouge2,
        rouge_l,
    )
}


def find_metric(name: str) -> Metric:
    """The metric called `name`.

    Raises:
        TypeError: none is; lists near matches.

    >>> find_metric("rouge_l") is rouge_l
    True
    """
    check_known("metric", [name], METRICS)
    return METRICS[name]


def _read(text: str, target: str) -> str:
    return text[: max(MAX_CHARACTERS, 2 * len(target))]


def _answer_words(text: str) -> list[str]:
    # As SQuAD's own script does: punctuation vanishes, so "it's" is "its".
    words = _PUNCTUATION.sub("", text.lower()).split()
    return [word for word in words if word not in _ARTICLES]


def _rouge_words(text: str) -> list[str]:
    # What rouge-score's default tokenizer keeps.
    return re.findall(r"[a-z0-9]+", text.lower())


def _f1(common: int, length: int, wanted: int) -> float:
    return 2 * common / (length + wanted)


def _in_common(these: Sequence[Any], those: Sequence[Any]) -> int:
    return sum((Counter(these) & Counter(those)).values())


def _rouge_n(text: str, target: str, n: int) -> float:
    grams, wanted = (
        list(zip(*(words[i:] for i in range(n)), strict=False))
        for words in (_rouge_words(_read(text, target)), _rouge_words(target))
    )
    if not wanted:
        return exact_match(text, target)
    return _f1(_in_common(grams, wanted), len(grams), len(wanted))


def _common_subsequence(words: Sequence[str], wanted: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    One bit for each of `wanted`, so that a word of the other text costs a few operations on one
    large int. Source: Hyyrö, Bit-parallel LCS-length computation revisited, 2004.
    """
    places = _places(wanted)
    full = (1 << len(wanted)) - 1
    free = full
    for word in words:
        hits = free & places.get(word, 0)
        free = (free + hits | free - hits) & full
    return len(wanted) - free.bit_count()


def _distance(words: Sequence[str], wanted: Sequence[str]) -> int:
    """The Levenshtein distance, one bit for each of `wanted`, as `_common_subsequence` has them.

    `up` and `down` hold where the distance rises and falls from one of `wanted` to the next.
    Source: Hyyrö, Explaining and extending the bit-parallel approximate string matching algorithm
    of Myers, 2001.
    """
    places = _places(wanted)
    full, last = (1 << len(wanted)) - 1, len(wanted) - 1
    up, down, distance = full, 0, len(wanted)
    for word in words:
        hits = places.get(word, 0)
        flat = ((hits & up) + up ^ up) | hits | down
        right_up, right_down = down | ~(flat | up) & full, up & flat
        distance += (right_up >> last & 1) - (right_down >> last & 1)
        right_up, right_down = (right_up << 1 | 1) & full, right_down << 1 & full
        up, down = right_down | ~(flat | right_up) & full, right_up & flat
    return distance


def _places(words: Sequence[str]) -> dict[str, int]:
    """Where each of `words` stands, as the bits of an int."""
    places: dict[str, int] = {}
    for i, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << i
    return places


class _NoSynonyms:
    """Stands in for the WordNet that METEOR would look synonyms up in."""

    def synsets(self, word: str) -> tuple[()]:
        return ()


def _optional(metric: str, module: str) -> Any:
    # Imported when used: nltk takes a fifth of a second.
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"the metric `{metric}` needs {module.partition('.')[0]}. "
            'Install it: pip install "textgym[rewards]"'
        ) from error


@lru_cache
def _scorer(kind: str) -> Any:
    # Imported here: it costs a tenth of a second, and most environments need none of it.
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return CHRF() if kind == "CHRF" else BLEU(effective_order=True)


def _sacrebleu_score(kind: str, text: str, target: str) -> float:
    if not target.strip():
        return exact_match(text, target)
    # Lone surrogates, which a broken decoder may hand over, would not survive its encoding.
    clean, wanted = (t.encode("utf-8", "replace").decode() for t in (_read(text, target), target))
    score = float(_scorer(kind).sentence_score(clean, [wanted]).score) / 100
    return min(1.0, max(0.0, round(score, 12)))
