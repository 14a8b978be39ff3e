"""`SortingTask`: put words or numbers in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from textgym.episode import Instance
from textgym.tasks.base import TextTask, TokenCounter, check_level
from textgym.tasks.bounds import digit_tokens, most_tokens
from textgym.tasks.story_world import KINDS, NOUNS, PLACES

UP, DOWN = "Sort", "Sort down"
FRUITS = ("apple", "pear", "plum", "fig", "lemon", "peach", "melon", "grape", "cherry", "olive")
WORDS: tuple[str, ...] = tuple(sorted({*KINDS, *NOUNS, *PLACES, *FRUITS}))

_PROMPT = re.compile(rf"(?P<order>{DOWN}|{UP}): (?P<items>.+) ->")
_NUMBER = re.compile(r"-?[0-9]{1,6}")
_WORD = re.compile(r"[a-z]{1,20}")
# No right answer is longer; what is need not be read.
_MAX_CHARACTERS = 1000


@dataclass(frozen=True)
class _Level:
    """How one level draws: `count` items, numbers being from `low` to 99."""

    count: int
    max_new_tokens: int
    down: bool = False
    low: int = 0
    repeats: bool = False


_LEVELS = (
    _Level(4, 24),
    _Level(6, 32),
    _Level(6, 32, down=True),
    _Level(8, 48, down=True, low=-99, repeats=True),
)


class SortingTask(TextTask):
    """Put words or numbers in order.

    ## Description
    A prompt lists words, to be sorted by the alphabet, or numbers; ``Sort down`` asks for the
    last or greatest first:

    > Sort: pear, fig, mill, apple ->

    The agent writes the sorted list, separated by commas, and ends the text.

    | level | items |
    |---|---|
    | 1 | 4 different words or numbers (0 to 99), up |
    | 2 | 6 |
    | 3 | 6, up or down |
    | 4 | 8, up or down, numbers from -99 and some of them twice |

    ## Rewards
    On the last step ``((right - surplus) / n) ** 2``, but 0 where there is more surplus than
    right: `n` is the number of items, `right` counts those at the start of the answer that are in
    order, up to the first mistake, and `surplus` the words beyond `n`. A full stop may follow. If
    the agent did not end the text itself, the last item does not count.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level`: 1 to 4, see above.

    ## Version History
    - v0: first version.

    Example:
        >>> task = SortingTask()
        >>> instance = task.from_prompt("Sort: pear, fig, mill, apple ->")
        >>> task.solve(instance)
        ' apple, fig, mill, pear'
        >>> [task.score_text(instance, a) for a in (" apple, fig", " apple, mill, fig, pear")]
        [0.25, 0.0625]
    """

    levels: ClassVar[int] = len(_LEVELS)

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._how = _LEVELS[self.level - 1]
        self.max_new_tokens = self._how.max_new_tokens

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw items, all words or all numbers, and the direction."""
        how = self._how
        numbers, down = (rng.random(2) < 0.5).tolist()
        if not numbers:
            items = [WORDS[i] for i in rng.permutation(len(WORDS))[: how.count].tolist()]
        else:
            span = 100 - how.low
            drawn = (how.low + rng.permutation(span)[: how.count]).tolist()
            if how.repeats:  # one of the numbers again, in place of the last
                drawn[-1] = drawn[int(rng.integers(how.count - 1))]
            items = list(map(str, drawn))
        return _instance(DOWN if down and how.down else UP, items)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for: small words, or whole numbers.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        match = _PROMPT.fullmatch(prompt)
        items = match["items"].split(", ") if match else []
        kinds = (_NUMBER, _WORD)
        if match and any(all(kind.fullmatch(item) for item in items) for kind in kinds):
            return _instance(match["order"], items)
        raise ValueError(
            f"not a sorting prompt: {prompt[:200]!r}. Expected one such as "
            f"{self.sample(np.random.default_rng(0)).prompt!r}, of lower-case words or of whole "
            "numbers."
        )

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion`; `ended` tells whether the agent ended the text itself."""
        target = instance.target or self.from_prompt(instance.prompt).target or ""
        wanted = target.split(", ")
        if len(completion) > _MAX_CHARACTERS:
            return 0.0
        text = completion.strip().removesuffix(".")
        written = [item.strip() for item in text.split(",")]
        right = 0
        while right < min(len(wanted), len(written)) and written[right] == wanted[right]:
            right += 1
        if right == len(wanted) and not ended:
            right -= 1
        surplus = max(0, len(text.replace(",", " ").split()) - len(wanted))
        return (max(0, right - surplus) / len(wanted)) ** 2

    def solve(self, instance: Instance) -> str:
        """The sorted list."""
        return f" {instance.target or self.from_prompt(instance.prompt).target}"

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: its frame, and the longest items."""
        signed = most_tokens(count_tokens, [" ", " -"])
        number = signed + 2 * digit_tokens(count_tokens)
        longest = max(number, most_tokens(count_tokens, [" " + word for word in WORDS]))
        comma = most_tokens(count_tokens, [","])
        frame = max(count_tokens(f"{order}: ->") for order in (UP, DOWN))
        return frame + self._how.count * (longest + comma) + 1


def _instance(order: str, items: Sequence[str]) -> Instance:
    """`items` as a prompt, and sorted: as numbers where they are."""
    words = not _NUMBER.fullmatch(items[0])
    wanted = sorted(items, key=None if words else int, reverse=order == DOWN)
    return Instance(f"{order}: {', '.join(items)} ->", ", ".join(wanted))
