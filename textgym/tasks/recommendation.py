"""`RecommendationTask`: recommend books to a reader whose tastes show in how they react."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from textgym.episode import Episode, Instance, Turn
from textgym.tasks.base import Reply, Task, TokenCounter, check_level
from textgym.tasks.recommendation_world import (
    ADJECTIVES,
    REACTIONS,
    TIRED,
    TOPICS,
    Reaction,
    best_plan,
    react,
)

ASK = "Recommend {rounds} books to the reader, one title a turn, none twice.{note}\n"
SHELF = "- {topic}: {titles}\n"
HINT = "Liked before: {topic}.\n"
DRIFT_NOTE = " Tastes may change."
AGENT, READER = "You:", "\nReader: "

_TOPIC_NAMES = tuple(TOPICS)


class Level(NamedTuple):
    """How hard a level is: `topics` with `books` each, and `rounds` to recommend them in."""

    topics: int
    books: int
    rounds: int
    hint: bool
    drift: bool
    max_new_tokens: int


LEVELS = (
    Level(topics=3, books=2, rounds=3, hint=True, drift=False, max_new_tokens=30),
    Level(topics=4, books=2, rounds=4, hint=False, drift=False, max_new_tokens=40),
    Level(topics=4, books=3, rounds=6, hint=False, drift=True, max_new_tokens=60),
)


class RecommendationTask(Task):
    """Recommend books to a reader whose hidden tastes show in how they react.

    ## Description
    The prompt is a catalogue, a few titles under each topic:

    > Recommend 3 books to the reader, one title a turn, none twice.
    > - sea: silver boat, old shell
    > - food: red cake, tiny soup
    > - music: blue drum, round bell
    > Liked before: sea.
    > You:

    In each round the agent writes one title, and sees what the reader does: clicks, ignores it or
    complains, each in several words. The reader loves one topic, likes another and takes no
    interest in the rest, which they ignore or complain of. They tire of a topic: the second book
    on it is worth three quarters, and the third a half.

    ## Rewards
    On the last step, the engagement of the session over the best attainable by one who knows the
    tastes (computed exactly), in [0, 1]. A click is worth 1 on a loved topic and 0.25 on a liked
    one, times its freshness. A title recommended before, a topic of no interest and any text that
    is not exactly one title of the catalogue (in any case, with or without a full stop) are worth
    nothing, and so is a turn that the budget cuts.

    `metrics` gives the shares of the rounds with a `clicks`, and with `complaints`.

    ## Episode End
    After the last round, or when the agent has spent `max_new_tokens`.

    ## Arguments
    - `level` (1 to 3): 6 titles on 3 topics, 3 rounds, and the loved topic is told; 8 titles on 4
      topics, 4 rounds, and nothing is told; 12 titles on 4 topics, 6 rounds, nothing is told, and
      at some point the reader comes to love a topic that they ignored, and to ignore the one they
      loved.

    ## Version History
    - v0: first version.

    Example:
        >>> task = RecommendationTask()
        >>> instance = task.sample(np.random.default_rng(0))
        >>> turns = [Turn("agent", task.solve(instance))]
        >>> task.reply(instance, turns).text.startswith("\\nReader: clicks")
        True
    """

    levels: ClassVar[int] = len(LEVELS)
    metric_names = ("clicks", "complaints")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._size = LEVELS[self.level - 1]
        self.max_turns = self._size.rounds
        self.max_new_tokens = self._size.max_new_tokens

    # ------------------------------------------------------------------ what is asked
    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: topics, titles, and a taste for each topic."""
        size = self._size
        topics = [_TOPIC_NAMES[i] for i in rng.permutation(len(TOPICS))[: size.topics]]
        adjectives = iter(rng.integers(len(ADJECTIVES), size=size.topics * size.books).tolist())
        catalogue: dict[str, int] = {}
        for i, topic in enumerate(topics):
            nouns = rng.permutation(len(TOPICS[topic]))[: size.books].tolist()
            for noun in nouns:
                catalogue[f"{ADJECTIVES[next(adjectives)]} {TOPICS[topic][noun]}"] = i
        tastes = _draw_tastes(size, rng)
        liked = topics[tastes[0].index("loves")] if size.hint else None
        data = {"topics": tuple(topics), "catalogue": catalogue, "tastes": tastes}
        return Instance(_prompt(size, topics, catalogue, liked), data=data)

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: one in which every word is the longest."""

        def longest(words: Sequence[str]) -> str:
            return max(words, key=lambda word: count_tokens(f" {word}"))

        size, nouns = self._size, [noun for words in TOPICS.values() for noun in words]
        title, topic = f"{longest(ADJECTIVES)} {longest(nouns)}", longest(_TOPIC_NAMES)
        shelves = SHELF.format(topic=topic, titles=", ".join([title] * size.books)) * size.topics
        hint = HINT.format(topic=topic) if size.hint else ""
        return count_tokens(_ask(size) + shelves + hint + AGENT) + 1

    # ------------------------------------------------------------------ who answers
    def reply(self, instance: Instance, turns: Sequence[Turn]) -> Reply:
        """What the reader does about the latest title; the last round ends the episode."""
        said = [turn.text for turn in turns if turn.role == "agent"]
        reaction = _reactions(instance, said)[-1]
        # Varied from round to round, the same for the same prompt.
        draw = zlib.crc32(f"{instance.prompt}{len(said)}".encode())
        text = READER + _words(reaction, instance.data["topics"], draw)
        last = len(said) >= len(instance.data["tastes"])
        return Reply(text if last else f"{text}\n{AGENT}", terminated=last)

    def reply_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of all the reader's reactions together."""
        texts = [
            READER + words.format(topic=topic) + tired.format(topic=topic) + f"\n{AGENT}"
            for kind, choices in REACTIONS.items()
            for words in choices
            for tired in (TIRED if kind in ("loves", "likes") else ("",))
            for topic in TOPICS
        ]
        return self._size.rounds * max(map(count_tokens, texts))

    # ------------------------------------------------------------------ how it is scored
    def score(self, episode: Episode) -> float:
        """Engagement over the best attainable; 0.0 for any text that names no title."""
        data = episode.instance.data
        total = sum(reaction.engagement for reaction in _heard(episode))
        if not total:
            return 0.0
        books = len(data["catalogue"]) // len(data["topics"])
        return total / best_plan(data["tastes"], books)[0]

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """The shares of the rounds in which the reader clicked, and complained."""
        rounds, reactions = len(episode.instance.data["tastes"]), _heard(episode)
        return {
            "clicks": sum(reaction.clicked for reaction in reactions) / rounds,
            "complaints": sum(reaction.complained for reaction in reactions) / rounds,
        }

    # ------------------------------------------------------------------ the oracle
    def solve(self, instance: Instance) -> str:
        """The first title of a best session."""
        return self.solve_turn(instance, ())

    def solve_turn(self, instance: Instance, turns: Sequence[Turn]) -> str:
        """The next title of a best session, by one who knows the tastes."""
        data = instance.data
        books = len(data["catalogue"]) // len(data["topics"])
        _, plan = best_plan(data["tastes"], books)
        played = sum(turn.role == "agent" for turn in turns)
        topic = plan[played]
        titles = [title for title, i in data["catalogue"].items() if i == topic]
        # Starting with any of them, the same for the same prompt.
        start = zlib.crc32(instance.prompt.encode()) + plan[:played].count(topic)
        return f" {titles[start % books]}"


