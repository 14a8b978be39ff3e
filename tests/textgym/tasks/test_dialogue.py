"""Dialogue: what is understood, how the user answers, and what a booking is worth, by hand."""

import math
import pickle

import gymnasium as gym
import numpy as np
import pytest

from textgym.demonstrations import converse, demonstrate
from textgym.episode import Instance, Turn
from textgym.tasks import dialogue_world as world
from textgym.tasks.dialogue import DialogueTask
from textgym.tasks.dialogue_world import Booking, NothingFits, Question, User, understand
from textgym.tokenization import Tokenizer

DATA = {
    "wishes": {"kind": "bar", "area": "north", "price": "fancy", "time": "seven", "people": "two"},
    "opening": ("kind", "area", "people"),
    "places": {
        "old moon": ("bar", "north", "fancy"),
        "red boat": ("bar", "north", "cheap"),
        "blue owl": ("cafe", "south", "fancy"),
    },
    "change": None,
    "relax": None,
    "event": None,
    "deaf_at": 1,
    "indirect": False,
    "draw": 0,
}
ASK, BOOK = "What price and what time?", "Booked: old moon at seven for two."


def instance(**changes):
    return Instance("Book!\nUser: I want a bar.\nAssistant:", data=DATA | changes)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(params=[1, 2, 3])
def task(request):
    return DialogueTask(request.param)


def talk(said, tokenizer, asked=None, level=3):
    """The episode in which the agent says all of `said`, or as much as it can."""
    texts = iter(said)
    turns = min(len(said), DialogueTask(level).max_turns)
    return converse(
        DialogueTask(level),
        asked or instance(),
        lambda *_: next(texts),
        tokenizer,
        max_turns=turns,
    )


def score(said, tokenizer, asked=None):
    return DialogueTask(3).score(talk(said, tokenizer, asked))


# ---------------------------------------------------------------------- the grammar
@pytest.mark.parametrize(
    ("text", "wishes"),
    [
        ("What price?", ("price",)),
        (" where would you like?", ("area",)),
        ("WHAT TIME AND WHAT PRICE?", ("time", "price")),
        ("What time, and for how many people?", ("time", "people")),
        ("What kind, area and price?", ("kind", "area", "price")),
        ("Sure. When? How many?", ("time", "people")),
        ("What kind of place would you like, and where should it be?", ("kind", "area")),
        ("What time, what time?", ("time",)),
    ],
)
def test_questions_are_understood(text, wishes):
    assert understand(text) == Question(wishes)


@pytest.mark.parametrize(
    "text",
    [
        *("Booked: red boat at seven for two.", "booked: the Red Boat at 7 for 2 people"),
        *("Booked: red boat for two at seven.", "Of course, booked: red boat at seven for two."),
    ],
)
def test_bookings_are_understood(text):
    assert understand(text) == Booking("red boat", "seven", "two")


@pytest.mark.parametrize("text", ["Nothing fits.", "Sorry, there is nothing.", "no place fits"])
def test_that_nothing_fits_is_understood(text):
    assert understand(text) == NothingFits()


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "?", "??", ".", "What price", "price?", "time area?", "What price? yes"),
        *("price what time what and?", "and what price?", "What what price?", "What people?"),
        *("Booked:", "Booked: red boat", "Booked: red boat at seven", "red boat at seven for two"),
        *(
            "boat red Booked: seven at two for",
            "Booked: red boat at seven for two. Booked: x",
        ),
        *("Booked: name at time for number. User: hi", "Booked: a b c d at six for two."),
        *("\x00\ud800", "日本語?", "What price? " * 10_000, BOOK * 30, "Nothing", "fits nothing"),
    ],
)
def test_anything_else_is_not(text):
    assert understand(text) is None


# ---------------------------------------------------------------------- the user
def test_the_user_tells_what_is_asked():
    user = User(DATA)
    assert user.untold == ["price", "time"]
    assert user.hear("What about it?") == world.NOT_UNDERSTOOD
    assert user.hear("What price, time and area?") == world.TOO_MANY
    assert user.hear("Nothing fits.") == world.LOOK_AGAIN
    assert user.pending == 2
    price, time = user.hear(ASK).split(". ")
    assert "fancy" in price
    assert "seven" in time
    assert user.untold == []
    assert "two" in user.hear("How many people?")
    assert user.hear(BOOK) == world.PLEASED
    assert (user.turns, user.booking) == (6, Booking("old moon", "seven", "two"))


def test_the_example_the_user_gives_is_understood():
    assert isinstance(understand(world.NOT_UNDERSTOOD.split(": ")[1]), Question)


def test_the_user_changes_their_mind_when_all_is_told():
    user = User(DATA | {"change": ("people", "five")})
    assert "five" not in user.hear("What price?")
    answer = user.hear("When?")
    assert "seven" in answer
    assert answer.endswith("for five.")
    assert "five" in user.hear("How many people?")
    assert user.hear(BOOK) == world.DISPLEASED
    assert user.met() == (True, True, False)


