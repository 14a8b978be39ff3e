"""`DataToTextTask`: say in sentences what a small table says."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from textgym.episode import Instance
from textgym.tasks.base import TokenCounter, check_level
from textgym.tasks.facts_world import (
    ATTRIBUTES,
    FACTS,
    WORDS,
    Fact,
    draw_value,
    facts_of,
    faithfulness,
    is_value,
    slots_of,
    tell,
)
from textgym.tasks.story_world import NAMES
from textgym.tasks.target_task import TargetTask, dice_of, longest

# Of every level: characters, and facts about each.
_SIZES = ((1, 3), (1, 4), (1, 5), (2, 3))
_ASK = "\nText:"
_KEYS = (*(a for a in ATTRIBUTES if a != "feeling"), "mood")

Table = dict[str, dict[str, str]]


class DataToTextTask(TargetTask):
    """Say in sentences what a small table says: all of it, and nothing else.

    ## Description
    Every line of the table is about one character: the name, then what is known in any order.

    > name: Mia | food: soup | kind: fox | home: mill
    > Text:

    The agent writes sentences of the grammar of facts (`facts_world`), which tells one fact or
    several in a sentence, in many ways: " Mia the fox lives near the mill. She likes soup."

    ## Rewards
    On the last step, `coverage * precision`. Coverage is the fraction of the table's facts that the
    text says. Precision is the number of those, over that number plus faults: facts that are not
    in the table, sentences that are not grammatical or say nothing new, and one more if the agent
    did not end the text itself.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level` (int, default 1): 1 to 3 ask for three, four and five facts about one character; 4
      for three facts about each of two.

    ## Version History
    - v0: first version.

    Example:
        >>> task = DataToTextTask()
        >>> instance = task.from_prompt("name: Mia | food: soup | kind: fox | home: mill\\nText:")
        >>> task.score_text(instance, " Mia the fox lives near the mill. She likes soup.")
        1.0
        >>> round(task.score_text(instance, " Mia is a fox who likes cake."), 2)
        0.17
    """

    levels = len(_SIZES)
    metric_names = ("chrf", "rouge_l", "token_f1")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self.max_new_tokens = (48, 56, 72, 88)[self.level - 1]

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw a table: names, attributes and values, each uniformly."""
        dice = dice_of(rng)
        characters, count = _SIZES[self.level - 1]
        table: Table = {}
        for name in dice.sample(NAMES, characters):
            attributes = dice.sample(ATTRIBUTES, count)
            table[name] = {a: draw_value(a, name, dice) for a in attributes}
        return _instance(table)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        lines = prompt.removesuffix(_ASK).split("\n")
        table: Table = {}
        for line in lines:
            cells = [cell.partition(": ")[::2] for cell in line.split(" | ")]
            values = {("feeling" if k == "mood" else k): v for k, v in cells[1:]}
            key, name = cells[0]
            good = key == "name" and name in NAMES and name not in table
            good = good and 0 < len(values) == len(cells) - 1 and prompt.endswith(_ASK)
            if not good or not all(
                k in ATTRIBUTES and is_value(k, v) and v != name for k, v in values.items()
            ):
                raise ValueError(
                    f"not a table: {prompt[:200]!r}. Expected lines such as 'name: Mia | kind: fox "
                    f"| home: mill', of the keys {', '.join(_KEYS)} and words of `facts_world`, "
                    f"then {_ASK!r}."
                )
            table[name] = values
        return _instance(table)

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """`coverage * precision` of `completion`; 0.0 for any text that says nothing true."""
        truth: set[Fact] = set(self.known(instance).data["facts"])
        coverage, precision = faithfulness(FACTS, completion, truth, ended=ended)
        return coverage * precision

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt."""
        characters, count = _SIZES[self.level - 1]
        cells = sorted(
            (longest((f" | {_cell(a, _slots(a))}",), WORDS, count_tokens) for a in ATTRIBUTES),
            reverse=True,
        )
        row = longest(("\nname: {name}",), WORDS, count_tokens) + sum(cells[:count])
        # Two more for special tokens, and one a cell for tokenizers that merge over a space.
        return characters * (row + count) + count_tokens(_ASK) + 2


def _slots(attribute: str) -> str:
    words = slots_of({attribute: "a b" if attribute == "thing" else "a"})
    return " ".join(f"{{{slot}}}" for slot in words)


def _cell(attribute: str, value: str) -> str:
    return f"{'mood' if attribute == 'feeling' else attribute}: {value}"


def _instance(table: Mapping[str, Mapping[str, str]]) -> Instance:
    lines = [
        " | ".join((f"name: {name}", *(_cell(a, v) for a, v in values.items())))
        for name, values in table.items()
    ]
    prompt = "\n".join(lines) + _ASK
    dice: random.Random = dice_of(prompt)
    facts = set().union(*(facts_of(name, values) for name, values in table.items()))
    told = [tell(name, values, dice) for name, values in table.items()]
    return Instance(prompt, target=" " + " ".join(told), data={"facts": tuple(sorted(facts))})
