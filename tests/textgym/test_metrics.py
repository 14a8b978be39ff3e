"""Metrics: against sacrebleu, against figures worked out by hand, and against hostile text."""

import random
import time

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from textgym.metrics import (
    METRICS,
    bleu,
    chrf,
    exact_match,
    find_metric,
    rouge1,
    rouge2,
    rouge_l,
    token_f1,
)

PAIRS = [
    ("a dog runs on the beach", "the dog is running on a beach"),
    ("Ein Hund läuft.", "Ein Hund rennt am Strand."),
    ("The cat sat.", "The cat sat."),
    ("nothing alike", "xyz"),
    ("", "some target"),
    ("two\nlines here", "two lines here"),
]


@pytest.mark.parametrize(("text", "target"), PAIRS)
def test_chrf_and_bleu_are_sacrebleus(text, target):
    expected = CHRF().sentence_score(text, [target]).score / 100
    assert chrf(text, target) == pytest.approx(expected, abs=1e-9)
    expected = BLEU(effective_order=True).sentence_score(text, [target]).score / 100
    assert bleu(text, target) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("metric", "text", "target", "expected"),
    [
        (exact_match, " Paris\n", "Paris", 1.0),
        (exact_match, "paris", "Paris", 0.0),
        (token_f1, "The Red fox!", "a red fox", 1.0),
        (token_f1, "red", "red fox", 2 / 3),
        (token_f1, "red red", "red fox", 1 / 2),
        (token_f1, "it's", "its", 1.0),
        (token_f1, "blue", "red fox", 0.0),
        # Six words against six, three in common: P = R = 1/2.
        (rouge1, "the cat was on a mat", "the cat sat near the mat", 1 / 2),
        # (the cat) alone of five pairs each.
        (rouge2, "the cat was on a mat", "the cat sat near the mat", 1 / 5),
        # the cat ... mat, in order.
        (rouge_l, "the cat was on a mat", "the cat sat near the mat", 1 / 2),
        (rouge_l, "mat the cat", "the cat mat", 2 / 3),
        (rouge1, "the the the", "the cat", 2 / 5),
        (rouge2, "word", "word", 1.0),
        (rouge2, "word", "two words", 0.0),
    ],
)
def test_figures_worked_out_by_hand(metric, text, target, expected):
    assert metric(text, target) == pytest.approx(expected, abs=1e-12)


def test_the_longest_common_subsequence_is_that_of_the_textbook():
    rng = random.Random(0)

    def longest(a, b):
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + longest(a[1:], b[1:])
        return max(longest(a[1:], b), longest(a, b[1:]))

    for _ in range(300):
        a, b = (rng.choices("xyz", k=rng.randint(1, 6)) for _ in range(2))
        expected = 2 * longest(a, b) / (len(a) + len(b))
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_any_text_is_judged_and_fast(metric):
    target = "the quick brown fox " * 5
    metric("warm", "up")
    for text in (
        "",
        "\ud800",
        "\x00" * 100_000,
        "a" * 100_000,
        "the fox " * 12_500,
        "\udfff x " * 25_000,
        "日本" * 50_000,
        ". " * 50_000,
    ):
        start = time.perf_counter()
        assert 0.0 <= metric(text, target) < 0.6
        assert time.perf_counter() - start < 0.25


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("target", ["the fox", "The", "!?", "日本語", "a " * 5000, "x"])
def test_the_target_itself_is_worth_one(metric, target):
    assert metric(target, target) == 1.0


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(("text", "target"), [("", "The"), ("日", "本"), ("", "!?"), ("x", " ")])
def test_a_target_without_words_is_no_gift(metric, text, target):
    assert metric(text, target) == 0.0


def test_unknown_names_list_near_matches():
    assert find_metric("chrf") is chrf
    with pytest.raises(TypeError, match="unknown metric `rougel`; did you mean `rouge_l`"):
        find_metric("rougel")
