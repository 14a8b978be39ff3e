"""`ArithmeticTask`: work out a little story of numbers, or an expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from textgym.episode import Instance
from textgym.tasks import expression
from textgym.tasks.base import TextTask, TokenCounter, check_level
from textgym.tasks.bounds import digit_tokens, most_tokens
from textgym.tasks.story_world import ADJECTIVES, NAMES, NOUNS, PLACES, PRONOUNS

# (operator, story): `a` and `b` are the numbers that it joins.
STORIES = (
    ("+", "{name} has {a} {adjective} {things}. {friend} gives {her} {b} more. How many now?"),
    ("+", "{name} finds {a} {adjective} {things} in the {place}, then {b} more. How many now?"),
    ("+", "In the {place} are {a} {adjective} {things}. {name} brings {b} more. How many now?"),
    ("-", "{name} has {a} {adjective} {things} and gives {b} to {friend}. How many are left?"),
    ("-", "{name} had {a} {adjective} {things} and lost {b} in the {place}. How many are left?"),
    ("-", "In the {place} were {a} {adjective} {things}. {name} took {b}. How many are left?"),
)
SLOTS = {
    "name": NAMES,
    "friend": NAMES,
    "adjective": ADJECTIVES,
    # All whose plural is spelt with an s.
    "things": tuple(noun + "s" for noun in NOUNS if noun != "scarf"),
    "place": PLACES,
    "her": tuple(sorted({objective for _, objective in PRONOUNS.values()})),
}
# What an answer with some of its digits right is worth at most.
PART = 0.3

_PATTERNS = tuple(
    (
        operator,
        re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[A-Za-z0-9]+)", re.escape(story))),
    )
    for operator, story in STORIES
)
_ANSWER = re.compile(r"(-?)(0|[1-9][0-9]*)\.?")
_MAX_ANSWER = 50


@dataclass(frozen=True)
class _Level:
    """How one level draws: stories of two numbers, or expressions of `operations` operators."""

    numbers: tuple[int, int]
    operations: int = 1
    story: bool = False
    bracketed: bool = False
    negative: bool = False
    largest: int = 999


_LEVELS = (
    _Level(numbers=(1, 9), story=True),
    _Level(numbers=(10, 99), story=True),
    _Level(numbers=(1, 20), operations=2),
    _Level(numbers=(1, 20), operations=3, bracketed=True, negative=True),
    _Level(numbers=(1, 99), operations=4, bracketed=True, negative=True, largest=99_999),
)


class ArithmeticTask(TextTask):
    """Work out a little story of numbers, or an expression.

    ## Description
    The first two levels tell a story of two numbers, one to be added to or taken from the other:

    > Mia has 7 red bells. Tom gives her 5 more. How many now?

    The others ask for the value of an expression, ``7 * 8 - 15 =``. The agent writes the number,
    in digits, and ends the text.

    | level | asks |
    |---|---|
    | 1 | a story, one-digit numbers |
    | 2 | a story, two-digit numbers |
    | 3 | two operations out of `+ - *`, numbers to 20, answers from 0 to 999 |
    | 4 | three operations, brackets, negative numbers and answers |
    | 5 | four operations, numbers to 99, answers to 99,999 |

    ## Rewards
    On the last step: 1.0 for the number, if the agent ended the text itself. Any other number of
    the same sign and as many digits earns 0.3 times the fraction of its digits that are right,
    each in its place, and so does the right one if the text was not ended. What is not a number
    written in the usual way (a full stop may follow) earns nothing.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level`: 1 to 5, see above.

    ## Version History
    - v0: first version.

    Example:
        >>> task = ArithmeticTask(level=3)
        >>> instance = task.from_prompt("7 * 8 - 15 =")
        >>> task.solve(instance)
        ' 41'
        >>> [task.score_text(instance, answer) for answer in (" 41", " 47", " forty-one")]
        [1.0, 0.15, 0.0]
    """

    levels: ClassVar[int] = len(_LEVELS)
    max_new_tokens = 8

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._how = _LEVELS[self.level - 1]

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: every word and number of a story, or an expression, at random."""
        return self._story(rng) if self._how.story else self._expression(rng)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for: a story as told here, or an expression and ``=``.

        Raises:
            ValueError: where `prompt` is neither, or its answer is no whole number.
        """
        for operator, pattern in _PATTERNS:
            match = pattern.fullmatch(prompt)
            if match is not None:
                return Instance(prompt, _story_answer(prompt, operator, match.groupdict()))
        text = prompt.rstrip()
        found = expression.read(text[:-1]) if text.endswith("=") else None
        if found is not None and found.value.denominator == 1:
            return Instance(prompt, str(found.value))
        raise ValueError(
            f"not an arithmetic prompt: {prompt[:200]!r}. Expected one such as "
            f"{self.sample(np.random.default_rng(0)).prompt!r} or '7 * 8 - 15 ='."
        )

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion`; `ended` tells whether the agent ended the text itself."""
        target = instance.target or self.from_prompt(instance.prompt).target or ""
        answer = completion.strip()
        match = _ANSWER.fullmatch(answer) if len(answer) <= _MAX_ANSWER else None
        if match is None:
            return 0.0
        sign, digits = str(match[1]), str(match[2])
        wanted = target.removeprefix("-")
        if sign + wanted != target or len(digits) != len(wanted):
            return 0.0
        if digits == wanted and ended:
            return 1.0
        return PART * sum(a == b for a, b in zip(digits, wanted, strict=True)) / len(wanted)

    def solve(self, instance: Instance) -> str:
        """The number."""
        return f" {instance.target or self.from_prompt(instance.prompt).target}"

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: of its words, signs and digits one by one."""
        digits = len(str(self._how.numbers[1])) * digit_tokens(count_tokens)
        if self._how.story:
            empty = dict.fromkeys(SLOTS, "") | {"a": "", "b": ""}
            words = {
                slot: most_tokens(count_tokens, [" " + word for word in words])
                for slot, words in SLOTS.items()
            }
            stories = [
                count_tokens(story.format_map(empty))
                + sum(cost for slot, cost in words.items() if f"{{{slot}}}" in story)
                for _, story in STORIES
            ]
            return max(stories) + 2 * digits + 1
        # Each operation may bring a pair of brackets, and each number one with a minus sign.
        sign = most_tokens(count_tokens, [" +", " -", " *"])
        brackets = most_tokens(count_tokens, [" ("]) + most_tokens(count_tokens, [")"])
        space = most_tokens(count_tokens, [" "])
        one = digits + space + (brackets + sign) * self._how.negative
        each = sign + brackets * self._how.bracketed
        operations = self._how.operations
        return count_tokens(" =") + (operations + 1) * one + operations * each + 1

    def _story(self, rng: np.random.Generator) -> Instance:
        draws = iter(rng.random(8).tolist())
        operator, story = STORIES[int(next(draws) * len(STORIES))]
        low, high = self._how.numbers
        a, b = (low + int(next(draws) * (high + 1 - low)) for _ in range(2))
        words = {
            slot: options[int(next(draws) * len(options))]
            for slot, options in SLOTS.items()
            if slot != "her"
        }
        if words["friend"] == words["name"]:
            words["friend"] = NAMES[(NAMES.index(words["name"]) + 1) % len(NAMES)]
        if operator == "-" and a < b:
            a, b = b, a
        prompt = story.format(a=a, b=b, her=PRONOUNS[words["name"]][1], **words)
        return Instance(prompt, str(a + b if operator == "+" else a - b))

    def _expression(self, rng: np.random.Generator) -> Instance:
        how = self._how
        low, high = how.numbers
        while True:
            draws = iter(rng.random(4 * how.operations + 2).tolist())
            terms = []
            for _ in range(how.operations + 1):
                sign = -1 if how.negative and next(draws) < 0.15 else 1
                terms.append(expression.number(sign * (low + int(next(draws) * (high + 1 - low)))))
            while len(terms) > 1:
                i = int(next(draws) * (len(terms) - 1))
                operator = "+-*"[int(next(draws) * 3)]
                terms[i : i + 2] = [expression.join(terms[i], operator, terms[i + 1])]
            found = terms[0]
            smallest = -how.largest if how.negative else 0
            if smallest <= found.value <= how.largest and _has_group(found.text) == how.bracketed:
                return Instance(f"{found.text} =", str(found.value))


def _has_group(text: str) -> bool:
    """Whether brackets stand around more than a negative number."""
    return text.count("(") > text.count("(-")


def _story_answer(prompt: str, operator: str, words: dict[str, str]) -> str:
    for slot in SLOTS.keys() & words.keys():
        if words[slot] not in SLOTS[slot]:
            raise ValueError(
                f"arithmetic prompt: {words[slot]!r} is none of the words for {slot!r}. "
                f"Known: {', '.join(SLOTS[slot])}."
            )
    found = expression.read(f"{words['a']} {operator} {words['b']}")
    if found is None or found.value < 0:
        raise ValueError(
            f"arithmetic prompt: expected two numbers, the second no larger where it is taken "
            f"away, got {prompt!r}."
        )
    return str(found.value)
