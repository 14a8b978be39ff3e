"""The books and their reader: titles by topic, tastes, and the best that can be done for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

ADJECTIVES = (
    *("red", "blue", "green", "golden", "silver", "tiny"),
    *("shiny", "wooden", "round", "old", "little", "lost"),
)
TOPICS: dict[str, tuple[str, ...]] = {
    "sea": ("boat", "shell", "beach", "wave"),
    "music": ("drum", "flute", "bell", "song"),
    "food": ("cake", "soup", "bread", "apple"),
    "space": ("moon", "star", "rocket", "sun"),
    "animals": ("fox", "owl", "bear", "goat"),
    "clothes": ("hat", "scarf", "button", "ribbon"),
    "toys": ("kite", "ball", "doll", "train"),
    "kings": ("castle", "tower", "crown", "queen"),
}

# What the reader thinks of a topic, and what a click on a fresh one is worth, in quarters.
TASTES = ("dislikes", "ignores", "likes", "loves")
WORTH = {"dislikes": 0, "ignores": 0, "likes": 1, "loves": 4}
# What is left of that, in quarters, for the first book on a topic, the second, the third.
FRESHNESS = (4, 3, 2)

# What the reader does; `{topic}` is the topic of the book.
REACTIONS = {
    "loves": ("clicks at once. Lovely!", "clicks and wants more like it.", "clicks. So good!"),
    "likes": ("clicks. Not bad.", "clicks and reads a little.", "clicks. It will do."),
    "ignores": ("ignores it.", "does not look.", "ignores that one."),
    "dislikes": ("complains. Not {topic}!", "complains. No {topic}, please."),
    "seen": ("complains. I have seen that.", "complains. That one again?"),
    "unknown": ("finds no such title.",),
}
# Said after a click on a book whose topic is not fresh.
TIRED = (" But enough of {topic} soon.", " Now a change?")

Tastes = tuple[tuple[str, ...], ...]


class Reaction(NamedTuple):
    """What came of one recommendation.

    Args:
        kind: a key of `REACTIONS`.
        topic: the position of the book's topic; -1 for a text that is no title.
        engagement: 0 to 16, in sixteenths.
        tired: whether the topic was no longer fresh.
    """

    kind: str
    topic: int = -1
    engagement: int = 0
    tired: bool = False

    @property
    def clicked(self) -> bool:
        """Whether the reader clicked."""
        return self.engagement > 0

    @property
    def complained(self) -> bool:
        """Whether the reader complained."""
        return self.kind in ("dislikes", "seen")


def react(
    catalogue: Mapping[str, int], tastes: Tastes, recommended: Sequence[str]
) -> list[Reaction]:
    """The reader's reaction to each of `recommended`, in order.

    Args:
        catalogue: the position of its topic for each title.
        tastes: for each round, one of `TASTES` for each topic.
        recommended: what the agent wrote, at most one text a round: any text at all.

    >>> react({"red boat": 0}, (("loves",),) * 2, [" Red boat.", "red boat"])[1].kind
    'seen'
    """
    reactions: list[Reaction] = []
    seen: set[str] = set()
    times = [0] * len(tastes[0])
    for now, text in zip(tastes, recommended, strict=False):
        title = title_of(text)
        topic = catalogue.get(title)
        if topic is None:
            reactions.append(Reaction("unknown"))
        elif title in seen:
            reactions.append(Reaction("seen", topic))
        else:
            worth = WORTH[now[topic]] * FRESHNESS[times[topic]]
            tired = worth > 0 and times[topic] > 0
            reactions.append(Reaction(now[topic], topic, worth, tired))
            seen.add(title)
            times[topic] += 1
    return reactions


def title_of(text: str) -> str:
    """The title that `text` names, if it names one: in any case, with or without a full stop.

    >>> title_of(" Red boat. ")
    'red boat'
    """
    # No title is longer; what is need not be read.
    return text.strip().removesuffix(".").lower() if len(text) < 100 else ""


@lru_cache(maxsize=1024)  # few ways to have tastes, many instances
def best_plan(tastes: Tastes, books: int) -> tuple[int, tuple[int, ...]]:
    """The most engagement attainable by one who knows the tastes, and a way to get it.

    By dynamic programming over how many books of each topic have been recommended; books on the
    same topic are worth the same.

    Args:
        tastes: for each round, one of `TASTES` for each topic.
        books: how many there are on each topic.

    Returns:
        The engagement in sixteenths, and the topic of each round. Of equally good plans, one that
        gets what it can early on.

    >>> best_plan((("ignores", "loves", "likes"),) * 3, books=2)
    (32, (1, 1, 2))
    """

    @cache
    def best(times: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        if sum(times) == len(tastes):
            return 0, 0, ()
        now = tastes[sum(times)]
        plans = []
        for topic, n in enumerate(times):
            if n < books:
                gain = WORTH[now[topic]] * FRESHNESS[n]
                later, _, plan = best((*times[:topic], n + 1, *times[topic + 1 :]))
                plans.append((gain + later, gain, (topic, *plan)))
        return max(plans)

    total, _, plan = best((0,) * len(tastes[0]))
    return total, plan
