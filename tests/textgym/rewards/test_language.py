"""`Language`: the library's probabilities, and a choice of languages."""

import pickle
import sys

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.rewards import language as module
from textgym.rewards.language import Language

pytest.importorskip("py3langid", reason="py3langid is not installed")

TEXTS = {
    "en": "The red fox went into the garden and slept there until the sun came up again.",
    "de": "Der rote Fuchs ging in den Garten und schlief dort, bis die Sonne wieder aufging.",
    "fr": "Le renard rouge est entré dans le jardin et y a dormi jusqu'au lever du soleil.",
    "es": "El zorro rojo entró en el jardín y durmió allí hasta que volvió a salir el sol.",
}
GARBAGE = ["", " \n", "\x00\x07", "12, 34!", "\ufffd" * 3, "\ud800\udfff", "…" * 1_000_000]


def episode(text):
    ids = np.arange(3)
    return Episode(Instance("p"), ids, ids > 0, text, (Turn("agent", text),), "stop")


def test_each_text_is_in_its_language():
    episodes = [episode(text) for text in TEXTS.values()]
    table = np.stack([Language(code)(episodes) for code in TEXTS])
    assert table.dtype == np.float32
    assert (table.argmax(0) == np.arange(len(TEXTS))).all()
    assert (np.diag(table) > 0.8).all()
    assert (table.sum(0) <= 1 + 1e-6).all()


def test_among_renormalises_over_its_languages():
    # A restricted softmax: the ratio of two probabilities does not change.
    text = TEXTS["en"][:24]
    all_of_them = {code: Language(code).value(text) for code in TEXTS}
    among = {code: Language(code, among=list(TEXTS)).value(text) for code in TEXTS}
    assert sum(among.values()) == pytest.approx(1)
    for code in TEXTS:
        assert among[code] == pytest.approx(all_of_them[code] / sum(all_of_them.values()), rel=1e-3)
    assert Language("en").value(text) == all_of_them["en"]  # the shared model is untouched


def test_agrees_with_the_library():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    rng = np.random.default_rng(0)
    words = " ".join(TEXTS.values()).split()
    texts = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(100)]
    values = Language("de")([episode(text) for text in texts])
    expected = [dict(identifier.rank(text))["de"] for text in texts]
    assert values == pytest.approx(expected, abs=1e-6)
    assert values.tolist() == [np.float32(Language("de").value(text)) for text in texts]


@pytest.mark.parametrize("among", [None, ["de", "en"]])
def test_what_has_no_letter_pays_0(among):
    values = Language("en", among=among)([episode(text) for text in GARBAGE])
    assert values.tolist() == [0] * len(GARBAGE)


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, "\ud800a", "\x00a", "é" * 5, "字" * 9, "QWX ZXQ"]
)
def test_odd_texts_have_a_value(text):
    assert 0 <= Language("en").value(text) <= 1
    assert 0 <= Language("en", among=["en", "fr"]).value(text) <= 1


def test_only_the_beginning_is_read():
    long = TEXTS["de"] * 200
    assert Language("de").value(long + TEXTS["en"] * 1000) == Language("de").value(long)


def test_the_model_is_loaded_once():
    Language("en").value("a")
    before = module._identifier.cache_info().misses
    Language("fr").value("a")
    assert module._identifier.cache_info().misses == before
    Language("de", among=["fr"])
    assert module._identifier(("de", "fr")).tk_nextmove is module._identifier().tk_nextmove


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown language 'english'"):
        Language("english")
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        Language("de", among=["xx"])
    with pytest.raises(ValueError, match="besides 'de'"):
        Language("de", among=["de"])
    with pytest.raises(TypeError, match="list of languages"):
        Language("de", among="en")


def test_a_missing_package_is_named(monkeypatch):
    module._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ImportError, match=r"textgym\[rewards\]"):
        Language("en")


def test_spec_arguments():
    reward = Language.from_arguments("de,among=en|fr")
    assert (reward.language, reward.among) == ("de", ("de", "en", "fr"))
    assert Language.from_arguments("en").among is None
    assert pickle.loads(pickle.dumps(reward)).value("Guten Tag") == reward.value("Guten Tag")
