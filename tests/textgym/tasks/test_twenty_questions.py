"""Twenty questions: what is understood, what an answer says, and what guesses are worth."""

import itertools
import pickle

import gymnasium as gym
import numpy as np
import pytest

from textgym.demonstrations import converse, demonstrate
from textgym.episode import Episode, Instance, Turn
from textgym.tasks.twenty_questions import (
    ATTRIBUTES,
    NO,
    YES,
    TwentyQuestionsTask,
    answer_question,
    read_guess,
)
from textgym.tokenization import Tokenizer

THING = ("red", "paper", "boat")
OPTIONS = {"colour": ("red", "blue"), "material": ("glass", "paper"), "kind": ("boat", "drum")}
INSTANCE = Instance("I think of a thing.\nYou:", data={"options": OPTIONS, "thing": THING})
GUESS = " It is a red paper boat."


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(params=[1, 2, 3])
def task(request):
    return TwentyQuestionsTask(request.param)


def play(*said, task=None, instance=INSTANCE):
    """The episode in which the agent says what is `said`, until the task ends it."""
    task, turns = task or TwentyQuestionsTask(), []
    for text in said:
        turns.append(Turn("agent", text))
        reply = task.reply(instance, turns)
        turns.append(Turn("task", reply.text))
        if reply.terminated:
            break
    text = "\n".join(turn.text for turn in turns[::2])
    none = np.zeros(0, np.int64)
    return Episode(instance, none, none.astype(bool), text, tuple(turns), "stop")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is it red?", True),
        (" is it RED", True),
        ("Is it blue?", False),
        ("Is it golden?", False),  # not among the options, and still understood
        ("Is it a boat?", True),
        ("Is it a drum or a boat?", True),
        ("Is it blue or glass?", False),
        ("Is it blue or paper?", True),
        ("Is it a red boat?", True),
        ("Is it a red glass boat?", False),
        ("Is it in the barn?", False),
        ("Is it a red or blue boat?", None),
        ("Is it purple?", None),
        ("Is it?", None),
        ("Is it ?", None),
        ("Is it red or?", None),
        ("Is it or?", None),
        ("It is red?", None),
        ("red?", None),
        ("Is it red? Is it blue?", None),
        ("", None),
        ("\x00\ud800", None),
        ("Is it " + "red or " * 50_000 + "red?", None),
    ],
)
def test_questions(question, answer):
    assert answer_question(question, THING) is answer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GUESS, THING),
        ("it is a red paper boat", THING),
        ("It is a small red boat in the barn!", ("small", "red", "boat", "barn")),
        ("It is a boat.", ("boat",)),
        ("It is.", None),
        ("It is a", None),
        ("It is a purple boat.", None),
        ("Is it a red paper boat?", None),
        ("So it is a red paper boat.", None),
        ("It is a red paper boat. It is a blue paper boat.", None),
        ("", None),
    ],
)
def test_guesses(text, words):
    assert read_guess(text) == words


ASKED = ("Is it red?", "Is it glass?", "Is it a drum?")


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ((*ASKED, GUESS), 1.0),
        ((GUESS,), 1.0),  # one in eight of those who ask nothing
        ((*ASKED, "It is a boat red paper"), 1.0),  # in any order
        ((*ASKED, "It is a red glass boat."), 0.15 * 2 / 3),
        ((*ASKED, "It is a blue glass drum."), 0.0),
        ((*ASKED, "It is a blue glass drum.", GUESS), 0.0),  # the first guess counts
        ((*ASKED, "It is a red red red."), 0.15 / 3),
        ((*ASKED, "It is a red boat."), 0.0),  # not all of it
        ((*ASKED, "It is a red blue glass paper boat drum."), 0.0),
        ((*ASKED, "Is it red?", GUESS), 0.75),
        ((*ASKED, "Hello!", "", GUESS), 0.5),
        ((*ASKED, *ASKED, GUESS), 0.25),
        ((*ASKED, *ASKED, "Is it red?", GUESS), 0.0),
        ((*ASKED, "Is it red?", "It is a red paper drum."), 0.75 * 0.15 * 2 / 3),
        (ASKED, 0.0),
        (("Is it a red paper boat?",) * 7, 0.0),  # asked, never told
        (("\x00\ud800",) * 7, 0.0),
        (("It is a red paper boat. " * 10_000,) * 7, 0.0),
    ],
)
def test_scores(said, score):
    assert TwentyQuestionsTask().score(play(*said)) == pytest.approx(score)


