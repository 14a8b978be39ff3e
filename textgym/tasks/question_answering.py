"""`QuestionAnsweringTask`: answer a question about a short text."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from textgym.episode import Instance
from textgym.metrics import token_f1
from textgym.tasks.base import TokenCounter, check_level
from textgym.tasks.facts_world import (
    ATTRIBUTES,
    FACTS,
    WORDS,
    Fact,
    classes,
    draw_value,
    slots_of,
    tell_fact,
)
from textgym.tasks.story import split_sentences
from textgym.tasks.story_world import NAMES
from textgym.tasks.target_task import (
    MAX_CHARACTERS,
    TargetTask,
    dice_of,
    longest,
    with_articles,
    without_articles,
)

_QUESTION, _ANSWER = "\nQuestion: ", "\nAnswer:"
# How each attribute is asked for; `{who}` is a name or words for somebody.
_ASK = {
    "kind": "What animal is {who}?",
    "home": "Where does {who} live?",
    "job": "What does {who} work as?",
    "food": "What does {who} like?",
    "thing": "What does {who} own?",
    "friend": "Who is the friend of {who}?",
    "feeling": "How does {who} feel?",
}
# How the one is asked for of whom something is known.
_ASK_WHO = {
    "kind": "Who is a {kind}?",
    "home": "Who lives near the {place}?",
    "job": "Who works as a {job}?",
    "food": "Who likes {food}?",
    "thing": "Who owns a {adjective} {noun}?",
    "feeling": "Who feels {feeling}?",
}
_FRIEND_OF = "the friend of "
# How the oracle says a value of each attribute ("" is none).
_SAY = {
    "kind": ("{}", "a {}", "It is a {}"),
    "home": ("near the {}", "by the {}", "the {}"),
    "job": ("{}", "a {}", "as a {}"),
    "food": ("{}", "It is {}"),
    "thing": ("a {}", "{}", "It is a {}"),
    "feeling": ("{}",),
    "friend": ("{}", "It is {}"),
    "name": ("{}", "It is {}"),
    "": ("{}", "It is {}"),
}
_LEADS = ("it is ", "as ", "near ", "by ", "a ", "an ", "the ")
NOT_SAID = "not said"
_NOT_SAID_SHARE = 0.1
# Of every level: sentences, characters, and how often the question takes 1, 2, 3 steps.
_SIZES = (
    (3, 2, (1.0, 0.0, 0.0)),
    (4, 3, (1.0, 0.0, 0.0)),
    (5, 3, (0.3, 0.7, 0.0)),
    (7, 4, (0.2, 0.4, 0.4)),
)


class QuestionAnsweringTask(TargetTask):
    """Answer a question about a short text in a word or two.

    ## Description
    The text tells facts about a few characters, one in a sentence; the question asks for one:

    > Mia lives near the mill. Tom has a home by the lake. He likes soup.
    > Question: Where does Tom live?
    > Answer:

    The agent writes the answer: " lake", " the lake", " Near the lake.", ... From level 2 on the
    question may be the other way round ("Who likes soup?"), and one in ten has no answer in the
    text: " not said". From level 3 on it may take two or three facts to answer: "Where does the
    friend of the baker live?"

    ## Rewards
    On the last step: 1 for the value asked for, whatever its case, with or without a full stop, an
    article or preposition before it, or "It is". A thing of two words ("red kite") that is right
    in part gets the F1 of its words. All else gets nothing. Half if the agent did not end the text
    itself. One and the same word given always is right in at most a tenth of the questions.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level` (int, default 1): 1 to 4; the text has 3, 4, 5 and 7 sentences.

    ## Version History
    - v0: first version.

    Example:
        >>> task = QuestionAnsweringTask()
        >>> instance = task.from_prompt(
        ...     "Mia lives near the mill. Tom has a red kite.\\n"
        ...     "Question: What does Tom own?\\nAnswer:"
        ... )
        >>> task.score_text(instance, " It is a red kite.")
        1.0
        >>> task.score_text(instance, " a red drum"), task.score_text(instance, " mill")
        (0.5, 0.0)
    """

    levels = len(_SIZES)
    metric_names = ("exact_match", "token_f1", "chrf")
    max_new_tokens = 16

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw a question, the facts that answer it, one to mix them up with, and others."""
        dice = dice_of(rng)
        size, characters, steps = _SIZES[self.level - 1]
        text = _Text(dice.sample(NAMES, characters), dice)
        question = text.question(dice.choices((1, 2, 3), steps)[0], harder=self.level > 1)
        while len(text.told) < size:
            text.add(dice.choice(text.names), dice.choice(ATTRIBUTES))
        return self.from_prompt(f"{text.tell()}{_QUESTION}{question}{_ANSWER}")

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        text, _, question = prompt.removesuffix(_ANSWER).partition(_QUESTION)
        facts: set[Fact] = set()
        last = None
        for sentence in split_sentences(text):
            found = FACTS.read(sentence, last)
            if found is None:
                raise ValueError(
                    f"question: {sentence[:200]!r} is no sentence of `facts_world`. Expected a "
                    "text such as 'Mia lives near the mill. She likes soup.'"
                )
            last = found[0]
            facts |= found[1]
        asked = _read_question(question, facts) if prompt.endswith(_ANSWER) else None
        if asked is None or len(asked[1]) > 1:
            raise ValueError(
                f"not a question with one answer: {question[:200]!r}. Expected a text, then "
                f"{_QUESTION + _ASK['home'].format(who='Mia') + _ANSWER!r}, or another of: "
                f"{' '.join((*_ASK.values(), *_ASK_WHO.values()))}"
            )
        attribute = asked[0] if asked[1] else ""
        (value,) = asked[1] or {NOT_SAID}
        shape = dice_of(prompt).choice(_SAY[attribute])
        target = " " + with_articles(shape.format(value) + ".")
        return Instance(prompt, target=target, data={"attribute": attribute, "value": value})

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """1.0 for the value asked for; the F1 of the words of a thing; 0.0 for all else."""
        if len(completion) > MAX_CHARACTERS:
            return 0.0
        data = self.known(instance).data
        answer = completion.strip().removesuffix(".").lower()
        for lead in _LEADS:
            answer = answer.removeprefix(lead)
        worth = 1.0 if ended else 0.5
        if answer == data["value"].lower():
            return worth
        if data["attribute"] == "thing" and classes(answer)[0] in ("{adjective} {noun}", "{noun}"):
            return worth * token_f1(answer, data["value"])
        return 0.0

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt."""
        size, _, steps = _SIZES[self.level - 1]
        sentences = [f" {{name}} {clause}." for clause in FACTS.clauses]
        who = ["{name}", "the {kind}", "the {job}"]
        if any(steps[1:]):
            who += [_FRIEND_OF + w for w in who]
        questions = [f" {ask.format(who=w)}" for ask in _ASK.values() for w in who]
        questions += [f" {ask}" for ask in _ASK_WHO.values()]
        ends = count_tokens(_QUESTION) + count_tokens(_ANSWER)
        # One more a part for tokenizers that merge over a space.
        text = (longest(sentences, WORDS, count_tokens) + 1) * size
        return text + longest(questions, WORDS, count_tokens) + 1 + ends


class _Text:
    """Facts drawn about some characters: no two have the same value of an attribute."""

    def __init__(self, names: Sequence[str], dice: random.Random) -> None:
        self.names = names
        self.told: list[Fact] = []
        self._dice = dice
        self._closed: set[tuple[str, str]] = set()
        self._taken = set(names)

    def add(self, name: str, attribute: str, value: str | None = None) -> str | None:
        """Tell `attribute` of `name`, drawing the value; None where nothing may be told of it."""
        if (name, attribute) in self._closed:
            return None
        if value is None:
            value = draw_value(attribute, name, self._dice, self._taken)
        self._taken.add(value)
        self._closed |= {(name, attribute), (value, attribute)}
        self.told.append((name, attribute, value))
        return value

    def question(self, steps: int, *, harder: bool) -> str:
        """Ask something that takes `steps` facts; tell those, and one to mix the last up with.

        Args:
            steps: 1 to 3.
            harder: whether the question may be turned round, or have no answer.
        """
        dice = self._dice
        name, other, friend = self.names[0], self.names[1], self.names[-1]
        who, whom = "", name
        through_friend = steps == 3 or (steps == 2 and dice.random() < 0.5)
        if through_friend:
            self.add(*dice.choice(((name, "friend", friend), (friend, "friend", name))))
            who, whom = _FRIEND_OF, friend
        known = dice.choice(("kind", "job")) if steps - through_friend > 1 else None
        who += whom if known is None else f"the {self.add(whom, known)}"
        asked = [a for a in ATTRIBUTES if steps == 1 or a not in (known, "friend")]
        attribute = dice.choice(asked)
        self.add(other, attribute)
        if harder and dice.random() < _NOT_SAID_SHARE:
            self._closed.add((name, attribute))
            if steps == 1:
                self.add(name, dice.choice([a for a in ATTRIBUTES if a != attribute]))
        else:
            value = self.add(name, attribute) or ""
            if harder and steps == 1 and attribute in _ASK_WHO and dice.random() < 0.4:
                words = slots_of({attribute: value})
                return with_articles(_ASK_WHO[attribute].format_map(words))
        return _ASK[attribute].format(who=who)

    def tell(self) -> str:
        """The text: the facts in any order, now and then about "she" or "he"."""
        facts, dice = self.told, self._dice
        dice.shuffle(facts)
        # Half the texts tell of one character after the other.
        if dice.random() < 0.5:
            facts = sorted(facts, key=lambda fact: fact[0])
        last = None
        sentences = []
        for name, attribute, value in facts:
            sentences.append(tell_fact(name, attribute, value, dice, known=name == last))
            last = name
        return " ".join(sentences)


def _read_question(question: str, facts: set[Fact]) -> tuple[str, set[str]] | None:
    """The attribute asked for ("name" for who) and its values; None where it is no question."""
    for attribute, ask in _ASK.items():
        start, _, end = ask.partition("{who}")
        if question.startswith(start) and question.endswith(end):
            who = _whom(question[len(start) : len(question) - len(end)], facts)
            if who is not None:
                return attribute, {v for name in who for v in _values(name, attribute, facts)}
    key, words = classes(without_articles(question.removesuffix("?")) or "")
    for attribute, ask in _ASK_WHO.items():
        if f"{key}?" == ask:
            value = " ".join(words.values())
            return "name", {fact[0] for fact in facts if fact[1:] == (attribute, value)}
    return None


def _whom(words: str, facts: set[Fact]) -> set[str] | None:
    """Those whom `words` mean: a name, "the fox", "the friend of ..."; None where not words so."""
    if words in NAMES:
        return {words}
    if words.startswith(_FRIEND_OF):
        friends = _whom(words.removeprefix(_FRIEND_OF), facts)
        if friends is None:
            return None
        return {v for name in friends for v in _values(name, "friend", facts)}
    known = words.removeprefix("the ")
    if known == words or known not in (*WORDS["kind"], *WORDS["job"]):
        return None
    return {name for name, attribute, value in facts if value == known}


def _values(name: str, attribute: str, facts: set[Fact]) -> set[str]:
    """The values of `attribute` that `name` has; a friendship has two sides."""
    found = {fact[2] for fact in facts if fact[:2] == (name, attribute)}
    if attribute == "friend":
        found |= {fact[0] for fact in facts if fact[1:] == (attribute, name)}
    return found