def test_the_user_volunteers_overlooks_and_does_not_hear():
    opening = ("kind",)
    user = User(DATA | {"opening": opening, "event": "volunteer"})
    assert "fancy" in user.hear("Where and when?")
    assert user.untold == ["people"]
    user = User(DATA | {"opening": opening, "event": "overlook"})
    assert "seven" not in user.hear("Where and when?")
    assert user.untold == ["price", "time", "people"]
    assert "fancy" in user.hear("What time and what price?")  # it happens once
    user = User(DATA | {"opening": opening, "event": "deaf", "deaf_at": 2})
    assert "north" in user.hear("Where?")
    assert user.hear("When?") in world.NOT_HEARD
    assert user.untold == ["price", "time", "people"]
    assert "seven" in user.hear("When?")


def test_the_user_gives_up_a_wish_once_told_that_nothing_fits():
    user = User(
        DATA | {"wishes": DATA["wishes"] | {"price": "modest"}, "relax": ("price", "cheap")}
    )
    assert user.hear("Nothing fits.") == world.LOOK_AGAIN
    user.hear(ASK)
    assert (user.pending, user.stuck) == (1, True)
    assert "something cheap" in user.hear("Nothing fits.")
    assert (user.pending, user.stuck) == (0, False)
    assert user.hear("Nothing fits.") == world.LOOK_AGAIN
    assert user.hear("Booked: red boat at seven for two.") == world.PLEASED


def test_indirect_answers_tell_every_value():
    assert world.INDIRECT["time"]["five"] == ("An hour after four.", "An hour before six.")
    assert world.INDIRECT["people"]["two"] == ("Me and a friend.",)
    assert world.INDIRECT["people"]["three"] == ("Me and two friends.",)
    for wish, values in world.WISHES.items():
        assert set(world.INDIRECT[wish]) == set(values)
        texts = [text for texts in world.INDIRECT[wish].values() for text in texts]
        assert len(set(texts)) == len(texts)


# ---------------------------------------------------------------------- the score
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([ASK, BOOK], 1.0),
        (["what time and price?", "booked: Old Moon at 7 for 2 people"], 1.0),
        (["What price?", "What time?", BOOK], 0.9),  # a turn more than it takes
        (["Hello", ASK, "Nothing fits.", BOOK], 0.8),
        ([ASK, "Booked: old moon at seven for three."], 0.7),
        ([ASK, "Booked: old moon at eight for three."], 0.4),
        ([ASK, "Booked: red boat at seven for two."], 0.6),  # a place that is not all as wished
        ([ASK, "Booked: no place at seven for two."], 0.6),
        ([ASK, "Booked: no place at dawn for none."], 0.0),
        ([BOOK], 0.3 / 4),  # a lucky guess of two wishes: only the number was told
        (["What price?", BOOK], 0.7 / 2),
        (["What time?", BOOK], 0.6 / 2),
        (["What area and how many people?", BOOK], 0.3 / 4),
        ([ASK], 0.0),
        ([ASK, "old moon at seven for two", "Booked."], 0.0),
        ([ASK] * 7, 0.0),
        (["Hello"] * 5 + [ASK, BOOK], 0.5),
        (["Hello"] * 6 + [BOOK], 0.3 / 4 * 0.5),
        (["Hello"] * 7 + [BOOK], 0.0),  # no turn is left
        (["\ud800", "\x00" * 100_000, "?" * 10_000], 0.0),
    ],
)
def test_scores(said, expected, tokenizer):
    clean = [text.encode("utf-8", "replace").decode() for text in said]
    assert score(clean, tokenizer) == pytest.approx(expected)


def test_what_nobody_told_counts_as_a_guess(tokenizer):
    asked = instance(wishes=DATA["wishes"] | {"price": "modest"}, relax=("price", "cheap"))
    book = "Booked: red boat at seven for two."
    assert score([ASK, "Nothing fits.", book], tokenizer, asked) == 1.0
    assert score([ASK, book], tokenizer, asked) == pytest.approx(0.6 / 2)
    assert score([ASK, "None fits.", BOOK], tokenizer, asked) == pytest.approx(0.6)


def test_metrics(tokenizer):
    metrics = DialogueTask().metrics
    assert metrics(talk(["Hello", ASK, BOOK], tokenizer)) == {
        "success": 1.0,
        "booked": 1.0,
        "extra_turns": 1.0,
    }
    assert metrics(talk([BOOK], tokenizer)) == {"success": 0.0, "booked": 1.0, "extra_turns": 0.0}
    assert metrics(talk([ASK], tokenizer))["booked"] == 0.0


def test_a_booking_ends_the_episode_and_is_answered():
    task = DialogueTask()
    asking, booking = Turn("agent", ASK), Turn("agent", BOOK)
    answer = task.reply(instance(), [asking])
    assert answer.text.startswith("\nUser: ")
    assert answer.text.endswith("\nAssistant:")
    assert not answer.terminated
    end = task.reply(instance(), [asking, Turn("task", answer.text), booking])
    assert (end.text, end.terminated, end.reward) == ("\nUser: Thank you!", True, 0.0)
    assert task.reply(instance(), [booking]).text == "\nUser: That is not what I want."


