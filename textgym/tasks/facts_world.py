"""The world of facts: who is what, lives where and likes what, and the sentences that say so.

A fact is a name, an attribute and a value. A sentence is an opening, which names its subject, and
one or more clauses about it. As in `story_world`, both are read by replacing the words of the
lexicon by their classes and looking the result up in a table; the values of the facts stand in the
slots. So the grammar is a few dozen short shapes, and says any number of facts in a sentence.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence

from textgym.tasks.story import split_sentences
from textgym.tasks.story_world import (
    ADJECTIVES,
    FEELINGS,
    KINDS,
    MOODS,
    NAMES,
    NOUNS,
    PLACES,
    PRONOUNS,
    expand,
)
from textgym.tasks.target_task import MAX_CHARACTERS, with_articles, without_articles

Fact = tuple[str, str, str]

JOBS = ("baker", "singer", "painter", "farmer", "sailor", "teacher", "guard", "cook")
FOODS = ("soup", "bread", "honey", "cheese", "cake", "fish", "rice", "jam")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# What is done with a thing: base form, present, past.
THING_VERBS = (
    ("find", "finds", "found"),
    ("hide", "hides", "hid"),
    ("paint", "paints", "painted"),
    ("drop", "drops", "dropped"),
    ("buy", "buys", "bought"),
    ("clean", "cleans", "cleaned"),
    ("lose", "loses", "lost"),
    ("carry", "carries", "carried"),
)
# The words of each class: what a slot of that name can hold.
WORDS: dict[str, Sequence[str]] = {
    "name": NAMES,
    "kind": KINDS,
    "place": PLACES,
    "job": JOBS,
    "food": FOODS,
    "adjective": ADJECTIVES,
    "noun": NOUNS,
    "feeling": (*FEELINGS, *MOODS),
    "day": DAYS,
    "deed": tuple(past for _, _, past in THING_VERBS),
    "She": ("She", "He"),
    "she": ("she", "he"),
    "her": ("her", "him"),
}
CLASS = {word: f"{{{slot}}}" for slot, words in WORDS.items() for word in words}

_SLOT = re.compile(r"\{(\w+)\}")


def classes(text: str) -> tuple[str, dict[str, str]]:
    """`text` with classes for the words of the lexicon, and the (last) word of each class.

    >>> classes("lives near the mill")
    ('lives near the {place}', {'place': 'mill'})
    """
    words = text.split(" ")
    found = {CLASS[word][1:-1]: word for word in words if word in CLASS}
    return " ".join([CLASS.get(word, word) for word in words]), found


class Grammar:
    """Sentences about one subject each: an opening, then clauses joined by commas and "and".

    Args:
        openings: what names the subject (``{name}``, or a pronoun where it is known).
        clauses: what is said of it.
        nominals: clauses that may also go on with "who" and another clause.
        wholes: openings that are sentences by themselves.
        attributes: slots whose attribute has another name.
    """

    def __init__(
        self,
        openings: Sequence[str],
        clauses: Sequence[str],
        nominals: Sequence[str] = (),
        wholes: Sequence[str] = (),
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.openings = _expanded(openings)
        self.nominals = _expanded(nominals)
        self.clauses = (*_expanded(clauses), *self.nominals)
        self.wholes = _expanded(wholes)
        self._attributes = dict(attributes or {})
        self._opening_set = frozenset(self.openings)
        self._clause_set = frozenset(self.clauses)
        self._nominal_set = frozenset(self.nominals)
        self._whole_set = frozenset(self.wholes)
        self._lengths = sorted({len(o.split(" ")) for o in self.openings}, reverse=True)

    def saying(self, shapes: Iterable[str]) -> dict[frozenset[str], list[str]]:
        """`shapes` by the attributes that they give, the subject's name aside."""
        by_attributes: dict[frozenset[str], list[str]] = {}
        for shape in shapes:
            slots = dict.fromkeys(_SLOT.findall(shape), "")
            by_attributes.setdefault(frozenset(self._values(slots)), []).append(shape)
        return by_attributes

    def read(self, sentence: str, last: str | None = None) -> tuple[str, set[Fact]] | None:
        """Whom `sentence` is about, and the facts in it; None where it is not grammatical.

        Args:
            sentence: with its full stop.
            last: whom the sentence before was about, for pronouns.

        >>> sorted(FACTS.read("Mia the fox lives near the mill and likes soup.")[1])
        [('Mia', 'food', 'soup'), ('Mia', 'home', 'mill'), ('Mia', 'kind', 'fox')]
        """
        plain = without_articles(sentence) if sentence.endswith(".") else None
        if plain is None:
            return None
        words = plain[:-1].split(" ")
        key, found = classes(plain[:-1])
        if key in self._whole_set:
            return found["name"], facts_of(found.pop("name"), self._values(found))
        kinds = [CLASS.get(word, word) for word in words]
        for length in self._lengths:
            if " ".join(kinds[:length]) in self._opening_set:
                break
        else:
            return None
        values = classes(" ".join(words[:length]))[1]
        subject = values.pop("name", last)
        for pronoun in (values.pop("She", None), values.pop("she", None)):
            if subject is None or pronoun not in (None, PRONOUNS[subject][0], _capital(subject)):
                return None
        facts = facts_of(subject, self._values(values)) if subject else set()
        clauses = self._split(" ".join(words[length:]))
        if not clauses or subject is None:
            return None
        for clause in clauses:
            key, values = classes(clause)
            if key not in self._clause_set:
                return None
            facts |= facts_of(subject, self._values(values))
        return subject, facts

    def _values(self, found: Mapping[str, str]) -> dict[str, str]:
        # A thing is told by two words, every other value by one.
        values = {self._attributes.get(k, k): v for k, v in found.items() if k != "adjective"}
        if "noun" in values:
            values["thing"] = f"{found['adjective']} {values.pop('noun')}"
        return values

    def _split(self, rest: str) -> list[str]:
        """The clauses of ``one``, ``one and two``, ``one, two and three``, ...; [] if not so."""
        head, joined, last = rest.rpartition(" and ")
        clauses = [*head.removesuffix(",").split(", "), last] if joined else [rest]
        nominal, who, clause = clauses[0].partition(" who ")
        if who:
            if classes(nominal)[0] not in self._nominal_set:
                return []
            clauses[:1] = [nominal, clause]
        return clauses


