"""Sentiment: the little grammar of reviews, the classifier, what a completion is worth."""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from textgym.episode import Episode, Instance, Turn
from textgym.tasks.bag_of_words import BagOfWords, words_of
from textgym.tasks.sentiment import SentimentTask
from textgym.tasks.sentiment_world import ASPECTS, CLAUSES, Review, classifier, read

SST2 = Path(__file__).resolve().parents[4] / "shared" / "data" / "sst2"
needs_sst2 = pytest.mark.skipif(not SST2.is_dir(), reason=f"{SST2} is not there")

DULL = "Review of the cafe Blue Door: The soup was dull, but"
COLD = "Review of the cafe Blue Door: It was a cold day."
AWFUL = "Review of the film Silver Lake: The plot was awful. I hated the music."


def score(prompt, text, **kwargs):
    task = SentimentTask()
    return task.score_text(task.from_prompt(prompt), text, **kwargs)


# ------------------------------------------------------------------ grammar
@pytest.mark.parametrize(
    ("sentence", "worths"),
    [
        ("The tea was superb.", [2]),
        ("I quite enjoyed the plot.", [1]),
        ("Still, the tea was not bad.", [1]),
        ("In the end I hated the view.", [-2]),
        ("It was a cold day and I loved the tea.", [0, 2]),
        ("The soup was dull, but I loved the tea.", [-1, 2]),
        ("The soup was dull and the tea was awful.", [-1, -2]),
    ],
)
def test_sentences_of_the_grammar(sentence, worths):
    assert [clause.worth for clause in read(sentence)] == worths


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        ".",
        "The tea was superb",
        "the tea was superb.",
        "The tea superb was.",
        "The tea was superb and .",
        "The tea was superb and the cake was nice and the soup was fine.",
        "The tea was superb, but I loved the cake.",
        "The soup was dull and I loved the tea.",
        "I loved the tea and the tea was nice.",
        "But still, the tea was nice.",
        "Still, The tea was nice.",
        "The weather was nice.",
        "good good good.",
    ],
)
def test_what_the_grammar_has_not(sentence):
    assert read(sentence) is None


def test_no_two_kinds_share_an_aspect():
    aspects = [aspect for kind in ASPECTS.values() for aspect in kind]
    assert len(aspects) == len(set(aspects))
    assert {clause.aspect for clause in CLAUSES.values()} == {None, *aspects}


def test_a_review_neither_repeats_nor_contradicts_itself_nor_strays():
    review = Review("cafe")
    assert review.say("The soup was dull.")
    assert not review.say("The soup was dull.")
    assert not review.say("I loved the soup.")
    assert not review.say("I loved the pool.")
    assert review.say("I loved the tea.")
    assert not review.say("Still, I loved the tea and the cake was nice.")
    assert review.aspects == {"soup", "tea"}


# ------------------------------------------------------------------ classifier
def test_words():
    assert words_of("It's GOOD, isn't it?") == ["it's", "good", ",", "isn't", "it", "?"]


def test_the_classifier_solves_what_pairs_of_words_decide():
    texts = ["not bad", "bad", "not good", "good"] * 10
    model = BagOfWords.fit(texts, [1, 0, 0, 1] * 10, l2=0.01)
    assert model.accuracy(texts, [1, 0, 0, 1] * 10) == 1.0
    assert model.probability("unknown words") == model.probability("")


def test_the_classifier_finds_the_optimum_of_its_loss():
    # One feature, with the share of positive texts 3/4 where it is and 1/2 where it is not: its
    # log odds are ln 3 and 0, but for a penalty that is next to nothing here.
    texts, labels = ["x"] * 4 + [""] * 2, [1, 1, 1, 0, 1, 0]
    model = BagOfWords.fit(texts, labels, l2=1e-6, steps=500)
    assert model.logit("x") == pytest.approx(np.log(3), abs=1e-3)
    assert model.logit("") == pytest.approx(0.0, abs=1e-3)


