"""Recommendation: the reader's reactions, the best session by brute force, and hostile readings."""

import itertools
import pickle

import gymnasium as gym
import numpy as np
import pytest

from textgym.demonstrations import converse, demonstrate
from textgym.episode import Episode, Instance, Turn
from textgym.tasks.recommendation import RecommendationTask
from textgym.tasks.recommendation_world import REACTIONS, best_plan, react
from textgym.tokenization import Tokenizer

CATALOGUE = {"red boat": 0, "old shell": 0, "blue drum": 1, "tiny bell": 1, "red cake": 2}
CATALOGUE["old soup"] = 2
TASTES = ("loves", "likes", "dislikes")
# Best: both on the sea and one on music, 1 + 3/4 + 1/4.
BEST = 2.0
INSTANCE = Instance(
    "Recommend!\nYou:",
    data={
        "topics": ("sea", "music", "food"),
        "catalogue": CATALOGUE,
        "tastes": (TASTES,) * 3,
    },
)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load()


@pytest.fixture(params=[1, 2, 3])
def task(request):
    return RecommendationTask(request.param)


def play(titles, task=None, instance=INSTANCE):
    """The episode in which the agent says `titles`."""
    task, turns = task or RecommendationTask(), []
    for title in titles:
        turns.append(Turn("agent", title))
        reply = task.reply(instance, turns)
        turns.append(Turn("task", reply.text))
    assert reply.terminated
    text = "\n".join(turn.text for turn in turns[::2])
    none = np.zeros(0, np.int64)
    return Episode(instance, none, none.astype(bool), text, tuple(turns), "task")


@pytest.mark.parametrize(
    ("titles", "engagement"),
    [
        (["red boat", "old shell", "tiny bell"], 2.0),
        ([" Old Shell.", "blue drum", "RED BOAT\n"], 2.0),
        (["blue drum", "tiny bell", "red boat"], 0.25 + 0.1875 + 1),
        (["red boat", "red cake", "old soup"], 1.0),  # complaints earn nothing
        (["red boat", "red boat", "Red boat."], 1.0),  # nor do repeats
        (["red boat", "red boat", "old shell"], 1.75),  # which do not tire a topic
        (["red boat old shell", "red boat, old shell", "red boat\nold shell"], 0.0),
        (["red shell", "boat", "sea"], 0.0),  # no such titles
        (["- sea: red boat, old shell", "red boat (sea)", "a red boat"], 0.0),
        (["", " ", "."], 0.0),
        (["\x00\ud800", "red boat" * 10_000, "日本語"], 0.0),
        (["red boat..", "red boat!", "red  boat"], 0.0),
    ],
)
def test_engagement_over_the_best(titles, engagement):
    score = RecommendationTask().score(play(titles))
    assert score == pytest.approx(engagement / BEST)


def test_clicks_and_complaints_are_counted():
    episode = play(["red boat", "red cake", "red boat"])
    assert RecommendationTask().metrics(episode) == {"clicks": 1 / 3, "complaints": 2 / 3}


def test_the_reader_says_what_they_think():
    def said(title, before=()):
        turns = [Turn("agent", text) for text in (*before, title)]
        return RecommendationTask().reply(INSTANCE, turns).text

    def within(text, kind, topic=""):
        return any(words.format(topic=topic) in text for words in REACTIONS[kind])

    assert within(said("red boat"), "loves")
    assert within(said("tiny bell"), "likes")
    assert within(said("red cake"), "dislikes", "food")
    assert within(said("red boat", ["red boat"]), "seen")
    assert within(said("red fish"), "unknown")
    tired = said("old shell", ["red boat"])
    assert within(tired, "loves")
    assert "enough of sea soon" in tired or "Now a change?" in tired
    assert said("red boat").startswith("\nReader: clicks")
    assert said("red boat").endswith("\nYou:")
    assert not said("red cake", ["red boat", "old shell"]).endswith("You:")


def test_tastes_drift():
    before, after = ("loves", "ignores"), ("ignores", "loves")
    tastes = (before, after)
    catalogue = {"a a": 0, "a b": 0, "b a": 1, "b b": 1}
    stale, followed = ["a a", "a b"], ["a a", "b a"]
    assert [r.engagement for r in react(catalogue, tastes, stale)] == [16, 0]
    assert [r.engagement for r in react(catalogue, tastes, followed)] == [16, 16]
    assert best_plan(tastes, 2) == (32, (0, 1))
    task = RecommendationTask(3)
    for seed in range(50):
        tastes = task.sample(np.random.default_rng(seed)).data["tastes"]
        assert len(set(tastes)) == 2
        change = tastes.index(tastes[-1])
        assert 2 <= change <= 4
        assert tastes[0].index("loves") == tastes[-1].index("ignores")
        assert tastes[0].index("ignores") == tastes[-1].index("loves")