def facts_of(name: str, values: Mapping[str, str]) -> set[Fact]:
    """The facts about `name`; a friendship is the same fact from either side.

    >>> facts_of("Tom", {"friend": "Mia"}) == facts_of("Mia", {"friend": "Tom"})
    True
    """
    facts = set()
    for attribute, value in values.items():
        pair = (name, value) if attribute != "friend" else (min(name, value), max(name, value))
        facts.add((pair[0], attribute, pair[1]))
    return facts


def faithfulness(
    grammar: Grammar, text: str, truth: set[Fact], *, ended: bool = True
) -> tuple[float, float]:
    """How much of `truth` is said in `text`, and how much of what is said is true, in [0, 1].

    Coverage is the fraction of `truth` that is said. Precision is the number of true facts said,
    over that number plus faults: facts that are not true, sentences that are not grammatical or
    that say nothing new, and one for a text that was cut off (`ended` is False). A fact said twice
    counts once.

    >>> truth = facts_of("Mia", {"kind": "fox", "home": "mill"})
    >>> faithfulness(FACTS, " Mia is a fox. She likes soup.", truth)
    (0.5, 0.5)
    """
    if len(text) > MAX_CHARACTERS:
        return 0.0, 0.0
    said: set[Fact] = set()
    faults = 0 if ended else 1
    last = None
    for sentence in split_sentences(text):
        found = grammar.read(sentence, last)
        if found is None:
            faults += 1
            continue
        last, facts = found
        new = (facts & truth) - said
        faults += len(facts - truth) or not new
        said |= new
    if not said:
        return 0.0, 0.0
    return len(said) / len(truth), len(said) / (len(said) + faults)


def joined(clauses: Sequence[str]) -> str:
    """``one``, ``one and two``, ``one, two and three``, ...

    >>> joined(["sings", "runs", "sleeps"])
    'sings, runs and sleeps'
    """
    return " and ".join(part for part in (", ".join(clauses[:-1]), clauses[-1]) if part)