def test_a_booking_that_the_budget_cuts_is_none():
    env = gym.make("textgym/Dialogue-v0").unwrapped
    env.reset(seed=0, options={"instance": instance()})
    eos = env.tokenizer.eos_token_id
    asking, booking = (env.tokenizer.encode(f" {t}", special_tokens=False) for t in (ASK, BOOK))
    padding = [asking[0]] * (env.max_new_tokens - len(asking) - len(booking) - 2)
    for token in [*padding, eos, *asking, eos, *booking]:
        *_, terminated, _, info = env.step(token)
        if terminated:
            break
    assert (info["finish_reason"], info["score"]) == ("length", 0.0)


# ---------------------------------------------------------------------- what is drawn
def test_the_oracle_is_perfect_in_the_fewest_turns(task, tokenizer):
    longest, turns = 0, set()
    for seed in range(300):
        asked = task.sample(np.random.default_rng(seed))
        episode = demonstrate(task, asked, tokenizer)
        assert task.score(episode) == 1.0
        spoken = sum(turn.role == "agent" for turn in episode.turns)
        assert spoken == world.fewest_turns(asked.data)
        longest = max(longest, len(episode.completion_ids))
        turns.add(spoken)
    assert longest <= task.max_new_tokens
    assert turns == {1: {2}, 2: {2, 3}, 3: {3, 4, 5}}[task.level]


def test_exactly_one_place_is_as_wished(task):
    for seed in range(300):
        data = task.sample(np.random.default_rng(seed)).data
        before = data["wishes"] | dict([data["change"]] if data["change"] else [])
        after = before | dict([data["relax"]] if data["relax"] else [])
        places = list(data["places"].values())
        fits = [places.count(tuple(w[wish] for wish in world.OF_PLACE)) for w in (before, after)]
        assert fits == [0 if data["relax"] else 1, 1]
        assert len(places) == len(set(places)) == task.level + 2


def test_at_level_one_two_places_fit_the_opening():
    for seed in range(200):
        data = DialogueTask().sample(np.random.default_rng(seed)).data
        told = [i for i, wish in enumerate(world.OF_PLACE) if wish in data["opening"]]
        wished = [data["wishes"][wish] for wish in world.OF_PLACE]
        assert len(told) == 2
        fitting = [p for p in data["places"].values() if all(p[i] == wished[i] for i in told)]
        assert len(fitting) >= 2


def test_guessing_is_worth_little_and_asking_much(tokenizer):
    task, rng = DialogueTask(), np.random.default_rng(0)
    instances = [task.sample(rng) for _ in range(200)]

    def guess(asked, turns):
        place = rng.choice(list(asked.data["places"]))
        return f"Booked: {place} at {rng.choice(world.TIMES)} for {rng.choice(world.PEOPLE)}."

    def ask_first(asked, turns):
        return guess(asked, turns) if turns else task.solve(asked)

    means = [
        np.mean([task.score(converse(task, i, policy, tokenizer)) for i in instances])
        for policy in (guess, ask_first)
    ]
    assert means[0] < 0.05
    assert 0.15 < means[1] < 0.3


def test_contexts_are_short_and_bounded(task, tokenizer):
    def count(text):
        return len(tokenizer.encode(text))

    prompts, replies = task.prompt_bound(count), task.reply_bound(count)
    assert prompts + task.max_new_tokens + replies <= (300 if task.level == 1 else 512)
    rng = np.random.default_rng(0)
    sayings = ["What kind and price?", "Where and when?", "How many people and what price?"]
    sayings += ["Nothing fits.", "Hello", "What kind, price, area?"]
    for _ in range(200):
        asked = task.sample(rng)
        assert count(asked.prompt) <= prompts
        said = rng.choice(sayings, task.max_turns).tolist()
        episode = talk(said, tokenizer, asked, task.level)
        assert sum(count(turn.text) for turn in episode.turns if turn.role == "task") <= replies


def test_instances_are_plain_and_many(task):
    instances = [task.sample(np.random.default_rng(seed)) for seed in range(512)]
    assert len({i.prompt for i in instances}) == 512
    assert pickle.loads(pickle.dumps(instances[0])) == instances[0]
    names = len(world.ADJECTIVES) * len(world.NOUNS)
    assert math.comb(names, 3) > 10**6  # the names of the smallest catalogue alone
    for drawn in instances[:50]:
        assert all(f"\n{name}: " in drawn.prompt for name in drawn.data["places"])
        told = drawn.prompt.split("User: ")[1]
        assert all(drawn.data["wishes"][wish] in told for wish in drawn.data["opening"])


def test_levels_are_checked():
    with pytest.raises(ValueError, match="must be 1 to 3, got 4"):
        DialogueTask(4)