def test_metrics():
    task = TwentyQuestionsTask()
    assert task.metrics(play(*ASKED, GUESS)) == {"questions": 3.0, "right": 1.0}
    assert task.metrics(play("Hm.", "It is a red glass boat.")) == {"questions": 1.0, "right": 0.0}


def test_the_host_answers_in_words():
    task = TwentyQuestionsTask()
    yes, no, unclear = (play(text).turns[1].text for text in ("Is it red?", "Is it blue?", "Hm?"))
    assert yes in {f"\nHost: {words}\nYou:" for words in YES}
    assert no in {f"\nHost: {words}\nYou:" for words in NO}
    assert unclear == "\nHost: I do not understand.\nYou:"
    wrong = play("It is a red glass boat.").turns[-1].text
    assert wrong == "\nHost: Wrong. It is a red paper boat."
    over = play(*["Is it red?"] * 9)
    assert len(over.turns) == 2 * task.max_turns == 14
    assert over.turns[-1].text == "\nHost: Too many questions. It is a red paper boat."


def test_the_prompt_tells_what_it_may_be():
    task = TwentyQuestionsTask(3)
    for seed in range(20):
        instance = task.sample(np.random.default_rng(seed))
        for attribute, words in instance.data["options"].items():
            assert set(words) <= set(ATTRIBUTES[attribute])
            assert all(word in instance.prompt for word in words)
        things = set(itertools.product(*instance.data["options"].values()))
        assert len(things) == 2**task.par == 256
        assert instance.data["thing"] in things


def test_the_oracle_is_perfect_and_fits(task, tokenizer):
    longest = 0
    for seed in range(200):
        episode = demonstrate(task, task.sample(np.random.default_rng(seed)), tokenizer)
        assert task.score(episode) == 1.0
        assert task.metrics(episode) == {"questions": task.par, "right": 1.0}
        longest = max(longest, len(episode.completion_ids))
    assert longest <= task.max_new_tokens


def test_the_oracle_finds_out_by_asking():
    """Having heard the same, it says the same, whatever the thing is."""
    task = TwentyQuestionsTask(2)
    drawn = task.sample(np.random.default_rng(0))
    spoken = {}
    for thing in itertools.product(*drawn.data["options"].values()):
        instance = Instance(drawn.prompt, data={**drawn.data, "thing": thing})
        turns = ()
        while len(turns) < 2 * task.par + 1:
            text = task.solve_turn(instance, turns)
            assert spoken.setdefault(turns, text) == text
            turns = (*turns, Turn("agent", text))
            turns = (*turns, Turn("task", task.reply(instance, turns).text))
    assert len(spoken) == 2 ** (task.par + 1) - 1


def test_guessing_at_once_is_no_way_to_score(tokenizer):
    task, rng = TwentyQuestionsTask(), np.random.default_rng(0)

    def anything(instance, turns):
        return f" It is a {' '.join(map(str, map(rng.choice, instance.data['options'].values())))}."

    instances = [task.sample(rng) for _ in range(400)]
    scores = [task.score(converse(task, i, anything, tokenizer)) for i in instances]
    assert 0.1 < np.mean(scores) < 0.25


def test_contexts_are_short_and_bounded(task, tokenizer):
    def count(text):
        return len(tokenizer.encode(text))

    prompts, replies = task.prompt_bound(count), task.reply_bound(count)
    assert prompts + task.max_new_tokens + replies <= (300 if task.level == 1 else 512)
    for seed in range(100):
        instance = task.sample(np.random.default_rng(seed))
        assert count(instance.prompt) <= prompts
        episode = play(*["hm?"] * (task.max_turns - 1), "It is red.", task=task, instance=instance)
        assert sum(count(turn.text) for turn in episode.turns if turn.role == "task") <= replies


def test_a_guess_that_the_budget_cuts_earns_nothing():
    env = gym.make("textgym/TwentyQuestions-v0", max_new_tokens=10).unwrapped
    env.reset(seed=0, options={"instance": INSTANCE})
    ids = env.tokenizer.encode(GUESS, special_tokens=False)
    for token in [*ids[:10], *ids[:1] * (10 - len(ids))]:
        *_, terminated, _, info = env.step(token)
    assert terminated
    assert info["finish_reason"] == "length"
    assert info["score"] == 0.0


def test_instances_are_plain_and_many(task):
    instances = [task.sample(np.random.default_rng(seed)) for seed in range(512)]
    assert len({i.prompt for i in instances}) > 500
    assert pickle.loads(pickle.dumps(instances[0])) == instances[0]


def test_levels_are_checked():
    with pytest.raises(ValueError, match="must be 1 to 3, got 4"):
        TwentyQuestionsTask(4)
