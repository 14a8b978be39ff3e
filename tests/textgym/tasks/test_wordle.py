"""Wordle: marks by hand, the exact play against brute force, and every way a game can go."""

from pathlib import Path

import numpy as np
import pytest

from textgym import Instance, Tokenizer
from textgym.demonstrations import converse, demonstrate
from textgym.episode import Turn
from textgym.seeding import instance_rng
from textgym.tasks.wordle import WordleTask
from textgym.tasks.wordle_game import (
    ExactPlay,
    best_play,
    fewest_guesses,
    good_guess,
    is_sure,
    marks,
    optimal_value,
)
from textgym.tasks.wordle_words import FIVE, FOUR, THREE

GPT2 = Path(__file__).parents[3] / ".." / "shared" / "models" / "gpt2-tokenizer"
LEVELS = range(1, WordleTask.levels + 1)
TOKENIZER = Tokenizer.load()
TASK = WordleTask()
LIST = ("ham", "fly", "bus", "map", "sky", "hat", "ice", "man")
GAME = Instance("Guess:", "map", {"words": LIST})


def play(guesses, task=TASK, instance=GAME):
    said = iter(guesses)
    return converse(task, instance, lambda *_: next(said), TOKENIZER)


@pytest.mark.parametrize(
    ("guess", "secret", "expected"),
    [
        *(
            ("cat", "cat", "+++"),
            ("cat", "dog", "---"),
            ("tac", "cat", "?+?"),
            ("act", "cat", "??+"),
        ),
        # One e in the secret: the right one is marked, or else the first.
        *(("geese", "below", "-+---"), ("eager", "below", "?----"), ("erred", "dense", "?--??")),
        *(
            ("eerie", "there", "?-?-+"),
            ("sassy", "glass", "??-+-"),
            ("glass", "sassy", "--?+?"),
        ),
        *(("abbey", "babel", "??++-"), ("allay", "llama", "?+??-"), ("mamma", "llama", "-?-++")),
    ],
)
def test_marks_by_hand(guess, secret, expected):
    assert marks(guess, secret) == expected


def brute_force(words, pays):
    """The best expected pay over every strategy there is, written out as a table and played."""
    best = 0.0

    def extend(strategy, open_histories):
        nonlocal best
        if not open_histories:  # a guess for every history that some secret leads to
            best = max(best, np.mean([pay_of(strategy, secret) for secret in words]))
            return
        history, *rest = open_histories
        for guess in words:
            after = {
                (*history, (guess, marks(guess, secret)))
                for secret in words
                if all(marks(g, secret) == seen for g, seen in history) and guess != secret
            }
            more = sorted(after) if len(history) + 1 < len(pays) else []
            extend({**strategy, history: guess}, [*rest, *more])

    def pay_of(strategy, secret):
        history = ()
        for pay in pays:
            guess = strategy[history]
            if guess == secret:
                return pay
            history = (*history, (guess, marks(guess, secret)))
        return 0.0

    extend({}, [()])
    return best


@pytest.mark.parametrize(
    "words",
    [
        ("cat", "dog"),
        ("cat", "hat", "bat"),
        ("cat", "hat", "tea"),
        ("cat", "hat", "bat", "rat"),
        ("cow", "owl", "low", "log"),
    ],
)
@pytest.mark.parametrize("pays", [(1.0,), (1.0, 0.5), (1.0, 1.0), (1.0, 0.5, 0.25), (0.2, 1.0)])
def test_the_exact_value_is_that_of_the_best_of_all_strategies(words, pays):
    assert optimal_value(words, pays) == pytest.approx(brute_force(words, pays), abs=1e-12)


def test_values_by_hand():
    # Alike but for the first letter: a guess tells only whether it is right.
    rhymes = ("cat", "hat", "bat", "rat")
    assert fewest_guesses(rhymes) == (1 + 2 + 3 + 4) / 4
    assert optimal_value(rhymes, (1.0, 1.0, 1.0)) == 3 / 4
    assert not is_sure(rhymes, 3)
    assert is_sure(rhymes, 4)
    # Any guess tells the others apart.
    apart = ("tea", "cat", "dog")
    assert fewest_guesses(apart) == (1 + 2 + 2) / 3
    # Better not to guess what may be right, if something else tells all of them apart.
    assert is_sure((*rhymes, "bhr"), 3)
    assert optimal_value((*rhymes, "bhr"), (1.0, 1.0)) == 1.0


