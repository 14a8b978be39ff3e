"""How close a text is to its target: pure functions of two strings, all in [0, 1].

Any text is valid. Of a long one, as much is read as can matter: what a model writes without end
must not stall the run. Where a target holds nothing that a metric counts (no words, say), only the
target itself is worth anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from textgym.errors import check_known

Metric = Callable[[str, str], float]

# A text is read this far, or to twice the length of its target if that is more.
MAX_CHARACTERS = 2000

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_ARTICLES = frozenset(("a", "an", "the"))


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
    for function in (chrf, bleu, exact_match, token_f1, rouge1, rouge2, rouge_l)
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
    places: dict[str, int] = {}
    for i, word in enumerate(wanted):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(wanted)) - 1
    free = full
    for word in words:
        hits = free & places.get(word, 0)
        free = (free + hits | free - hits) & full
    return len(wanted) - free.bit_count()


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
