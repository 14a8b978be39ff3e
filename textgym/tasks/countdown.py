"""`CountdownTask`: make a target out of given numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from textgym.episode import Instance
from textgym.tasks import expression
from textgym.tasks.base import TextTask, TokenCounter, check_level
from textgym.tasks.bounds import digit_tokens, most_tokens
from textgym.tasks.expression import Term
from textgym.tasks.story_world import NAMES

PROMPTS = (
    "Help {name} make {target} from {numbers}:",
    "{name} needs {target} out of {numbers}:",
    "{name} has {numbers} and wants {target}:",
)
# What a fair expression is worth, and what it can earn besides by being close.
FAIR, CLOSE = 0.1, 0.2
MAX_NUMBERS = 6

_PATTERNS = tuple(
    re.compile(
        re.escape(prompt)
        .replace(r"\{name\}", "(?P<name>[A-Za-z]{1,20})")
        .replace(r"\{target\}", "(?P<target>[1-9][0-9]{0,3})")
        .replace(
            r"\{numbers\}",
            rf"(?P<numbers>[1-9][0-9]{{0,2}}(?:, [1-9][0-9]{{0,2}}){{1,{MAX_NUMBERS - 1}}})",
        )
    )
    for prompt in PROMPTS
)


@dataclass(frozen=True)
class _Level:
    """How one level draws: `small` numbers to `highest` and others out of `large`."""

    small: int
    highest: int
    large: tuple[int, ...]
    operators: str
    targets: tuple[int, int]
    max_new_tokens: int


_LEVELS = (
    _Level(2, 9, tuple(range(1, 21)), "+-*", (10, 99), 16),
    _Level(3, 9, tuple(range(1, 26)), "+-*/", (10, 99), 24),
    _Level(4, 10, tuple(range(1, 51)), "+-*/", (50, 499), 32),
    _Level(5, 10, (25, 50, 75, 100), "+-*/", (100, 999), 40),
)


class CountdownTask(TextTask):
    """Make a target out of given numbers.

    ## Description
    A prompt gives a target and a few numbers; there is always a way to make it:

    > Help Mia make 29 from 3, 8, 5:

    The agent writes an expression of numbers, ``+ - * /`` and brackets, such as ``3*8+5``, whose
    value is the target, and ends the text. Each number given may be used once or not at all.

    | level | numbers | operations needed | target |
    |---|---|---|---|
    | 1 | 3, one of them to 20 and the others to 9 | `+ - *` | 10 to 99 |
    | 2 | 4, to 25 | `+ - * /` | 10 to 99 |
    | 3 | 5, to 50 | `+ - * /` | 50 to 499 |
    | 4 | 6, one of them 25, 50, 75 or 100, the others to 10 | `+ - * /` | 100 to 999 |

    ## Rewards
    On the last step: 1.0 for an expression whose exact value is the target, if the agent ended
    the text itself. Any other *fair* expression, of two numbers or more, all given and none used
    too often, earns ``0.1 + 0.2 * target / (target + 10 * error)``, `error` being how far its value
    is off: half of the 0.2 at a tenth of the target. The right one earns 0.3 if the text was not
    ended. What is no fair expression earns nothing.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level`: 1 to 4, see above.

    ## Version History
    - v0: first version.

    Example:
        >>> task = CountdownTask()
        >>> instance = task.from_prompt("Help Mia make 29 from 3, 8, 5:")
        >>> task.solve(instance)
        ' 3*8+5'
        >>> answers = (" 3*8+5", " (3*8)+5", " 5+8*2", " 8+3", "29")
        >>> [round(task.score_text(instance, answer), 3) for answer in answers]
        [1.0, 1.0, 0.0, 0.128, 0.0]
    """

    levels: ClassVar[int] = len(_LEVELS)

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._how = _LEVELS[self.level - 1]
        self.max_new_tokens = self._how.max_new_tokens

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw numbers and a way to join most of them; what that makes is the target."""
        how = self._how
        count = how.small + 1
        while True:
            draws = iter(rng.random(5 * count + 3).tolist())
            numbers = [1 + int(next(draws) * how.highest) for _ in range(how.small)]
            numbers.insert(int(next(draws) * count), how.large[int(next(draws) * len(how.large))])
            solution = self._combine(numbers, draws)
            target = solution.value
            if how.targets[0] <= target <= how.targets[1] and target not in numbers:
                break
        prompt = PROMPTS[int(next(draws) * len(PROMPTS))].format(
            name=NAMES[int(rng.random() * len(NAMES))],
            target=target,
            numbers=", ".join(map(str, numbers)),
        )
        facts = {"target": target, "numbers": tuple(numbers)}
        return Instance(prompt, solution.text.replace(" ", ""), facts)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for, whether or not it can be solved.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        for pattern in _PATTERNS:
            match = pattern.fullmatch(prompt)
            if match is not None:
                numbers = tuple(map(int, match["numbers"].split(", ")))
                return Instance(prompt, data={"target": int(match["target"]), "numbers": numbers})
        raise ValueError(
            f"not a countdown prompt: {prompt[:200]!r}. Expected one such as "
            f"{self.sample(np.random.default_rng(0)).prompt!r}, of two to {MAX_NUMBERS} numbers "
            "below 1,000."
        )

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion`; `ended` tells whether the agent ended the text itself."""
        facts = self._facts(instance)
        found = expression.read(completion.strip().removesuffix("."))
        if found is None or len(found.numbers) < 2:
            return 0.0
        if Counter(found.numbers) - Counter(facts["numbers"]):
            return 0.0
        error = abs(found.value - facts["target"])
        if error == 0 and ended:
            return 1.0
        return FAIR + CLOSE * float(facts["target"] / (facts["target"] + 10 * error))

    def solve(self, instance: Instance) -> str:
        """The expression the instance was drawn with, or one that is searched for.

        Raises:
            ValueError: there is none.
        """
        if instance.target is not None:
            return f" {instance.target}"
        facts = self._facts(instance)
        solution = search(facts["numbers"], facts["target"])
        if solution is None:
            raise ValueError(
                f"{facts['target']} cannot be made from {facts['numbers']} by whole positive "
                "numbers alone. Give a prompt that can be solved."
            )
        return f" {solution}"

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: of its words, and of digits one by one."""
        how = self._how
        digit = digit_tokens(count_tokens)
        space, comma = most_tokens(count_tokens, [" "]), most_tokens(count_tokens, [","])
        large = len(str(max(how.large)))
        digits = how.small * len(str(how.highest)) + large + len(str(how.targets[1]))
        words = max(count_tokens(p.format(name="", target="", numbers="")) for p in PROMPTS)
        names = most_tokens(count_tokens, [*NAMES, *(" " + name for name in NAMES)])
        return words + names + digits * digit + (how.small + 2) * space + how.small * comma + 1

    def _facts(self, instance: Instance) -> Any:
        return instance.data or self.from_prompt(instance.prompt).data

    def _combine(self, numbers: Sequence[int], draws: Iterator[float]) -> Term:
        """`numbers`, or (one time in four) all but one of them, joined at random."""
        pool = [expression.number(n) for n in numbers]
        if next(draws) < 0.25:
            pool.pop(int(next(draws) * len(pool)))
        while len(pool) > 1:
            left = pool.pop(int(next(draws) * len(pool)))
            right = pool.pop(int(next(draws) * len(pool)))
            operator = self._how.operators[int(next(draws) * len(self._how.operators))]
            if not _is_useful(left.value, operator, right.value):
                operator = "+"
            pool.append(expression.join(left, operator, right))
        return pool[0]