def test_the_play_earns_what_it_is_worth():
    rng = np.random.default_rng(0)
    for pays in ((1.0, 1.0, 1.0, 0.5), (1.0, 0.6, 0.2)):
        for _ in range(10):
            words = tuple(rng.permutation(THREE)[:8].tolist())
            exact, earned = ExactPlay(words, pays), []
            for secret in words:
                history = {}
                while len(history) < len(pays) and secret not in history:
                    guess = exact.guess(history, len(history))
                    history[guess] = marks(guess, secret)
                earned.append(pays[len(history) - 1] if secret in history else 0.0)
            assert np.mean(earned) == pytest.approx(exact.value)
            quick = best_play(words, pays)
            assert quick.value <= exact.value


@pytest.mark.parametrize("words", [(), ("cat", "cat"), THREE])
def test_lists_that_cannot_be_played_exactly_are_refused(words):
    with pytest.raises(ValueError, match="1 to 16 different words"):
        optimal_value(words, (1.0,))


def test_pays_below_nothing_are_refused():
    with pytest.raises(ValueError, match="below 0"):
        optimal_value(("cat",), (1.0, -1.0))


def test_a_game_by_hand():
    turns = [Turn("agent", " ham")]
    assert TASK.reply(GAME, turns).text == "\nh- a+ m?\nGuess:"
    turns += [Turn("task", "..."), Turn("agent", " dog")]
    assert TASK.reply(GAME, turns).text == "\nNot in the list.\nGuess:"
    won = TASK.reply(GAME, [*turns, Turn("task", "..."), Turn("agent", " Map.")])
    assert (won.text, won.terminated) == ("\nYes.", True)
    turns += [
        Turn("task", "..."),
        Turn("agent", " hat"),
        Turn("task", "..."),
        Turn("agent", " man"),
    ]
    lost = TASK.reply(GAME, turns)
    assert (lost.text, lost.terminated) == ("\nNo, it was map.", True)


@pytest.mark.parametrize(
    ("guesses", "score"),
    [
        *(((" map",), 1.0), (("MAP.",), 1.0), ((" fly", "map"), 1.0), (("x", "", "map"), 1.0)),
        ((" fly", " sky", " bus", " map"), 0.5),
        # Not found: two of three letters right, one, none.
        ((" fly", " man", " bus", " hat"), 0.1 * 2 / 3),
        ((" fly", " ham", " bus", " sky"), 0.1 / 3),
        ((" fly", " fly", " fly", " fly"), 0.0),
        # What is no guess of this list has no marks.
        (("mad", "map map", "mapmap", "ma p"), 0.0),
        (("\U0001f600", "\x00" * 1000, "ham " * 10_000, "the map"), 0.0),
    ],
)
def test_scores_by_hand(guesses, score):
    episode = play(guesses)
    assert TASK.score(episode) == pytest.approx(score)
    assert episode.finish_reason == "task"
    assert TASK.metrics(episode) == {"found": float(score >= 0.5), "guesses": len(guesses)}


def test_late_guesses_at_the_other_levels():
    misses = {2: ("band", "bean", "bear", "bell"), 3: ("actor", "adult", "agent", "alarm", "album")}
    for level, expected in ((2, {3: 1.0, 4: 2 / 3, 5: 1 / 3}), (3, {4: 1.0, 5: 2 / 3, 6: 1 / 3})):
        secret = "yard" if level == 2 else "zebra"
        words = (*FOUR[:15], "yard") if level == 2 else FIVE
        task, instance = WordleTask(level=level), Instance("Guess:", secret, {"words": words})
        for guesses, score in expected.items():
            episode = play((*misses[level][: guesses - 1], secret), task, instance)
            assert task.score(episode) == pytest.approx(score)


def test_a_guess_may_be_any_text():
    for text in ("", "\ud800", "map" * 100_000, "\x00", "MAP\u0307"):
        assert TASK.reply(GAME, [Turn("agent", text)]).text == "\nNot in the list.\nGuess:"


