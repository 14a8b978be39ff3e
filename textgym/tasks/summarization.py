"""`SummarizationTask`: say in few words what a report comes to."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping

import numpy as np

from textgym.episode import Instance
from textgym.tasks.base import TokenCounter, check_level
from textgym.tasks.facts_world import (
    WORDS,
    Fact,
    Grammar,
    classes,
    facts_of,
    faithfulness,
    joined,
)
from textgym.tasks.story import split_sentences
from textgym.tasks.story_world import NAMES, PRONOUNS, expand, shapes_of
from textgym.tasks.target_task import (
    TargetTask,
    dice_of,
    longest,
    with_articles,
    without_articles,
)

_ASK = "\nSummary:"
_WORDS_PER_FACT = 3
_SLOT = re.compile(r"\{(\w+)\}")

# What is told in a report, in order, and how. The first sentence names the hero, later ones mean
# the hero by pronouns and somebody else by `{name}`.
_PARTS: dict[str, tuple[str, ...]] = {
    "start": (
        "On {day} {name} the {kind} (went|walked|ran|hurried) to the {place}.",
        "{name} the {kind} (went|walked|ran) to the {place} on {day}.",
        "It was on {day} that {name} the {kind} (went|walked|ran) to the {place}.",
    ),
    "company": ("{name} came along.", "With {her} was {name}.", "{name} was there too."),
    "deed": (
        "There {she} {deed} a {adjective} {noun}.",
        "Then {she} {deed} a {adjective} {noun}.",
        "By the gate {she} {deed} a {adjective} {noun}.",
    ),
    "end": ("In the end {she} was {feeling}.", "At last {she} felt {feeling}."),
    # What follows is beside the point.
    "weather": tuple(shape.text for shape in shapes_of("")),
    "past": (
        "Last spring {she} {deed} a {adjective} {noun}.",
        "Long ago {she} lived near the {place}.",
    ),
    "absent": ("{name} was not there.", "{name} the {kind} was not there."),
}
_SHAPES = {part: [s for p in patterns for s in expand(p)] for part, patterns in _PARTS.items()}
_PART_OF = {classes(shape[:-1])[0]: part for part, shapes in _SHAPES.items() for shape in shapes}
_KEY_PARTS = ("start", "company", "deed", "end")
# Of every level: what the report tells, besides how it starts.
_LEVELS = (
    ("deed", "weather", "weather"),
    ("deed", "end", "weather", "past"),
    ("company", "deed", "end", "weather", "weather", "past", "absent"),
)


def _clauses() -> list[str]:
    parts = (" at the {place}", " on {day}", " with {name}")
    orders = ["".join(order) for n in range(4) for order in itertools.permutations(parts, n)]
    return [
        *("{deed} a {adjective} {noun}" + order for order in orders),
        *("(went|walked|ran) to the {place}" + o for o in orders if parts[0] not in o),
        *("was at the {place}" + o for o in orders if parts[0] not in o),
        "(was|felt) {feeling}",
    ]


EVENTS = Grammar(
    openings=(
        *("{name}", "{She}", "On {day} {name}", "On {day} {she}"),
        *("At the {place} {name}", "At the {place} {she}"),
    ),
    clauses=_clauses(),
    attributes={"name": "company"},
)
_EVENT_CLAUSES = EVENTS.saying(EVENTS.clauses)


class SummarizationTask(TargetTask):
    """Say in few words what a report comes to, and leave out what is beside the point.

    ## Description
    The report tells who did what to which thing, on what day and where, from level 2 on also how it
    ended, and with whom. In between it speaks of the weather, of the past and of absent characters.

    > On Monday Mia the fox went to the mill. The sun was low. There she found a red kite.
    > Birds sang in the trees.
    > Summary:

    The agent writes sentences of the summary grammar, such as " On Monday Mia found a red kite at
    the mill." No sentence of a report is one of them, so copying earns nothing.

    ## Rewards
    On the last step, `coverage * precision * brevity`. Coverage is the fraction of the key facts
    (day, place, deed, thing, end, company) that the text says of the right character. Precision is
    the number of those, over that number plus faults: other facts, sentences that are not
    grammatical or say nothing new, and one more if the agent did not end the text itself. Brevity
    is 1 up to three words a key fact, and that limit over the number of words above it.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level` (int, default 1): 1 to 3; reports of 4, 5 and 8 sentences with 4, 5 and 6 key facts.

    ## Version History
    - v0: first version.

    Example:
        >>> task = SummarizationTask()
        >>> instance = task.from_prompt(
        ...     "On Monday Mia the fox went to the mill. The sun was low. "
        ...     "There she found a red kite.\\nSummary:"
        ... )
        >>> task.score_text(instance, " On Monday Mia found a red kite at the mill.")
        1.0
        >>> task.score_text(instance, " Mia found a red kite."), task.score_text(instance, " Mia.")
        (0.5, 0.0)
    """

    levels = len(_LEVELS)
    metric_names = ("rouge1", "rouge2", "rouge_l")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self.max_new_tokens = (32, 40, 48)[self.level - 1]

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw what happened, every word uniformly, and where the asides come in."""
        dice = dice_of(rng)
        hero, *others = dice.sample(NAMES, 3)
        parts = _LEVELS[self.level - 1]
        order = [part for part in parts if part in _KEY_PARTS]
        for aside in (part for part in parts if part not in _KEY_PARTS):
            order.insert(dice.randint(0, len(order)), aside)
        sentences: dict[str, None] = {}
        for part in ("start", *order):
            name = {"start": hero, "absent": others[0]}.get(part, others[1])
            sentence = _draw_sentence(part, hero, name, dice)
            while sentence in sentences:  # no weather is told twice
                sentence = _draw_sentence(part, hero, name, dice)
            sentences[sentence] = None
        return self.from_prompt(" ".join(sentences) + _ASK)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        hero = ""
        facts: dict[str, str] = {}
        sentences = split_sentences(prompt.removesuffix(_ASK)) if prompt.endswith(_ASK) else []
        for sentence in sentences or [""]:
            part, words = _read_sentence(sentence)
            hero = hero or words.get("name", "")
            told = _key_facts(part, words)
            follows = bool(facts) and part != "start" and not facts.keys() & told
            follows = follows and told.get("company") != hero
            follows = follows and all(_pronouns(hero)[s] == words[s] for s in words if s in _HERS)
            if not part or not (follows or (part == "start" and not facts)):
                raise ValueError(
                    f"no sentence of a report: {sentence[:200]!r}. Expected one such as 'On Monday "
                    "Mia the fox went to the mill.' and then others about her, each kind of fact "
                    f"once, and {_ASK!r} at the end."
                )
            facts |= told
        if "deed" not in facts:
            raise ValueError(f"report: nothing is done in {prompt[:200]!r}. Tell of a deed.")
        target = " " + _summarize(hero, facts, dice_of(prompt))
        key_facts = tuple(sorted(facts_of(hero, facts)))
        return Instance(prompt, target=target, data={"facts": key_facts})

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """`coverage * precision * brevity` of `completion`."""
        truth: set[Fact] = set(self.known(instance).data["facts"])
        coverage, precision = faithfulness(EVENTS, completion, truth, ended=ended)
        if not coverage:
            return 0.0
        limit = _WORDS_PER_FACT * len(truth)
        return coverage * precision * min(1.0, limit / len(completion.split()))

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt."""
        parts = ("start", *_LEVELS[self.level - 1])
        # One more a sentence for tokenizers that merge over a space.
        sentences = [
            longest([f" {s}" for s in _SHAPES[part]], WORDS, count_tokens) + 1 for part in parts
        ]
        return sum(sentences) + count_tokens(_ASK)


_HERS = ("She", "she", "her")


def _pronouns(hero: str) -> dict[str, str]:
    she, her = PRONOUNS[hero]
    return {"She": she.capitalize(), "she": she, "her": her}


def _draw_sentence(part: str, hero: str, name: str, dice: random.Random) -> str:
    shape = dice.choice(_SHAPES[part])
    own = {**_pronouns(hero), "name": name}
    words = {slot: own.get(slot) or dice.choice(WORDS[slot]) for slot in _SLOT.findall(shape)}
    return with_articles(shape.format_map(words))


def _read_sentence(sentence: str) -> tuple[str, dict[str, str]]:
    """What part of a report `sentence` is, "" where it is none, and its words."""
    plain = without_articles(sentence)
    if plain is None or not plain.endswith("."):
        return "", {}
    key, words = classes(plain[:-1])
    return _PART_OF.get(key, ""), words


def _key_facts(part: str, words: Mapping[str, str]) -> dict[str, str]:
    """The key facts in a sentence that is `part` of a report."""
    match part:
        case "start":
            return {"day": words["day"], "place": words["place"]}
        case "company":
            return {"company": words["name"]}
        case "deed":
            return {"deed": words["deed"], "thing": f"{words['adjective']} {words['noun']}"}
        case "end":
            return {"feeling": words["feeling"]}
    return {}


def _summarize(hero: str, facts: Mapping[str, str], dice: random.Random) -> str:
    """A summary within the limit: in one sentence, or one a clause."""
    rest = [a for a in ("day", "company") if a in facts]
    # Either the place is where it was done, or the hero goes there first.
    groups = [["deed", "thing", "place", *rest]]
    if dice.random() < 0.5:
        groups = [["place", *rest], ["deed", "thing"]]
    subject = hero
    fronted = dice.choice(("day", "place" if len(groups) == 1 else "day", None))
    if fronted:
        groups[0].remove(fronted)
        subject = f"{'On' if fronted == 'day' else 'At the'} {facts[fronted]} {hero}"
    if "feeling" in facts:
        groups.append(["feeling"])
    words = {**facts, "name": facts.get("company", "")}
    words["adjective"], words["noun"] = facts["thing"].split(" ")
    clauses = [dice.choice(_EVENT_CLAUSES[frozenset(group)]).format_map(words) for group in groups]
    if dice.random() < 0.7:
        return with_articles(f"{subject} {joined(clauses)}.")
    she = _pronouns(hero)["She"]
    sentences = [f"{subject} {clauses[0]}.", *(f"{she} {clause}." for clause in clauses[1:])]
    return with_articles(" ".join(sentences))