def search(numbers: Sequence[int], target: int) -> str | None:
    """An expression of some of `numbers` that makes `target` with whole positive steps, or None.

    Exhaustive, each set of values being tried once: seconds for six numbers that fail.

    >>> search((25, 4, 1), 100)
    '25*4'
    >>> search((2, 2), 5) is None
    True
    """
    seen: set[tuple[int, ...]] = set()

    def among(terms: tuple[Term, ...]) -> Term | None:
        key = tuple(sorted(term.value for term in terms))
        if key in seen:
            return None
        seen.add(key)
        for i, left in enumerate(terms):
            if left.value == target and left.text != str(target):
                return left
            for j, right in enumerate(terms):
                if i == j:
                    continue
                rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
                for operator in "+-*/":
                    if operator in "+*" and j < i:
                        continue  # the same the other way round
                    if _is_useful(left.value, operator, right.value):
                        found = among((expression.join(left, operator, right), *rest))
                        if found is not None:
                            return found
        return None

    solution = among(tuple(map(expression.number, numbers)))
    return None if solution is None else solution.text.replace(" ", "")


def _is_useful(a: int, operator: str, b: int) -> bool:
    """Whether `a operator b` is a whole positive number, and not as good as one of the two."""
    if operator == "-":
        return a > b
    if operator == "*":
        return a > 1 and b > 1
    if operator == "/":
        return b > 1 and a % b == 0
    return True