def test_rare_words_may_be_left_out():
    model = BagOfWords.fit(["a b", "a c"], [1, 0], min_count=2)
    assert set(model.weights) == {"a"}


def test_the_embedded_classifier_is_calibrated_and_the_same_each_time():
    # A review worth w is positive to a share of 1 / (1 + exp(-w)) of its readers.
    for text, worth in [
        ("It was a cold day.", 0),
        ("I looked at the tea first.", 0),
        ("The tea was good.", 1),
        ("The tea was not bad.", 1),
        ("The tea was not good.", -1),
        ("I loved the tea.", 2),
        ("The tea was awful.", -2),
        ("The soup was dull, but I loved the tea.", 1),
    ]:
        assert classifier().logit(text) == pytest.approx(worth, abs=0.35), text
    again = classifier.__wrapped__()
    assert again.weights == classifier().weights


# ------------------------------------------------------------------ scores
@pytest.mark.parametrize(
    ("prompt", "text", "low", "high"),
    [
        # Right.
        (DULL, " I loved the cake. The tea was superb. I enjoyed the bread.", 1, 1),
        (COLD, " The tea was superb and I loved the cake.", 1, 1),
        (COLD, "The tea was superb and I loved the cake.", 1, 1),
        # Praise of one aspect only: half the topic.
        (COLD, " I loved the cake. The cake was superb.", 0.5, 0.5),
        # Mild praise, strong praise, and no praise.
        (COLD, " I liked the cake. It was my first try.", 0.15, 0.35),
        (COLD, " I loved the cake. It was my first try.", 0.3, 0.5),
        (COLD, " I looked at the cake twice. My sister asked about the tea.", 0, 0.05),
        (COLD, " I hated the cake. The tea was awful.", 0, 0),
        # Not enough to turn a review that begins so badly; then enough.
        (AWFUL, " I loved the ending. The hero was superb.", 0, 0.1),
        (
            AWFUL,
            " I loved the ending. The hero was superb. The acting was a joy. The hero made me "
            "smile. The ending was lovely.",
            1,
            1,
        ),
        # One sentence in three off topic, or no sentence, or unfinished.
        (COLD, " The tea was superb. I loved the cake. The pool was superb.", 2 / 3, 2 / 3),
        (COLD, " The tea was superb. I loved the cake. good great good.", 2 / 3, 2 / 3),
        (COLD, " The tea was superb. I loved the cake. The bread was", 2 / 3, 2 / 3),
        # Only of what other kinds of things have.
        (COLD, " The pool was superb. I loved the hero.", 0, 0),
        # A contradiction of the opening.
        (DULL, " the soup was superb. I loved the soup.", 0, 0),
        # Words without grammar.
        (DULL, " good good good", 0, 0),
        (COLD, " superb tea the was. cake the loved I.", 0, 0),
        (COLD, " superb wonderful perfect lovely.", 0, 0),
        (COLD, " It was a cold day.", 0, 0),
        (COLD, COLD, 0, 0),
        (COLD, "", 0, 0),
        (COLD, "\ud800\x00 The tea was superb.", 0, 0),
        (COLD, " The tea was superb." * 20, 0, 0.05),
        (COLD, " I loved the tea. The cake was superb." * 3_000, 0, 0),
    ],
)
def test_what_completions_are_worth(prompt, text, low, high):
    assert low - 1e-9 <= score(prompt, text) <= high + 1e-9


def test_praise_raises_the_score_step_by_step():
    sentences = ["I liked the cake.", "The tea was good.", "I loved the bread."]
    scores = [score(COLD, " " + " ".join(sentences[:n])) for n in range(4)]
    assert scores[0] == 0 < scores[1] < scores[2] < scores[3]


def test_the_budgets_end_costs_a_sentence():
    text = " The tea was superb and I loved the cake."
    assert score(COLD, text, ended=False) == 0.5
    task = SentimentTask()
    episode = Episode(
        instance=task.from_prompt(COLD),
        input_ids=np.zeros(1, np.int64),
        completion_mask=np.zeros(1, np.bool_),
        completion_text=text,
        turns=(Turn("agent", text),),
        finish_reason="length",
    )
    assert task.score(episode) == 0.5
    assert task.metrics(episode) == {"tone": 1.0, "fluency": 0.5, "topic": 1.0}


