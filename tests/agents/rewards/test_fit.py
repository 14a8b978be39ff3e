"""Fitting reward models to small data whose rule is known."""

import io
import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    pipeline,
)

from textgym_agents.cli.errors import CommandError
from textgym_agents.cli.fit_reward import fit_reward
from textgym_agents.rewards.classifier import Classifier
from textgym_agents.rewards.fit import FitOptions, fit, read
from textgym_agents.rewards.fit_calibration import (
    auc,
    calibration_error,
    fit_temperature,
    fold,
    nll,
    reliability,
)
from textgym_agents.rewards.fit_checks import best_of_n, curve_means, overpaid
from textgym_agents.rewards.fit_data import read_examples
from textgym_agents.rewards.fit_model import word_tokenizer
from textgym_agents.rewards.fit_training import TextJudge

pytestmark = pytest.mark.usefixtures("one_thread")

GOOD = ["lovely", "bright", "kind", "gentle", "sweet", "warm", "merry", "clever"]
BAD = ["dull", "grim", "cruel", "bitter", "sour", "cold", "gloomy", "foolish"]
NEUTRAL = [
    "the",
    "a",
    "fox",
    "owl",
    "river",
    "ran",
    "sang",
    "under",
    "over",
    "old",
    "green",
    "hill",
    "and",
    "then",
    "home",
]


def sentence(rng, good):
    words = [*rng.choice(NEUTRAL, 7), *rng.choice(GOOD if good else BAD, 2)]
    return " ".join(rng.permutation(words))