def _expanded(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(shape for pattern in patterns for shape in expand(pattern))


def _capital(name: str) -> str:
    return PRONOUNS[name][0].capitalize()


# What can be known of a character.
FACTS = Grammar(
    openings=("{name}", "{She}", "{name} the {kind}", "A ({kind}|{job}) called {name}"),
    clauses=(
        "lives (near|by) the {place}",
        "has a home near the {place}",
        "works as a {job}",
        "(likes|loves) {food}",
        "likes to eat {food}",
        "(has|owns) a {adjective} {noun}",
        "is a friend of {name}",
        "has a friend called {name}",
        "(is|feels) {feeling}",
    ),
    nominals=("is a {kind}", "is a {job}", "is a {feeling} ({kind}|{job})"),
    wholes=(
        "Near the {place} lives {name}",
        "Near the {place} lives {name} the {kind}",
        "Near the {place} lives a ({kind}|{job}) called {name}",
    ),
    attributes={"place": "home", "name": "friend"},
)
ATTRIBUTES = ("kind", "home", "job", "food", "thing", "friend", "feeling")
_SLOT_OF = {"home": "place", "friend": "name"}
_CLAUSES = FACTS.saying(FACTS.clauses)
_NOMINALS = FACTS.saying(FACTS.nominals)
_WHOLES = {frozenset(s) - {"friend"}: shapes for s, shapes in FACTS.saying(FACTS.wholes).items()}


def draw_value(attribute: str, name: str, dice: random.Random, taken: Iterable[str] = ()) -> str:
    """A value of `attribute` for `name`, none of `taken`; nobody is a friend of their own."""
    while True:
        if attribute == "thing":
            value = f"{dice.choice(ADJECTIVES)} {dice.choice(NOUNS)}"
        else:
            value = dice.choice(WORDS[_SLOT_OF.get(attribute, attribute)])
        if value != name and value not in taken:
            return value


def is_value(attribute: str, value: str) -> bool:
    """Whether `attribute` can have `value`.

    >>> is_value("thing", "red kite"), is_value("home", "fox")
    (True, False)
    """
    if attribute == "thing":
        return classes(value)[0] == "{adjective} {noun}"
    return value in WORDS[_SLOT_OF.get(attribute, attribute)]


def slots_of(values: Mapping[str, str]) -> dict[str, str]:
    """`values` as the words of a shape's slots."""
    words = {_SLOT_OF.get(k, k): v for k, v in values.items()}
    if "thing" in words:
        words["adjective"], words["noun"] = words.pop("thing").split(" ")
    return words


def tell_fact(name: str, attribute: str, value: str, dice: random.Random, *, known: bool) -> str:
    """A sentence of one fact; with a pronoun, now and then, where the subject is `known`."""
    clause = dice.choice(_CLAUSES[frozenset((attribute,))]).format_map(slots_of({attribute: value}))
    subject = _capital(name) if known and dice.random() < 0.5 else name
    return with_articles(f"{subject} {clause}.")


def tell(name: str, values: Mapping[str, str], dice: random.Random) -> str:
    """A text of all the facts in `values`, in an order and in sentences that `dice` chooses.

    >>> tell("Mia", {"kind": "fox", "home": "mill", "food": "soup"}, random.Random(5))
    'A fox called Mia has a home near the mill and likes to eat soup.'
    """
    rest = list(values)
    dice.shuffle(rest)
    sentences = []
    subject = name
    while rest:
        size = min(dice.randint(1, 3), len(rest))
        now, rest = rest[:size], rest[size:]
        sentences.append(_tell_sentence(subject, name, now, values, dice))
        subject = dice.choice((name, _capital(name), _capital(name)))
    return " ".join(sentences)


def _tell_sentence(
    subject: str, name: str, now: list[str], values: Mapping[str, str], dice: random.Random
) -> str:
    """One sentence of the facts `now`; `subject` is the name or a pronoun."""
    whole = _WHOLES.get(frozenset(now))
    if subject == name and whole and dice.random() < 0.3:
        chosen = slots_of({a: values[a] for a in now})
        return with_articles(dice.choice(whole).format_map({**chosen, "name": name}) + ".")
    if subject == name and len(now) > 1:
        for attribute in ("kind", "job"):
            if attribute in now and dice.random() < 0.5:
                now = [a for a in now if a != attribute]
                style = dice.random() < 0.5 and attribute == "kind"
                value = values[attribute]
                subject = f"{name} the {value}" if style else f"A {value} called {name}"
                break
    now = sorted(now, key=lambda a: frozenset((a,)) not in _NOMINALS)
    clauses = []
    for attribute in now:
        shape = dice.choice(_CLAUSES[frozenset((attribute,))])
        clauses.append(shape.format_map(slots_of({attribute: values[attribute]})))
    if len(clauses) > 1 and dice.random() < 0.5 and frozenset(now[:1]) in _NOMINALS:
        nominal = dice.choice(_NOMINALS[frozenset(now[:1])])
        opening = nominal.format_map(slots_of({now[0]: values[now[0]]}))
        clauses[:2] = [f"{opening} who {clauses[1]}"]
    return with_articles(f"{subject} {joined(clauses)}.")