def test_the_best_plan_is_the_best_of_all(task):
    # Every order of topics, titles of one topic being alike, through the reader itself.
    for seed in range(4 if task.level < 3 else 1):
        data = task.sample(np.random.default_rng(seed)).data
        books = len(data["catalogue"]) // len(data["topics"])
        catalogue = data["catalogue"].items()
        shelves = [[t for t, i in catalogue if i == j] for j in range(len(data["topics"]))]
        most = 0
        for topics in itertools.product(range(len(shelves)), repeat=len(data["tastes"])):
            if max(topics.count(topic) for topic in topics) > books:
                continue
            titles = [shelves[t][topics[:i].count(t)] for i, t in enumerate(topics)]
            reactions = react(data["catalogue"], data["tastes"], titles)
            most = max(most, sum(r.engagement for r in reactions))
        assert best_plan(data["tastes"], books)[0] == most


def test_the_oracle_is_perfect_and_fits(task, tokenizer):
    longest = 0
    for seed in range(200):
        episode = demonstrate(task, task.sample(np.random.default_rng(seed)), tokenizer)
        assert task.score(episode) == 1.0
        assert task.metrics(episode)["complaints"] == 0.0
        longest = max(longest, len(episode.completion_ids))
    assert longest <= task.max_new_tokens


def test_contexts_are_short_and_bounded(task, tokenizer):
    def count(text):
        return len(tokenizer.encode(text))

    prompts, replies = task.prompt_bound(count), task.reply_bound(count)
    assert prompts + task.max_new_tokens + replies <= (300 if task.level == 1 else 512)
    rng = np.random.default_rng(0)
    for _ in range(100):
        instance = task.sample(rng)
        assert count(instance.prompt) <= prompts
        titles = list(instance.data["catalogue"])
        episode = play(rng.choice([*titles, "nothing"], task.max_turns), task, instance)
        texts = [turn.text for turn in episode.turns if turn.role == "task"]
        assert sum(map(count, texts)) <= replies


def test_tastes_make_the_difference(tokenizer):
    """A random title earns about half, the topic of the hint clearly more."""
    task, rng = RecommendationTask(), np.random.default_rng(0)

    def anything(instance, turns):
        return rng.choice(list(instance.data["catalogue"]))

    def hinted(instance, turns):
        data, said = instance.data, {turn.text for turn in turns}
        loved = data["topics"].index(instance.prompt.split("Liked before: ")[1].split(".")[0])
        return min(set(data["catalogue"]) - said, key=lambda t: (data["catalogue"][t] != loved, t))

    instances = [task.sample(rng) for _ in range(200)]
    scores = [
        np.mean([task.score(converse(task, i, policy, tokenizer)) for i in instances])
        for policy in (anything, hinted)
    ]
    assert 0.4 < scores[0] < 0.6
    assert 0.88 < scores[1] < 1.0


def test_a_turn_that_the_budget_cuts_earns_nothing():
    env = gym.make("textgym/Recommendation-v0").unwrapped
    env.reset(seed=0, options={"instance": INSTANCE})
    ids = env.tokenizer.encode(" red boat", special_tokens=False)
    for token in [*ids, env.tokenizer.eos_token_id, *ids * env.max_new_tokens]:
        *_, terminated, _, info = env.step(token)
        if terminated:
            break
    assert info["finish_reason"] == "length"
    assert info["score"] == 1.0 / BEST


def test_instances_are_plain_and_many(task):
    instances = [task.sample(np.random.default_rng(seed)) for seed in range(512)]
    assert len({i.prompt for i in instances}) == 512
    assert pickle.loads(pickle.dumps(instances[0])) == instances[0]
    size = {1: (3, 6, 3), 2: (4, 8, 4), 3: (4, 12, 6)}[task.level]
    for instance in instances[:50]:
        data = instance.data
        assert (len(data["topics"]), len(data["catalogue"]), len(data["tastes"])) == size
        assert {"loves", "likes"} <= set(data["tastes"][0])
        assert all(title in instance.prompt for title in data["catalogue"])
        hint = f"Liked before: {data['topics'][data['tastes'][0].index('loves')]}."
        assert (hint in instance.prompt) == (task.level == 1)


def test_levels_are_checked():
    with pytest.raises(ValueError, match="must be 1 to 3, got 4"):
        RecommendationTask(4)