def _ask(size: Level) -> str:
    return ASK.format(rounds=size.rounds, note=DRIFT_NOTE if size.drift else "")


def _prompt(
    size: Level, topics: Sequence[str], catalogue: Mapping[str, int], liked: str | None
) -> str:
    shelves = [
        SHELF.format(topic=topic, titles=", ".join(t for t, j in catalogue.items() if j == i))
        for i, topic in enumerate(topics)
    ]
    hint = HINT.format(topic=liked) if liked else ""
    return _ask(size) + "".join(shelves) + hint + AGENT


def _draw_tastes(size: Level, rng: np.random.Generator) -> tuple[tuple[str, ...], ...]:
    """For each round, the reader's taste for each topic."""
    *order, coin, change = rng.random(size.topics + 2).tolist()
    kinds = ["loves", "likes", "ignores", "dislikes"][: size.topics]
    if size.topics == 3 and coin < 0.5:
        kinds[2] = "dislikes"
    ranks = sorted(range(size.topics), key=order.__getitem__)
    before = tuple(kinds[rank] for rank in ranks)
    if not size.drift:
        return (before,) * size.rounds
    swap = {"loves": "ignores", "ignores": "loves"}
    after = tuple(swap.get(taste, taste) for taste in before)
    # Somewhere in the middle third: there is time to notice, before and after.
    first = size.rounds // 3 + int(change * (size.rounds // 3 + 1))
    return (before,) * first + (after,) * (size.rounds - first)


def _words(reaction: Reaction, topics: Sequence[str], draw: int) -> str:
    choices = REACTIONS[reaction.kind]
    words = choices[draw % len(choices)]
    if reaction.tired:
        words += TIRED[draw // len(choices) % len(TIRED)]
    return words.format(topic=topics[reaction.topic])


def _reactions(instance: Instance, said: Sequence[str]) -> list[Reaction]:
    data: Mapping[str, Any] = instance.data
    return react(data["catalogue"], data["tastes"], said)


def _heard(episode: Episode) -> list[Reaction]:
    """The reactions of `episode`: a turn that the budget cut was not replied to."""
    said = [
        turn.text
        for turn, after in itertools.pairwise(episode.turns)
        if turn.role == "agent" and after.role == "task"
    ]
    return _reactions(episode.instance, said)