def labelled(path, count, seed, noise=0.0, header=None):
    """A TSV of texts and 0 or 1, as sentiment data comes."""
    rng = np.random.default_rng(seed)
    lines = [] if header is None else [header]
    for _ in range(count):
        good = bool(rng.integers(2))
        wrong = rng.random() < noise
        lines.append(f"{sentence(rng, good)}\t{int(good != wrong)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def quality(rng, level):
    """A text with `level` good words of four."""
    words = [*rng.choice(NEUTRAL, 6), *rng.choice(GOOD, level), *rng.choice(BAD, 4 - level)]
    return " ".join(rng.permutation(words))


def pairs(path, count, prompts=False):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        worse, better = np.sort(rng.choice(5, 2, replace=False))
        row = {"chosen": quality(rng, better), "rejected": quality(rng, worse)}
        if prompts:
            row["prompt"] = f"Tell of {' '.join(rng.choice(NEUTRAL, 3))}: "
        rows.append(json.dumps(row))
    path.write_text("\n".join(rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit to noisy labels through the whole command."""
    folder = tmp_path_factory.mktemp("fit")
    train = labelled(folder / "train.tsv", 800, seed=0, noise=0.1)
    dev = labelled(folder / "dev.tsv", 400, seed=1, noise=0.1)
    screen = io.StringIO()
    console = Console(file=screen, width=120)
    options = FitOptions(train, dev, epochs=8, learning_rate=3e-3)
    record = fit_reward(options, folder / "out", console, "textgym fit-reward")
    return folder / "out", record, screen.getvalue()


def test_it_learns_a_rule(tmp_path):
    train = labelled(tmp_path / "train.tsv", 700, seed=0)
    options = FitOptions(train, epochs=6, learning_rate=3e-3, best_of_n=False)
    found = fit(options, read(options))
    assert found.held_out.accuracy > 0.95
    assert found.held_out.auc > 0.98
    assert found.no_curve == "it was not asked for"
    again = fit(options, read(options))
    assert again.held_out == found.held_out  # the same seed, the same model


def test_calibration_improves_and_noise_is_admitted(fitted):
    _, record, _ = fitted
    held_out = record["held_out"]
    assert held_out["accuracy"] > 0.85
    assert held_out["loss"][1] < held_out["loss"][0] + 0.01
    assert held_out["calibration_error"][1] < 0.08
    assert record["temperature"] != pytest.approx(1.0, abs=1e-3)


def test_a_temperature_makes_an_overconfident_model_honest():
    rng = np.random.default_rng(0)
    chances = rng.random(2000)
    labels = (rng.random(2000) < chances).astype(np.int64)
    logits = np.log(np.stack([1 - chances, chances], axis=1)) * 4.0
    half = slice(0, 1000)
    temperature = fit_temperature(logits[half], labels[half])
    errors = []
    for scale in (1.0, temperature):
        odds = (logits[1000:, 1] - logits[1000:, 0]) / scale
        errors.append(calibration_error(reliability(1 / (1 + np.exp(-odds)), labels[1000:] == 1)))
    assert errors[0] > 0.15
    assert errors[1] < 0.05


def test_any_loader_gets_the_same_calibrated_probabilities(fitted):
    out = fitted[0]
    rng = np.random.default_rng(5)
    asked = [sentence(rng, bool(i % 2)) for i in range(40)]
    values = [Classifier(out, label="positive").value(text) for text in asked]
    model = AutoModelForSequenceClassification.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    with torch.no_grad():
        logits = [model(**tokenizer(t, return_tensors="pt")).logits[0] for t in asked]
    assert values == pytest.approx([float(x.softmax(-1)[1]) for x in logits], abs=1e-5)
    judge = pipeline("text-classification", model=str(out), device="cpu", top_k=None)
    piped = [{one["label"]: one["score"] for one in row}["positive"] for row in judge(asked)]
    assert values == pytest.approx(piped, abs=1e-5)
    # A word says which; with every tenth label wrong no text is certain.
    assert np.mean([(v > 0.5) == bool(i % 2) for i, v in enumerate(values)]) > 0.95
    assert 0.01 < np.mean(np.minimum(values, 1 - np.array(values))) < 0.25


def test_what_a_fit_leaves(fitted):
    out, record, screen = fitted
    stored = json.loads((out / "fit_reward.json").read_text())
    assert stored["command"] == "textgym fit-reward"
    assert stored["examples"]["train"]["count"] + stored["examples"]["reported"]["count"] > 800
    assert stored["temperature"] == pytest.approx(record["temperature"], abs=1e-5)
    drawing = ElementTree.parse(out / "calibration.svg").getroot()
    titles = [node.text for node in drawing.iter() if node.tag.endswith("title")]
    bins = [*stored["held_out"]["before"], *stored["held_out"]["after"]]
    assert [int(title.split()[0]) for title in titles] == [one["count"] for one in bins]
    assert f"{record['held_out']['accuracy']:.3f}" in screen
    assert f"classifier:{out},label=positive" in screen.replace("\n", "")


def test_one_word_repeated_is_found_out(fitted):
    worthless = fitted[1]["worthless"]
    share = {one["kind"]: one["share_above"] for one in worthless["findings"]}
    # The rule is a bag of words: that it falls for them is known.
    assert share["one positive word, repeated"] > 0.2
    assert share["empty"] == 0.0
    assert "KL penalty" in worthless["means"]
    assert "one positive word, repeated" in worthless["means"].partition("(5%")[2]


def test_the_curve_of_a_fit(fitted):
    rows = fitted[1]["best_of_n"]
    assert [row["n"] for row in rows] == [1, 2, 4, 8, 16, 32]
    assert rows[-1]["proxy"] > rows[0]["proxy"]
    assert rows[-1]["gold"] > rows[0]["gold"]
    assert rows[3]["kl"] == pytest.approx(math.log(8) - 7 / 8)
    assert rows[3]["positive"] > rows[0]["positive"]


@pytest.mark.parametrize("prompts", [False, True])
def test_pairs_recover_an_order(tmp_path, prompts):
    options = FitOptions(
        pairs(tmp_path / "pairs.jsonl", 500, prompts), epochs=8, learning_rate=3e-3
    )
    console = Console(file=io.StringIO())
    record = fit_reward(options, tmp_path / "out", console, "textgym fit-reward")
    assert record["held_out"]["accuracy"] > 0.9
    assert record["label"] is None
    assert bool(record["no_best_of_n"]) == prompts
    reward = Classifier(tmp_path / "out", text="prompt+completion", output="logit")
    rng = np.random.default_rng(9)
    prompt = "Tell of the old fox: " if prompts else ""
    means = [
        np.mean([reward.value(quality(rng, level), prompt) for _ in range(30)])
        for level in range(5)
    ]
    assert (np.diff(means) > 0.2).all()
    assert abs(means[2]) < np.ptp(means) / 4  # a middling text scores about 0


def test_starting_from_a_model(tmp_path):
    train = labelled(tmp_path / "train.tsv", 600, seed=0)
    examples = read_examples(train)
    tokenizer = word_tokenizer((text for _, text in examples.texts[0]), 32)
    torch.manual_seed(0)
    base = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=32, num_labels=5,
        )
    )  # fmt: skip
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    options = FitOptions(
        train, base=str(tmp_path / "base"), epochs=8, learning_rate=3e-3, best_of_n=False
    )
    found = fit(options, read(options))
    assert found.held_out.accuracy > 0.95
    assert found.judge.max_tokens == 32
    assert found.judge.model.config.num_labels == 2


def test_a_causal_model_can_be_the_base(tmp_path):
    train = labelled(tmp_path / "train.tsv", 600, seed=0)
    dev = labelled(tmp_path / "dev.tsv", 200, seed=1)
    options = FitOptions(
        train, dev, "bundled", epochs=3, learning_rate=3e-3, best_of_n=False, max_tokens=48
    )
    found = fit(options, read(options))
    assert found.held_out.auc > 0.75
    found.save(tmp_path / "out")
    text = "the lovely old fox ran home"
    score = found.judge.logits([("", text)])[0]
    expected = 1 / (1 + np.exp(score[0] - score[1]))
    assert Classifier(tmp_path / "out").value(text) == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("error:invalid value")
def test_a_rate_that_is_too_great(tmp_path):
    train = labelled(tmp_path / "train.tsv", 100, seed=0)
    options = FitOptions(train, epochs=2, learning_rate=1e30, best_of_n=False)
    with pytest.raises(ValueError, match=r"training led nowhere.*Lower --learning-rate"):
        fit(options, read(options))


# ------------------------------------------------------------------ data
def test_names_of_labels_and_columns(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("stars,review\n" + "".join(f"{i % 10 + 1},text {i}\n" for i in range(60)))
    found = read_examples(file, "review", "stars")
    assert found.names == tuple(str(i) for i in range(1, 11))  # by number
    assert found.labels[9] == 9
    file = tmp_path / "a.jsonl"
    rows = [{"text": f"text {i}", "label": ["bad", "good"][i % 2]} for i in range(20)]
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read_examples(file).counts() == {"bad": 10, "good": 10}


def test_a_table_with_and_without_names_of_columns(tmp_path):
    bare = read_examples(labelled(tmp_path / "a.tsv", 50, seed=0))
    named = read_examples(labelled(tmp_path / "b.tsv", 50, seed=0, header="text\tlabel"))
    assert bare.texts == named.texts
    assert bare.labels.tolist() == named.labels.tolist()
    other = labelled(tmp_path / "c.tsv", 50, seed=0, header="sentence\tlabel")
    assert len(read_examples(other, "sentence")) == 50
    with pytest.raises(ValueError, match=r"c\.tsv, line 1: no column 'text'.*--text-column"):
        read_examples(other)


def test_no_text_is_in_two_parts(tmp_path):
    file = tmp_path / "a.tsv"
    rng = np.random.default_rng(0)
    lines = [f"{sentence(rng, i % 2)}\t{i % 2}" for i in range(200)]
    file.write_text("\n".join([*lines, *lines[:50]]))
    dev = tmp_path / "dev.tsv"
    dev.write_text("\n".join(lines[:60]))
    for held_out in (None, str(dev)):
        parts = [set(part.keys()) for part in read(FitOptions(str(file), held_out))]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(set(lines))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "", "no column|no rows"),
        ("a.tsv", "text\tlabel\n" + "x\t1\n" * 40, "1 different values"),
        ("a.tsv", "text\tlabel\n" + "\n".join(f"x{i}\t{i / 7}" for i in range(40)), "40 different"),
        ("a.tsv", "text\tlabel\na\t1\nb\t0\n\t1\n", "line 4: 'text' must be a non-blank text"),
        ("a.tsv", "text\tlabel\na\t1\nb\t0\nc\n", "line 4: expected 2 fields"),
        ("a.tsv", "text\tlabel\na\t1\nb\t \nc\t0\nd\t0\n", "line 3: 'label' must be a label"),
        ("a.tsv", "text\tlabel\na\t1\nb\t0\nc\t1\nd\t0\n", "at least 20 of each"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": ', "line 2: not JSON"),
        ("a.jsonl", '{"text": "a", "label": [1]}\n', "must be a label"),
        ("a.jsonl", '{"chosen": "a", "rejected": "a"}\n', "line 1: .* are the same text"),
        ("a.jsonl", '{"chosen": "a", "rejected": 3}\n', "line 1: 'rejected' must be"),
        ("a.txt", "a\t1\n", "a.txt"),
        ("b.tsv", None, "no such file"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, message):
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    console = Console(file=io.StringIO())
    with pytest.raises(CommandError, match=message) as caught:
        fit_reward(FitOptions(str(file)), tmp_path / "out", console, "")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_dev_files_that_do_not_fit(tmp_path):
    train = labelled(tmp_path / "train.tsv", 100, seed=0)
    dev = tmp_path / "dev.tsv"
    dev.write_text("text\tlabel\na fox\tgood\nan owl\tgood\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: the label 'good' is none of those"):
        read(FitOptions(train, str(dev)))
    with pytest.raises(ValueError, match="expected labelled texts, as in the training file"):
        read(FitOptions(train, pairs(tmp_path / "pairs.jsonl", 30)))
    with pytest.raises(ValueError, match=r"no label 'happy'.*positive"):
        read(FitOptions(train, label="happy"))
    options = FitOptions(train, base=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        fit(options, read(options))


# ------------------------------------------------------------------ figures
def test_temperature_minimises_the_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 3)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=p) for p in chances])
    for factor in (0.3, 1.0, 4.0):
        found = fit_temperature(factor * logits, labels)
        assert found == pytest.approx(factor, rel=0.08)
        around = [nll(factor * logits / (found * scale), labels) for scale in (0.8, 1.0, 1.25)]
        assert around[1] == min(around)
    # Where all are told apart nothing is certain yet: (N + 1) / (N + 2).
    apart = fit_temperature(np.array([[5.0, 0.0], [0.0, 5.0]] * 5), np.array([0, 1] * 5))
    assert 1 / (1 + math.exp(-5.0 / apart)) == pytest.approx(1 - 0.5 / 12, abs=1e-3)


def test_auc_counts_pairs():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scores = rng.integers(0, 6, 12).astype(float)
        positive = np.arange(12) < rng.integers(1, 12)
        wins = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
        assert auc(scores, positive) == pytest.approx(np.mean(wins))


def test_calibration_error_by_hand():
    probabilities = np.array([0.05, 0.05, 0.95, 1.0, 0.55])
    positive = np.array([False, True, True, True, False])
    bins = reliability(probabilities, positive)
    assert [(b.count, b.observed) for b in bins] == [(2, 0.5), (1, 0.0), (2, 1.0)]
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 0.55 + 2 * 0.025) / 5)


@pytest.mark.parametrize("labels", [1, 3])
def test_folding_scales_logits(labels):
    tokenizer = word_tokenizer(NEUTRAL, 32)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=labels,
    )  # fmt: skip
    judge = TextJudge(BertForSequenceClassification(config).eval(), tokenizer, 32)
    asked = [("", "the fox"), ("", "an owl sang")]
    before = judge.logits(asked)
    fold(judge.model, 2.5, 0.1)
    assert judge.logits(asked) == pytest.approx((before - 0.1) / 2.5, abs=1e-5)


def test_best_of_n_is_the_mean_over_all_choices():
    from itertools import combinations

    rng = np.random.default_rng(0)
    proxy, gold, positive = rng.normal(size=16), rng.normal(size=16), rng.random(16) < 0.5
    rows = best_of_n(proxy, gold, positive)
    assert [row.n for row in rows] == [1, 2, 4]
    for row in rows:
        best = [max(some, key=lambda i: proxy[i]) for some in combinations(range(16), row.n)]
        assert row.proxy == pytest.approx(proxy[best].mean())
        assert row.gold == pytest.approx(gold[best].mean())
        assert row.positive == pytest.approx(positive[best].mean())
    assert rows[0].kl == 0.0


def test_what_a_curve_says():
    scores = np.arange(256.0)
    assert "has not made it worse" in curve_means(best_of_n(scores, scores))
    worse = best_of_n(scores, -np.abs(scores - 200))
    assert "gold is greatest at n = 8" in curve_means(worse)


def test_shares_above_the_threshold():
    genuine = np.arange(101.0)
    kinds = {"long": [("", "x" * n) for n in (90, 96, 97, 98)], "empty": [("", "")]}
    found = overpaid(kinds, genuine, lambda texts: np.array([float(len(t)) for _, t in texts]))
    assert found.threshold == 95.0
    assert [one.share_above for one in found.findings] == [0.75, 0.0]
    assert found.share == pytest.approx(3 / 5)
    assert found.findings[0].best_text == "x" * 98
    assert "60% of the worthless texts" in found.means


def test_the_tokenizer_keeps_words_and_shares_endings():
    texts = [f"{stem}ness {stem}" for stem in ("kind", "dark", "good", "soft")] * 2
    texts += [f"{stem}ness" for stem in ("bold", "fair", "cold", "wild", "sad", "ill")]
    tokenizer = word_tokenizer(texts, 16)
    assert tokenizer.tokenize("Kindness") == ["kindness"]
    assert tokenizer.tokenize("lostness")[-1] == "##ness"
    assert tokenizer("kind \x00 dark").input_ids == tokenizer("kind dark").input_ids
    assert tokenizer.tokenize("狐") == ["[UNK]"]
    again = word_tokenizer(texts, 16)
    assert again.get_vocab() == tokenizer.get_vocab()
