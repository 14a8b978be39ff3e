"""`DialogueTask`: find out what a user wants, and book it."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from textgym.episode import Episode, Instance, Turn
from textgym.tasks import dialogue_world as world
from textgym.tasks.base import Reply, Task, TokenCounter, check_level
from textgym.tasks.dialogue_world import OF_PLACE, WISHES, User

ASK = "Ask what is missing, two things a turn. {note}Then say: Booked: name at time for number.\n"
NOTE = "If no place fits, say: Nothing fits. "
PLACE = "{name}: {kind}, {area}, {price}\n"
OPENINGS = ("I want {}.", "Find me {}.", "Please book {}.", "We need {}.", "Can you book {}?")
USER, ASSISTANT = "User: ", "\nAssistant:"

# What the oracle asks with, for each wish: alone or first, and after another.
_FIRST = {
    "kind": ("What kind",),
    "area": ("What area", "Where"),
    "price": ("What price",),
    "time": ("What time", "When"),
    "people": ("How many people",),
}
_SECOND = {
    "kind": "what kind",
    "area": "what area",
    "price": "what price",
    "time": "what time",
    "people": "how many people",
}

Draw = Callable[[Sequence[Any]], Any]


class Level(NamedTuple):
    """How hard a level is.

    Args:
        places: in the catalogue.
        events: of which one may happen at a question.
        changes: whether minds may change.
        hard: whether answers may be indirect, and nothing fit at first.
    """

    places: int
    events: tuple[str | None, ...]
    changes: bool
    hard: bool
    max_turns: int
    max_new_tokens: int


LEVELS = (
    Level(3, (None,), False, False, max_turns=4, max_new_tokens=36),
    Level(4, (None, world.VOLUNTEER), True, False, max_turns=5, max_new_tokens=56),
    Level(5, (None, world.DEAF, world.OVERLOOK), True, True, max_turns=7, max_new_tokens=72),
)
# What each part of a booking is worth: the place, the time, the number of people.
TENTHS = (4, 3, 3)
TURN_COST = 0.1


class DialogueTask(Task):
    """Find out what a user wants by asking, and book it.

    ## Description
    The prompt is a small catalogue and a user's opening words, which leave some of their five
    wishes open: the kind, area and price of the place, the time, and how many people come.

    > Ask what is missing, two things a turn. Then say: Booked: name at time for number.
    > red boat: bar, north, cheap
    > old moon: bar, north, fancy
    > blue owl: cafe, south, fancy
    > User: I want a bar in the north for two.
    > Assistant: *What price and what time?*
    > User: Something fancy. At seven.
    > Assistant: *Booked: old moon at seven for two.*
    > User: Thank you!

    The user understands questions (*what kind*, *what area* or *where*, *what price*, *what time*
    or *when*, *how many people*; joined by *and* or commas; a few endings such as *would you
    like?*), one or two things a turn, and answers in several words. Anything else they do not
    follow. The simulated user may also tell more than was asked, change their mind, not hear,
    overlook a question, answer indirectly, or want what is not there: told *Nothing fits.*, they
    give up one wish.

    ## Rewards
    On the last step, in [0, 1]: the parts of the booking that are as wished (place 0.4, time 0.3,
    people 0.3; the place counts if kind, area and price do), where a part counts only if the user
    has told it; halved for every wish that they have not told; less a tenth of it for every turn
    more than the fewest that it takes to be told everything. 0 without a booking.

    `metrics` gives `success` (all as wished), whether anything was `booked`, and `extra_turns`.

    ## Episode End
    With a booking, whatever is booked; after `max_turns` (4, 5 or 7, by level); or when the agent
    has spent `max_new_tokens`.

    ## Arguments
    - `level` (1 to 3): three places, two wishes to ask for; four places, three wishes, and minds
      may change; five places, three or four wishes, and all of the above may happen.

    ## Version History
    - v0: first version.

    Example:
        >>> task = DialogueTask()
        >>> instance = task.sample(np.random.default_rng(0))
        >>> question = Turn("agent", task.solve(instance))
        >>> turns = [question, Turn("task", task.reply(instance, [question]).text)]
        >>> booking = Turn("agent", task.solve_turn(instance, turns))
        >>> task.reply(instance, [*turns, booking]).text
        '\\nUser: Thank you!'
    """

    levels: ClassVar[int] = len(LEVELS)
    metric_names = ("success", "booked", "extra_turns")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._size = LEVELS[self.level - 1]
        self.max_turns = self._size.max_turns
        self.max_new_tokens = self._size.max_new_tokens

    # ------------------------------------------------------------------ what is asked
    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: what the user wishes, what they tell at first, and the places."""
        # Enough as a rule; one by one from then on.
        numbers = itertools.chain(rng.random(64).tolist(), iter(rng.random, None))

        def draw(choices: Sequence[Any]) -> Any:
            return choices[int(next(numbers) * len(choices))]

        size = self._size
        wishes = {wish: draw(values) for wish, values in WISHES.items()}
        opening = _draw_opening(self.level, draw)
        change = relax = None
        if size.changes and draw((True, False)):
            wish = draw(opening)
            change = (wish, draw([v for v in WISHES[wish] if v != wishes[wish]]))
        final = wishes | dict([change] if change else [])
        unmatched = None
        if size.hard and draw((True, False)):
            unmatched = tuple(final[wish] for wish in OF_PLACE)
            wish = draw([w for w in OF_PLACE if not change or w != change[0]])
            relax = (wish, draw([v for v in WISHES[wish] if v != final[wish]]))
            final |= {relax[0]: relax[1]}
        data = {
            "wishes": wishes,
            "opening": opening,
            "change": change,
            "relax": relax,
            "event": draw(size.events),
            "deaf_at": draw((1, 2)),
            "indirect": size.hard,
            "places": _draw_places(size.places, wishes, final, opening, unmatched, draw),
            "draw": draw(range(1 << 20)),
        }
        return Instance(self._prompt(data, draw(OPENINGS)), data=data)

    def _prompt(self, data: Mapping[str, Any], opening: str) -> str:
        lines = [
            PLACE.format(name=name, kind=kind, area=area, price=price)
            for name, (kind, area, price) in data["places"].items()
        ]
        told = {wish: data["wishes"][wish] for wish in data["opening"]}
        return self._ask() + "".join(lines) + USER + opening.format(_request(told)) + ASSISTANT

    def _ask(self) -> str:
        return ASK.format(note=NOTE if self._size.hard else "")

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: its pieces at their longest, one by one."""
        count = _counter(count_tokens)
        of_wish = {
            wish: max(count(f" {value}") for value in values) for wish, values in WISHES.items()
        }
        name = max(map(count, world.ADJECTIVES)) + max(count(f" {noun}") for noun in world.NOUNS)
        line = name + count(":") + sum(of_wish[w] for w in OF_PLACE) + 2 * count(",") + count("\n")
        told = 3 if self.level == 1 else 2
        request = sum(sorted(of_wish.values())[-told:]) + count("a place in the at for")
        opening = max(count(USER + text.format("")) for text in OPENINGS)
        base = count_tokens("") + count(self._ask()) + count(ASSISTANT)
        return base + self._size.places * line + request + opening

    # ------------------------------------------------------------------ who answers
    def reply(self, instance: Instance, turns: Sequence[Turn]) -> Reply:
        """The user's answer; after a booking, their opinion of it, which ends the episode."""
        user, words = _listen(instance, turns)
        if user.booking is not None:
            return Reply(f"\n{USER}{words}", terminated=True)
        return Reply(f"\n{USER}{words}{ASSISTANT}")

    def reply_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of all replies: the longest sentences in each."""
        count = _counter(count_tokens)

        def longest(texts: Sequence[str]) -> int:
            return max(count(f" {text}") for text in texts)

        fragments, answers = [], []
        for wish, values in WISHES.items():
            fragments += [world.FRAGMENTS[wish].format(value) for value in values]
            texts = [text.format(v) for text in world.ANSWERS[wish] for v in values]
            if self._size.hard:
                texts += [text for v in values for text in world.INDIRECT[wish][v]]
            answers.append(longest(texts))
        others = longest((*world.NOT_HEARD, world.NOT_UNDERSTOOD, world.TOO_MANY, world.LOOK_AGAIN))
        usual = max(sum(sorted(answers)[-world.MAX_ASKED :]), others)
        once = 0
        if self._size.changes:
            once += longest([t.format(f) for t in world.CHANGED for f in fragments])
        if world.VOLUNTEER in self._size.events:
            once += longest([t.format(f) for t in world.VOLUNTEERED for f in fragments])
        each = count(f"\n{USER}") + usual + count(ASSISTANT)
        end = count(f"\n{USER}") + longest((world.PLEASED, world.DISPLEASED))
        return (self.max_turns - 1) * each + once + max(each, end)

    # ------------------------------------------------------------------ how it is scored
    def score(self, episode: Episode) -> float:
        """What was booked as wished, less for guesses and turns; 0.0 without a booking."""
        user = _judge(episode)
        if user.booking is None:
            return 0.0
        met = sum(tenths for tenths, met in zip(TENTHS, user.met(), strict=True) if met) / 10
        extra = max(0, user.turns - world.fewest_turns(episode.instance.data))
        return met * 0.5**user.pending * (1.0 - TURN_COST * extra)

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """Whether the booking is all that was wished, whether there is one, turns too many."""
        user = _judge(episode)
        extra = max(0, user.turns - world.fewest_turns(episode.instance.data))
        return {
            "success": float(not user.pending and all(user.met())),
            "booked": float(user.booking is not None),
            "extra_turns": float(extra),
        }

    # ------------------------------------------------------------------ the oracle
    def solve(self, instance: Instance) -> str:
        """The first question."""
        return self.solve_turn(instance, ())

    def solve_turn(self, instance: Instance, turns: Sequence[Turn]) -> str:
        """Ask for two wishes not told, else say that nothing fits, else book what was told."""
        user, _ = _listen(instance, turns)
        # Varied from instance to instance and turn to turn, the same for the same ones.
        wording = zlib.crc32(f"{instance.prompt}{user.turns}".encode())
        untold = user.untold
        if untold:
            start = wording % len(untold)
            first, *others = untold[start:] + untold[:start]
            question = _FIRST[first][wording // 8 % len(_FIRST[first])]
            return f" {question}{f' and {_SECOND[others[0]]}' if others else ''}?"
        if user.stuck:
            return f" {('Nothing fits', 'No place fits')[wording % 2]}."
        wished = tuple(user.wishes[wish] for wish in OF_PLACE)
        name = next(n for n, place in instance.data["places"].items() if place == wished)
        return f" Booked: {name} at {user.wishes['time']} for {user.wishes['people']}."


def _listen(instance: Instance, turns: Sequence[Turn]) -> tuple[User, str]:
    """The user after `turns`, and what they said last."""
    user, words = User(instance.data), ""
    for turn in turns:
        if turn.role == "agent" and user.booking is None:
            words = user.hear(turn.text)
    return user, words


def _judge(episode: Episode) -> User:
    """The user at the end; a turn that the budget cut was not replied to."""
    turns = episode.turns
    if turns and turns[-1].role == "agent":
        turns = turns[:-1]
    return _listen(episode.instance, turns)[0]


def _draw_opening(level: int, draw: Draw) -> tuple[str, ...]:
    """The wishes that the opening tells."""
    if level == 1:
        return ("kind", draw(("area", "price")), draw(("time", "people")))
    if level == 2:
        return ("kind", draw(tuple(WISHES)[1:]))
    first, second = draw(tuple(WISHES)), draw((None, *WISHES))
    return (first,) if second in (None, first) else (first, second)


def _draw_places(
    count: int,
    wishes: Mapping[str, str],
    final: Mapping[str, str],
    opening: Sequence[str],
    unmatched: tuple[str, ...] | None,
    draw: Draw,
) -> dict[str, tuple[str, ...]]:
    """The catalogue: one place as wished in the end, the others not, or only almost.

    Args:
        count: of places.
        wishes: at first; where minds change, some place is a trap that fits these.
        final: what exactly one place is like.
        opening: the wishes told at first; some other place fits as much of them as the right one.
        unmatched: what no place may be like.
        draw: one of the choices given to it.
    """
    target = tuple(final[wish] for wish in OF_PLACE)
    asked = [i for i, wish in enumerate(OF_PLACE) if wish not in opening] or [0, 1, 2]
    traps = [tuple(wishes[wish] for wish in OF_PLACE)]
    places = [target]
    while len(places) < count:
        if len(places) > 1 and traps:
            place = traps.pop()
        else:
            # Unlike the target in one thing: first in what must be asked for, then in any.
            i = draw((0, 1, 2) if len(places) > 1 else asked)
            place = (*target[:i], draw(WISHES[OF_PLACE[i]]), *target[i + 1 :])
        if place not in places and place != unmatched:
            places.append(place)
    places.sort(key=lambda _: draw(range(1 << 20)))
    names: dict[str, None] = {}
    while len(names) < count:
        names[f"{draw(world.ADJECTIVES)} {draw(world.NOUNS)}"] = None
    return dict(zip(names, places, strict=True))


def _request(told: Mapping[str, str]) -> str:
    """What the opening asks for.

    >>> _request({"price": "cheap", "area": "north", "people": "two"})
    'a cheap place in the north for two'
    """
    words = ["a", told.get("price", ""), told.get("kind", "place")]
    words += [world.FRAGMENTS[w].format(told[w]) for w in ("area", "time", "people") if w in told]
    return " ".join(filter(None, words))


def _counter(count_tokens: TokenCounter) -> TokenCounter:
    """Counts the tokens of a piece of text, special tokens left out."""
    empty = count_tokens("")
    return lambda text: count_tokens(text) - empty