@pytest.mark.parametrize("level", [1, 2, 3])
def test_prompts_and_oracle(level):
    task = SentimentTask(level=level)
    rng = np.random.default_rng(level)
    worth = []
    for _ in range(100):
        instance = task.draw(rng, "train")
        assert task.from_prompt(instance.prompt) == instance
        assert task.from_prompt(instance.prompt).data == instance.data
        assert task.score_text(instance, task.solve(instance)) == 1.0
        worth.append(classifier().logit(instance.data["opening"]))
    expected = {1: 0, 2: -1, 3: -4}[level]
    assert np.mean(worth) == pytest.approx(expected, abs=0.4)
    # Blame in the same words twice counts little more than once.
    assert max(worth) < {1: 0.5, 2: -0.5, 3: -1.5}[level]


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ("Once upon a time", "not a review prompt.*Expected one such as 'Review of the"),
        ("Review of the boat Blue Door: It was a cold day.", "no kind 'boat'. Known: film, book"),
        ("Review of the cafe Blue Door: The hero was weak, but", "not a review prompt"),
        ("Review of the cafe Blue Door: It rained and", "not a review prompt"),
        ("Review of the cafe Blue Door: It was a cold", "not a review prompt"),
    ],
)
def test_other_prompts_are_refused(prompt, match):
    with pytest.raises(ValueError, match=match):
        SentimentTask().from_prompt(prompt)


def test_an_opening_that_blames_everything_leaves_nothing_to_the_oracle():
    everything = " ".join(f"I hated the {aspect}." for aspect in ASPECTS["cafe"])
    task = SentimentTask()
    instance = task.from_prompt(f"Review of the cafe Blue Door: {everything}")
    with pytest.raises(NotImplementedError, match="Leave it more to praise"):
        task.solve(instance)


def test_accuracy_is_of_real_reviews():
    with pytest.raises(AttributeError, match="Give some as `dataset`"):
        _ = SentimentTask().accuracy


# ------------------------------------------------------------------ real reviews
def little_reviews(n=400):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        label = int(rng.integers(2))
        words = ["fun warm clever sweet", "dull flat stale empty"][1 - label].split()
        a, b, c = rng.permutation(words)[:3]
        tail = f"is a {a} and {b} film , {c} to the end ."
        rows.append({"review": f"number {i} of the long series {tail}", "rating": label})
    return rows


@pytest.fixture(scope="module")
def little():
    return SentimentTask(dataset=little_reviews(), text_column="review", label_column="rating")


def test_rows_of_ones_own(little):
    assert little.accuracy > 0.95
    train, test = (set(little.reviews.prompts[split]) for split in ("train", "test"))
    assert train
    assert test
    assert not train & test
    assert "number 7 of the long series" in train | test
    instance = little.draw(np.random.default_rng(0), "test")
    assert instance.prompt in test
    assert little.from_prompt(instance.prompt) == instance
    assert little.score_text(instance, little.solve(instance)) == 1.0
    assert little.score_text(instance, " fun sweet warm clever fun sweet warm clever") < 0.3
    assert little.score_text(instance, " is a dull and flat film , empty to the end .") == 0.0
    assert pickle.loads(pickle.dumps(little)).solve(instance) == little.solve(instance)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "train.tsv: no rows"),
        ("good film\t1\nbad film\n", "train.tsv, line 2: expected 2 fields"),
        ("good film\t1\nbad film\t7\n", "train.tsv, line 2: 'label' must be one of 0, 1, neg.*'7'"),
        ("good film\t1\n \t0\n", "train.tsv, line 2: 'sentence' must be a non-blank"),
        (b"good film\t1\nb\xe4d film\t0\n", "train.tsv, line 2: not UTF-8"),
        ("good film\t1\n", "no negative review to learn from"),
        ("good film\t1\nbad film\t0\n", "no review has more than 11 words"),
    ],
)
def test_bad_folders_name_file_row_and_remedy(tmp_path, content, match):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "train.tsv").write_bytes(content)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nfine\tpositive\n")
    with pytest.raises(ValueError, match=match):
        SentimentTask(dataset=tmp_path)


