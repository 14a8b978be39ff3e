"""`Readability`: the formulas by hand, and what counts as a word, a sentence, a syllable."""

import sys

import pytest

from textgym.rewards import readability
from textgym.rewards.readability import Readability, count_units

SIMPLE = "Reading is a simple matter."  # 5 words, 8 syllables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, 0)),
        ("... 12 !?", (0, 0, 0)),
        (SIMPLE, (5, 1, 8)),
        ("The cat sat", (3, 1, 3)),  # the end of the text ends a sentence
        ("Go! Go!! Go?", (3, 3, 3)),
        ('He said "go." She went', (5, 2, 5)),
        ("Go ! Now .", (2, 2, 2)),  # as the French space it
        ("It's 3.5 dollars.", (2, 1, 3)),
        ("a self-made man", (3, 1, 4)),
        ("Wait... what…", (2, 2, 2)),
    ],
)
def test_units(text, expected):
    assert count_units(text, "en") == expected


def test_ease():
    # 206.835 - 1.015 * 5 - 84.6 * 8 / 5
    assert Readability().value(SIMPLE) == pytest.approx(0.664)
    # The same and 7 words of 11 syllables: yel-low, riv-er, wind-ing, wa-ter.
    text = f"{SIMPLE} The yellow river is a winding water."
    assert count_units(text, "en") == (12, 2, 19)
    assert Readability().value(text) == pytest.approx(
        (206.835 - 1.015 * 12 / 2 - 84.6 * 19 / 12) / 100
    )
    assert Readability().value("Go. Go. Go.") == 1.0
    assert Readability().value("Administrative responsibility notwithstanding") == 0.0


@pytest.mark.parametrize(
    ("target", "tolerance", "expected"),
    # The grade is 0.39 * 5 + 11.8 * 8 / 5 - 15.59 = 5.24.
    [(5.24, 4, 1), (7.24, 4, 0.5), (3.24, 4, 0.5), (9.24, 4, 0), (12, 4, 0), (6, 10, 0.924)],
)
def test_target_grade(target, tolerance, expected):
    reward = Readability(target, tolerance=tolerance)
    assert reward.value(SIMPLE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("language", "text", "units", "ease"),
    [
        ("de", "Der Vater hat zwei Kinder.", (5, 1, 7), 180 - 5 - 58.5 * 7 / 5),
        ("es", "La casa roja.", (3, 1, 5), 206.84 - 1.02 * 3 - 60 * 5 / 3),
        ("fr", "Le papillon dort.", (3, 1, 4), 207 - 1.015 * 3 - 73.6 * 4 / 3),
        ("it", "La farfalla dorme.", (3, 1, 6), 217 - 1.3 * 3 - 60 * 6 / 3),
        ("nl", "De vlinder slaapt.", (3, 1, 4), 206.84 - 0.93 * 3 - 77 * 4 / 3),
    ],
)
def test_languages(language, text, units, ease):
    assert count_units(text, language) == units
    assert Readability(language=language).value(text) == pytest.approx(min(ease / 100, 1))


def test_the_words_it_has_seen_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(readability, "_MOST_KEPT", 10)
    reward = Readability()
    for i in range(30):
        reward.value(f"word{chr(97 + i % 26)}{chr(97 + i // 26)} and so on")
    kept = readability._hyphenation("en").hd.cache
    assert len(kept) <= 10 + 4
    assert all(len(word) <= 40 for word in kept)


def test_specs():
    reward = Readability.from_arguments("6,tolerance=2.5")
    assert (reward.target_grade, reward.tolerance, reward.language) == (6.0, 2.5, "en")
    assert Readability.from_arguments("language=de").language == "de"
    assert (reward.range, reward.name) == ((0.0, 1.0), "readability")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Readability(language="eng"), "`language` cannot be 'eng'; did you mean `en`"),
        (lambda: Readability(6, language="de"), "English only"),
        (lambda: Readability(float("nan")), "`target_grade` must be a finite number"),
        (lambda: Readability(6, tolerance=0), "`tolerance` must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_without_pyphen_it_says_what_to_install(monkeypatch):
    readability._hyphenation.cache_clear()
    monkeypatch.setitem(sys.modules, "pyphen", None)
    with pytest.raises(ImportError, match=r'pip install "textgym\[rewards\]"'):
        Readability()
