"""Translation: correct German by hand, scores that see order, and real pairs with their faults."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from textgym import Instance, Tokenizer
from textgym.metrics import bleu
from textgym.seeding import instance_rng, split_of
from textgym.tasks.translation import DIRECTIONS, SCORES, TranslationTask
from textgym.tasks.translation_grammar import (
    Clause,
    NounPhrase,
    Sentence,
    draw_sentence,
    german_phrase,
    in_english,
    in_german,
)
from textgym.tasks.translation_lexicon import ADJECTIVES, NOUNS, VERBS
from textgym.tasks.translation_reader import parse_english

MULTI30K = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "multi30k"
EMBEDDED = Tokenizer.load()
NOUN = {noun.english: noun for noun in NOUNS}
VERB = {verb.english: verb for verb in VERBS}

PAIRS = {
    # Gender and the accusative.
    "The man sees the woman.": "Der Mann sieht die Frau.",
    "The woman sees the man.": "Die Frau sieht den Mann.",
    "The child eats the apple.": "Das Kind isst den Apfel.",
    "The girl buys the book.": "Das Mädchen kauft das Buch.",
    "A man buys a car.": "Ein Mann kauft ein Auto.",
    "A woman needs a hat.": "Eine Frau braucht einen Hut.",
    "An aunt holds an egg.": "Eine Tante hält ein Ei.",
    "My brother loves this dog.": "Mein Bruder liebt diesen Hund.",
    # Adjectives: weak, mixed and strong.
    "The old man buys a red house.": "Der alte Mann kauft ein rotes Haus.",
    "An old man buys the red house.": "Ein alter Mann kauft das rote Haus.",
    "A tired mother holds the small child.": "Eine müde Mutter hält das kleine Kind.",
    "The young queen likes a white bird.": "Die junge Königin mag einen weißen Vogel.",
    "This happy girl sees my new lamp.": "Dieses glückliche Mädchen sieht meine neue Lampe.",
    "Old men buy cheap books.": "Alte Männer kaufen billige Bücher.",
    "My sick sister helps poor children.": "Meine kranke Schwester hilft armen Kindern.",
    # Number, and the agreement of the verb.
    "The men see the women.": "Die Männer sehen die Frauen.",
    "The small birds hear a cow.": "Die kleinen Vögel hören eine Kuh.",
    "The girls eat the red apples.": "Die Mädchen essen die roten Äpfel.",
    "These brothers wash my cars.": "Diese Brüder waschen meine Autos.",
    # Time and place: the verb stays second.
    "The woman sings in the garden today.": "Die Frau singt heute im Garten.",
    "Today the woman sings in the garden.": "Heute singt die Frau im Garten.",
    "In the kitchen the cat sleeps.": "In der Küche schläft die Katze.",
    "Every day the child draws a horse.": "Jeden Tag zeichnet das Kind ein Pferd.",
    "On Sunday the brothers play at home.": "Am Sonntag spielen die Brüder zu Hause.",
    # Separable verbs.
    "The woman calls the man today.": "Die Frau ruft heute den Mann an.",
    "Tom opens the window.": "Tom macht das Fenster auf.",
    "The sisters close the old door.": "Die Schwestern machen die alte Tür zu.",
    "My uncle picks up the children.": "Mein Onkel holt die Kinder ab.",
    "Today the king invites an aunt.": "Heute lädt der König eine Tante ein.",
    "The sick child falls asleep in the park.": "Das kranke Kind schläft im Park ein.",
    "Now Mia turns off the radio.": "Jetzt macht Mia das Radio aus.",
    # The dative.
    "The man helps the woman.": "Der Mann hilft der Frau.",
    "Anna thanks a friendly uncle.": "Anna dankt einem freundlichen Onkel.",
    "The dog follows the small birds.": "Der Hund folgt den kleinen Vögeln.",
    "The woman gives the child an apple.": "Die Frau gibt dem Kind einen Apfel.",
    "My mother shows the men these pictures.": "Meine Mutter zeigt den Männern diese Bilder.",
    "On Sunday Paul sends my rich aunt a letter.": (
        "Am Sonntag schickt Paul meiner reichen Tante einen Brief."
    ),
    # Modal verbs.
    "The woman wants to call the man.": "Die Frau will den Mann anrufen.",
    "The children want to sleep.": "Die Kinder wollen schlafen.",
    "Tomorrow the father has to repair the car.": "Morgen muss der Vater das Auto reparieren.",
    "The girls can help the old king.": "Die Mädchen können dem alten König helfen.",
    "The boat can arrive.": "Das Boot kann ankommen.",
    # Negation.
    "The man does not buy the house.": "Der Mann kauft das Haus nicht.",
    "The man does not buy a red house.": "Der Mann kauft kein rotes Haus.",
    "The women do not eat eggs.": "Die Frauen essen keine Eier.",
    "The cat does not help the dog.": "Die Katze hilft dem Hund nicht.",
    "The aunt does not close a window.": "Die Tante macht kein Fenster zu.",
    "Tom cannot open the bag.": "Tom kann die Tasche nicht aufmachen.",
    "The child does not have to get up.": "Das Kind muss nicht aufstehen.",
    "Yesterday the king did not call Anna.": "Gestern hat der König Anna nicht angerufen.",
    # The past.
    "The man bought a hat yesterday.": "Der Mann hat gestern einen Hut gekauft.",
    "The dogs followed the horse.": "Die Hunde sind dem Pferd gefolgt.",
    "The mother arrived last week.": "Die Mutter ist letzte Woche angekommen.",
    "My aunt wanted to visit the king.": "Meine Tante wollte den König besuchen.",
    "The sons had to get up.": "Die Söhne mussten aufstehen.",
    # Dependent clauses: the verb is last.
    "The child cries because the woman calls the man.": (
        "Das Kind weint, weil die Frau den Mann anruft."
    ),
    "Because the woman calls the man, the child cries.": (
        "Weil die Frau den Mann anruft, weint das Kind."
    ),
    "Anna laughs because Tom wants to open the door.": (
        "Anna lacht, weil Tom die Tür aufmachen will."
    ),
    "The king says that the queen sleeps.": "Der König sagt, dass die Königin schläft.",
    "Mia hopes that the uncles arrived yesterday.": (
        "Mia hofft, dass die Onkel gestern angekommen sind."
    ),
    "Although the son did not work, the father gave the son a cake.": (
        "Obwohl der Sohn nicht gearbeitet hat, hat der Vater dem Sohn einen Kuchen gegeben."
    ),
    "The girls believe that the man does not need a bed.": (
        "Die Mädchen glauben, dass der Mann kein Bett braucht."
    ),
    "The woman trusts the man although the man loves a queen.": (
        "Die Frau vertraut dem Mann, obwohl der Mann eine Königin liebt."
    ),
}


def test_every_phenomenon_by_hand():
    assert len(PAIRS) >= 40
    for english, german in PAIRS.items():
        sentence = parse_english(english)
        assert sentence is not None, english
        assert in_english(sentence) == english
        assert in_german(sentence) == german


@pytest.mark.parametrize(
    "text",
    [
        "My old father sells his hat.",
        "The uncle reads the book.",
        "The guests arrived.",
        "Although my son did not work, he laughed.",
        *("", ".", "The", "The man.", "The man see the woman.", "The men sees the woman."),
        *("A apple sees an man.", "the man sees the woman.", "The man sees the woman"),
        *("The man sleeps the woman.", "The man gives the apple.", "The man says the woman."),
        *("The man says because the woman sleeps.", "The man sees that the woman sleeps."),
        *("Today the man sleeps today.", "The man sees the woman. The man sleeps."),
    ],
)
def test_what_the_grammar_does_not_have(text):
    assert parse_english(text) is None
    with pytest.raises(ValueError, match="the grammar has no sentence"):
        TranslationTask().from_prompt(f"English: {text}\nGerman:")


def test_structures_are_told_in_both_languages():
    clause = Clause(
        NounPhrase(NOUN["woman"], "the"),
        VERB["call"],
        NounPhrase(NOUN["man"], "a", "old"),
        time="today",
        front="time",
    )
    assert in_english(Sentence(clause)) == "Today the woman calls an old man."
    assert in_german(Sentence(clause)) == "Heute ruft die Frau einen alten Mann an."


@pytest.mark.parametrize(
    ("noun", "determiner", "plural", "forms"),
    [
        ("man", "the", False, "der alte Mann|den alten Mann|dem alten Mann"),
        ("man", "a", False, "ein alter Mann|einen alten Mann|einem alten Mann"),
        ("man", "the", True, "die alten Männer|die alten Männer|den alten Männern"),
        ("man", "", True, "alte Männer|alte Männer|alten Männern"),
        ("woman", "this", False, "diese alte Frau|diese alte Frau|dieser alten Frau"),
        ("woman", "my", False, "meine alte Frau|meine alte Frau|meiner alten Frau"),
        ("woman", "this", True, "diese alten Frauen|diese alten Frauen|diesen alten Frauen"),
        ("girl", "no", False, "kein altes Mädchen|kein altes Mädchen|keinem alten Mädchen"),
        ("girl", "the", False, "das alte Mädchen|das alte Mädchen|dem alten Mädchen"),
        ("car", "my", True, "meine alten Autos|meine alten Autos|meinen alten Autos"),
    ],
)
def test_declension(noun, determiner, plural, forms):
    phrase = NounPhrase(NOUN[noun], determiner, "old", plural)
    cases = ("nominative", "accusative", "dative")
    assert "|".join(german_phrase(phrase, case) for case in cases) == forms


def test_the_lexicon_leaves_nothing_open():
    for words in (
        [form for n in NOUNS for form in (n.english, n.english_plural)],
        [noun.german for noun in NOUNS],
        [form for v in VERBS for form in {v.english, v.english_past}],
        [(verb.prefix, verb.german) for verb in VERBS],
        [stem for stem, _, _ in ADJECTIVES.values()],
    ):
        assert len(set(words)) == len(words)
    # A past spelled like its base ("read") would not tell the tense.
    assert all(verb.english != verb.english_past for verb in VERBS)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_one_translation_either_way(level):
    rng = np.random.default_rng(level)
    german, english = {}, {}
    for _ in range(1500):
        sentence = draw_sentence(level, rng)
        pair = in_english(sentence), in_german(sentence)
        assert german.setdefault(pair[0], pair[1]) == pair[1]
        assert english.setdefault(pair[1], pair[0]) == pair[0]
        assert parse_english(pair[0]) == sentence
        if level == 1:
            assert 4 <= len(pair[0].split()) <= 7


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_oracle_bounds_and_splits(level, direction):
    task = TranslationTask(level=level, direction=direction)
    bound = task.prompt_bound(lambda text: len(EMBEDDED.encode(text)))
    assert bound + task.max_new_tokens <= 512
    for split in ("train", "test"):
        for i in range(300):
            instance = task.draw(instance_rng(0, split, 0, i), split)
            assert split_of(instance.prompt) == split
            assert len(EMBEDDED.encode(instance.prompt)) <= bound
            assert len(EMBEDDED.encode(task.solve(instance))) < task.max_new_tokens
            assert task.score_text(instance, task.solve(instance)) == 1.0


ASKED = Instance(
    "English: The old man buys a red house.\nGerman:", "Der alte Mann kauft ein rotes Haus."
)
# Of BLEU: the words in disorder have (1 * 1/7 * 1/12 * 1/20) ** (1/4).
FLOOR = (1 / 7 / 12 / 20) ** 0.25


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Der alte Mann kauft ein rotes Haus.", 1.0),
        (" Der alte Mann kauft ein rotes Haus.\n", 1.0),
        # One word wrong: 7 of 8 words, 5 of 7 pairs, 3 of 6 threes, 1 of 5 fours.
        ("Der alte Mann sieht ein rotes Haus.", (7 / 8 * 5 / 7 * 3 / 6 * 1 / 5) ** 0.25),
        # The first half alone: all right, and as brief as 4 to 8.
        ("Der alte Mann kauft", np.exp(1 - 8 / 4)),
        ("alte kauft rotes Der Mann ein Haus.", FLOOR),
        ("", 0.0),
        ("das das das", 0.0),
    ],
)
def test_bleu_stretched(text, plain):
    if plain >= FLOOR:
        expected = 0.05 + 0.95 * (plain - FLOOR) / (1 - FLOOR)
    else:
        expected = 0.05 * plain / FLOOR
    assert TranslationTask().score_text(ASKED, text) == pytest.approx(expected, abs=1e-9)


def test_other_metrics_are_stretched_alike():
    chrf, exact = TranslationTask(metric="chrf"), TranslationTask(metric="exact_match")
    for task in (chrf, exact):
        assert task.score_text(ASKED, ASKED.target) == 1.0
        assert task.score_text(ASKED, "") == 0.0
    assert chrf.score_text(ASKED, "alte kauft rotes Der Mann ein Haus.") == pytest.approx(0.05)
    assert 0.3 < chrf.score_text(ASKED, "Der alte Mann kauft ein rote Haus.") < 1
    assert exact.score_text(ASKED, "Der alte Mann kauft ein rotes Haus") == 0.0


def test_the_score_rises_word_by_word():
    task, words = TranslationTask(), ASKED.target.split()
    scores = [task.score_text(ASKED, " ".join(words[:n])) for n in range(len(words) + 1)]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(words) + 1
    wrong = [
        task.score_text(ASKED, " ".join([*words[:n], *["das"] * (len(words) - n)]))
        for n in range(2, len(words) + 1)
    ]
    assert wrong == sorted(wrong)
    assert len(set(wrong)) == len(wrong)


def test_only_what_follows_rightly_earns():
    task = TranslationTask()
    assert task.score_text(ASKED, "Die alte Mann kauft ein rotes Haus.") > 0.6
    assert task.score_text(ASKED, "Der Mann kauft ein Haus.") > 0.1
    assert task.score_text(ASKED, "Die Frau kauft ein rotes Haus.") > 0.3


def test_copies_shuffles_and_garbage_earn_little():
    rng = np.random.default_rng(0)
    for level in (1, 2, 3):
        task = TranslationTask(level=level)
        for _ in range(40):
            instance = task.sample(rng)
            words = instance.target.split()
            source = instance.prompt.splitlines()[0].removeprefix("English: ")
            for text in (
                *(source, instance.prompt, source * 20, instance.target * 30, words[0] * 100),
                *(" ".join(words[1::2] + words[::2]), "\ud800", "\0", "."),
                *("a" * 100_000, ". " * 20_000, "日本語", " ".join([words[0]] * len(words))),
            ):
                assert 0 <= task.score_text(instance, text) <= 0.1, text[:100]
            order = rng.permutation(words).tolist()
            if not set(itertools.pairwise(words)) & set(itertools.pairwise(order)):
                assert task.score_text(instance, " ".join(order)) <= 0.1, order


def test_a_text_cut_by_the_budget_loses_a_tenth():
    assert TranslationTask().score_text(ASKED, ASKED.target, ended=False) == pytest.approx(0.9)


def test_the_plain_metrics_are_reported():
    env = gym.make("textgym/Translation-v0").unwrapped
    env.reset(seed=0, options={"instance": ASKED})
    for token in [*env.tokenizer.encode(" Der alte Mann"), env.tokenizer.eos_token_id]:
        info = env.step(token)[4]
    figures = env.task.metrics(info["episode_record"])
    assert set(figures) == set(SCORES) == set(env.task.metric_names)
    assert figures["bleu"] == bleu("Der alte Mann", ASKED.target) > info["score"]
    assert figures["exact_match"] == 0.0


def test_a_very_short_target_can_be_right():
    task = TranslationTask()
    for target in ("Ja.", "Ein Hund", "Nein nein", "?"):
        assert task.score_text(Instance("English: x\nGerman:", target), target) == 1.0


def test_from_prompt():
    task = TranslationTask(level=3)
    for seed in range(50):
        instance = task.sample(np.random.default_rng(seed))
        assert task.from_prompt(instance.prompt) == instance
    with pytest.raises(ValueError, match="not a translation prompt"):
        task.from_prompt("Hello")
    with pytest.raises(ValueError, match="cannot build an instance"):
        TranslationTask(direction="de-en").from_prompt("German: Tom lacht.\nEnglish:")
    with pytest.raises(ValueError, match="no translation to compare with"):
        task.score_text(Instance("English: x\nGerman:"), "y")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"direction": "en-fr"}, "`direction` 'en-fr' is unknown; .*Known: de-en, en-de"),
        ({"metric": "blue"}, "`metric` 'blue' is unknown; did you mean `bleu`"),
        ({"max_words": 5}, "`max_words` is about `dataset`"),
        ({"level": 2, "dataset": [{"en": "a", "de": "b"}]}, "`level` is of the grammar"),
        ({"dataset": [{"en": "a", "de": "b"}], "max_words": 0}, "`max_words`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TranslationTask(**arguments)


# ------------------------------------------------------------------------------ real pairs
TRAIN = {
    "A man sleeps.": "Ein Mann schläft.",
    "Two dogs run over the grass.": "Zwei Hunde laufen über das Gras.",
    "A girl in a red coat laughs.": "Ein Mädchen in einem roten Mantel lacht.",
}
TEST = {"A man sleeps.": "Ein Mann schlaeft.", "A woman reads.": "Eine Frau liest."}


def write(folder, stem, pairs, *, gz=True):
    for language, lines in zip(("en", "de"), zip(*pairs.items(), strict=True), strict=True):
        raw = "".join(line + "\n" for line in lines).encode()
        path = folder / f"{stem}.{language}{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(raw) if gz else raw)


def test_a_folder_of_line_aligned_files(tmp_path):
    write(tmp_path, "train", TRAIN)
    write(tmp_path, "val", {"A cat.": "Eine Katze."})
    write(tmp_path, "test_2016_flickr", TEST)
    task = TranslationTask(dataset=tmp_path)
    assert task.pairs == {
        "train": list(TRAIN.items()),
        "test": [("A woman reads.", "Eine Frau liest.")],  # the other one is in train
    }
    instance = task.draw(np.random.default_rng(0), "test")
    assert instance.prompt == "English: A woman reads.\nGerman:"
    assert task.from_prompt(instance.prompt) == instance
    assert task.score_text(instance, task.solve(instance)) == 1.0
    assert task.sample(np.random.default_rng(1)).target in TRAIN.values()
    with pytest.raises(ValueError, match="`dataset` has no sentence 'Hello'"):
        task.from_prompt("English: Hello\nGerman:")

    (tmp_path / "test_2016_flickr.en.gz").unlink()
    (tmp_path / "test_2016_flickr.de.gz").unlink()
    back = TranslationTask(dataset=str(tmp_path), direction="de-en", max_words=3)
    assert back.pairs == {
        "train": [("Ein Mann schläft.", "A man sleeps.")],
        "test": [("Eine Katze.", "A cat.")],
    }
    env = gym.make("textgym/Translation-v0", dataset=str(tmp_path), split="test")
    assert env.reset(seed=0)[1]["prompt"] == "English: A cat.\nGerman:"


def test_rows_are_split_by_a_hash(tmp_path):
    rows = [{"x": f"{n} dogs", "y": f"{n} Hunde"} for n in range(200)]
    columns = {"source_column": "x", "target_column": "y"}
    task = TranslationTask(dataset=rows, **columns)
    train, test = (dict(task.pairs[split]) for split in ("train", "test"))
    assert not train.keys() & test.keys()
    assert len(train) + len(test) == 200
    assert 10 < len(test) < 45
    path = tmp_path / "pairs.csv"
    path.write_text("x,y\n" + "".join(f"{row['x']},{row['y']}\n" for row in rows))
    assert TranslationTask(dataset=path, **columns).pairs == task.pairs


def test_without_held_out_files_train_is_split(tmp_path):
    write(tmp_path, "train", {f"{n} dogs": f"{n} Hunde" for n in range(200)}, gz=False)
    assert 10 < len(TranslationTask(dataset=tmp_path).pairs["test"]) < 45


def test_bounds_hold_for_real_pairs(tmp_path):
    write(tmp_path, "train", {**TRAIN, "ä" * 30: "ß" * 40, "x " * 50: "y " * 60})
    task = TranslationTask(dataset=tmp_path)

    def count(text):
        return len(EMBEDDED.encode(text))

    pairs = task.pairs["train"] + task.pairs["test"]
    assert task.prompt_bound(count) == max(count(f"English: {s}\nGerman:") for s, _ in pairs)
    assert task.max_new_tokens == 1 + max(count(" " + target) for _, target in pairs)


def break_lines(folder):
    (folder / "train.de.gz").write_bytes(gzip.compress(b"Ein Mann.\n"))


def break_blank(folder):
    (folder / "train.de.gz").write_bytes(gzip.compress(b"Ein Mann.\n\nEin Hund.\n"))


def break_encoding(folder):
    (folder / "train.de.gz").write_bytes(gzip.compress("ein\nfünf\nzwei\n".encode("latin-1")))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (break_lines, ValueError, r"train.en.gz has 3 lines and .*train.de.gz has 1"),
        (break_blank, ValueError, r"train.de.gz, line 2: blank.*delete the line"),
        (break_encoding, ValueError, r"train.de.gz, line 2: not UTF-8.*iconv"),
        (lambda f: (f / "train.de.gz").write_bytes(b"x"), ValueError, r"train.de.gz: not a .*gzip"),
        (lambda f: (f / "train.de.gz").unlink(), FileNotFoundError, r"train.de \(or train.de.gz"),
        (lambda f: (f / "val.en.gz").unlink(), FileNotFoundError, r"val.en \(or val.en.gz"),
        (lambda f: [p.unlink() for p in f.iterdir()], FileNotFoundError, "no file train.en"),
        (lambda f: write(f, "train", {"": ""}), ValueError, "no sentences"),
    ],
)
def test_broken_folders_are_named(tmp_path, damage, error, message):
    write(tmp_path, "train", TRAIN)
    write(tmp_path, "val", TEST)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        TranslationTask(dataset=tmp_path)


def test_other_faults_of_a_dataset():
    with pytest.raises(ValueError, match=r"row 1: no column 'de'"):
        TranslationTask(dataset=[{"en": "a", "fr": "b"}])
    with pytest.raises(ValueError, match=r"row 1: 'de' must be a non-blank text"):
        TranslationTask(dataset=[{"en": "a", "de": " "}])
    rows = [{"en": "two words", "de": "drei kleine Wörter"}] * 2
    with pytest.raises(ValueError, match="the shortest pair has 3"):
        TranslationTask(dataset=rows, max_words=2)
    with pytest.raises(ValueError, match="no pair for the test split"):
        TranslationTask(dataset=rows).draw(np.random.default_rng(0), "test")


@pytest.mark.skipif(not MULTI30K.is_dir(), reason="../shared/data/multi30k is not there")
def test_multi30k():
    task = TranslationTask(dataset=MULTI30K, max_words=12)
    assert len(task.pairs["train"]) > 15_000
    assert len(task.pairs["test"]) > 500
    assert not dict(task.pairs["train"]).keys() & dict(task.pairs["test"]).keys()
    bound = task.prompt_bound(lambda text: len(EMBEDDED.encode(text)))
    assert bound + task.max_new_tokens <= 256
    for seed in range(100):
        instance = task.draw(np.random.default_rng(seed), "test")
        assert len(EMBEDDED.encode(instance.prompt)) <= bound
        assert len(EMBEDDED.encode(task.solve(instance))) < task.max_new_tokens
        assert task.score_text(instance, task.solve(instance)) == 1.0
        source = instance.prompt.splitlines()[0].removeprefix("English: ")
        assert task.score_text(instance, source) < 0.15