def test_other_sources_name_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold train\.tsv.*got nothing"):
        SentimentTask(dataset=tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        SentimentTask(dataset=tmp_path / "none")
    with pytest.raises(
        ValueError, match=r"no column 'sentence', only review, rating.*text_column="
    ):
        SentimentTask(dataset=little_reviews(3))
    with pytest.raises(ValueError, match="`prompt_words` must be a positive int"):
        SentimentTask(prompt_words=0)


@pytest.mark.parametrize(
    ("negative", "positive"), [(0, 1), ("0", "1"), (False, True), (0.0, 1.0), ("Neg", "POSITIVE")]
)
def test_labels_in_other_words(negative, positive):
    rows = [{**row, "rating": (negative, positive)[row["rating"]]} for row in little_reviews(100)]
    task = SentimentTask(dataset=rows, text_column="review", label_column="rating")
    assert task.reviews.classifier.probability("a fun and clever film") > 0.5


@needs_sst2
def test_sst2():
    task = SentimentTask(dataset=str(SST2))
    assert task.accuracy == pytest.approx(0.806, abs=0.01)
    rng = np.random.default_rng(0)
    instances = [task.draw(rng, split) for split in ("train", "test") for _ in range(30)]
    assert all(len(instance.prompt.split()) == 6 for instance in instances)
    assert all(task.score_text(i, task.solve(i)) == 1.0 for i in instances)

    def mean(texts):
        return np.mean([task.score_text(i, t) for i, t in zip(instances, texts, strict=True)])

    praise = ["great", "wonderful", "best", "moving", "funny", "a", "good", "film", "love", "the"]
    own = dict(line.rsplit("\t", 1) for f in ("train", "test") for line in lines(f))
    tails = {}
    for text, label in own.items():
        tails.setdefault(" ".join(text.split()[:6]), (" ".join(text.split()[6:]), label))
    rests = [tails[i.prompt] for i in instances]
    assert mean([" " + " ".join(rng.permutation(praise)) for _ in instances]) < 0.05
    assert mean([" " + " ".join(rng.permutation(task.solve(i).split())) for i in instances]) < 0.1
    assert mean([" great" * 12 for _ in instances]) < 0.05
    assert mean([" a great film ," * 5 for _ in instances]) < 0.05
    assert mean([" wonderful ." for _ in instances]) < 0.05
    assert mean([" " + i.prompt for i in instances]) == 0.0
    # People's own reviews: the positive ones are worth something, the negative ones little.
    real = [(i, rest) for i, (rest, label) in zip(instances, rests, strict=True) if label == "1"]
    assert np.mean([task.score_text(i, rest) for i, rest in real]) > 0.25
    real = [(i, rest) for i, (rest, label) in zip(instances, rests, strict=True) if label == "0"]
    assert np.mean([task.score_text(i, rest) for i, rest in real]) < 0.1
    for text in ("a" * 100_000, "a " * 50_000, "\ud800 x " * 30_000, "\x00" * 100_000):
        start = time.process_time()
        assert task.score_text(Instance(instances[0].prompt), text) < 0.05
        assert time.process_time() - start < 0.5


def lines(name):
    return (SST2 / f"{name}.tsv").read_text(encoding="utf-8").splitlines()


@needs_sst2
def test_levels_of_sst2_are_of_what_its_prompts_say():
    for level, most in ((2, 0.5), (3, 0.25)):
        reviews = SentimentTask(dataset=SST2, level=level).reviews
        for split in ("train", "test"):
            assert len(reviews.prompts[split]) > 100
            assert all(reviews.classifier.probability(p) < most for p in reviews.prompts[split])