def test_a_guess_that_the_budget_cut_does_not_count():
    won = play((" fly", " map"))
    cut = type(won)(
        won.instance,
        won.input_ids,
        won.completion_mask,
        won.completion_text,
        won.turns[:3],
        "length",
    )
    assert TASK.score(cut) == 0.0
    assert TASK.metrics(cut) == {"found": 0.0, "guesses": 1.0}


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_never_needs_the_secret(level):
    """Games that look alike so far get the same guess, and it is always in time."""
    task, told = WordleTask(level=level), {}
    for seed in range(40):
        drawn = task.draw(instance_rng(seed, "train", 0, 0), "train")
        words = drawn.data.get("words", FIVE[seed::40])
        for secret in words:
            instance = Instance(drawn.prompt, secret, drawn.data)
            episode = demonstrate(task, instance, TOKENIZER)
            assert task.score(episode) == 1.0
            seen = drawn.prompt if level < 3 else ""
            for turn in episode.turns:
                if turn.role == "agent":
                    assert told.setdefault(seen, turn.text) == turn.text
                seen += turn.text


def test_good_play_finds_every_long_word_in_four():
    guesses = []
    for secret in FIVE:
        history = {}
        while secret not in history:
            guess = good_guess(FIVE, history)
            history[guess] = marks(guess, secret)
        guesses.append(len(history))
    assert max(guesses) == 4
    assert np.mean(guesses) < 3


@pytest.mark.parametrize("level", [1, 2])
def test_the_best_play_of_every_drawn_list_is_sure_of_one(level):
    task = WordleTask(level=level)
    for seed in range(100):
        instance = task.sample(np.random.default_rng(seed))
        words = instance.data["words"]
        assert task.optimal_value(instance) == 1.0
        assert len(set(words)) == (8, 12)[level - 1]
        assert instance.target in words
        assert ", ".join(words) in instance.prompt
        assert 1 < fewest_guesses(words) <= 3


def test_long_lists_have_no_exact_value():
    task = WordleTask(level=3)
    instance = task.sample(np.random.default_rng(0))
    assert instance.target not in instance.prompt
    with pytest.raises(ValueError, match="1 to 16"):
        task.optimal_value(instance)


def test_instances_without_their_secret_are_refused():
    for instance in (
        Instance("x"),
        Instance("x", "owls"),
        Instance("x", "owl", {"words": ("cat",)}),
    ):
        with pytest.raises(ValueError, match="secret"):
            TASK.reply(instance, [Turn("agent", "owl")])
    assert TASK.reply(Instance("x", "owl"), [Turn("agent", "owl")]).terminated


def test_the_lists():
    for letters, words in ((3, THREE), (4, FOUR), (5, FIVE)):
        assert list(words) == sorted(set(words))
        assert all(len(w) == letters and w.isascii() and w.isalpha() and w.islower() for w in words)
    assert (len(THREE), len(FOUR)) == (76, 145)
    assert len(FIVE) > 300


@pytest.mark.parametrize("level", LEVELS)
def test_all_that_is_said_fits(level):
    tokenizers = [TOKENIZER] + ([Tokenizer.load(GPT2)] if GPT2.is_dir() else [])
    task = WordleTask(level=level)
    for tokenizer in tokenizers:

        def count(text, t=tokenizer):
            return len(t.encode(text))

        prompts, replies = task.prompt_bound(count), task.reply_bound(count)
        assert prompts + task.max_new_tokens + replies <= 256
        for seed in range(100):
            instance = task.sample(np.random.default_rng(seed))
            assert count(instance.prompt) <= prompts
            words = instance.data.get("words", FIVE)
            wrong = [w for w in words if w != instance.target][-task.max_turns :]
            for guesses in (wrong, ["?"] * task.max_turns):
                episode = converse(
                    task, instance, lambda _, t, g=guesses: g[len(t) // 2], tokenizer
                )
                said = episode.completion_mask.sum()
                assert len(episode.input_ids) - count(instance.prompt) - said <= replies
                assert said <= task.max_new_tokens
