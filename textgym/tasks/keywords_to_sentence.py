"""`KeywordsToSentenceTask`: one sensible sentence that has all the words asked for."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from textgym.episode import Instance
from textgym.tasks.base import TokenCounter, check_level
from textgym.tasks.keywords_world import (
    CONCEPT_CLASS,
    CONCEPTS,
    FORMS,
    GROUP_OF,
    VERBS,
    read,
    shapes_with,
)
from textgym.tasks.target_task import (
    MAX_CHARACTERS,
    TargetTask,
    dice_of,
    longest,
    with_articles,
)

_ASK, _ASK_END = "Words: ", "\nSentence:"
# What a sentence with a verb of each group can be about.
_PLANS = {
    "thing": ("kind", "verb", "adjective", "noun", "place"),
    "move": ("kind", "verb", "kind", "place"),
    "meet": ("kind", "verb", "kind", "place"),
    "give": ("kind", "verb", "adjective", "noun", "kind", "place"),
}
_MIN_WORDS = 4
_EXTRA_COST = 0.1
_SLOT = re.compile(r"\{(\w+)\}")


class KeywordsToSentenceTask(TargetTask):
    """Write one sensible sentence that has all the words asked for.

    ## Description
    The words are animals, things, adjectives, places and verbs, in any order:

    > Words: ball, mill, red, fox
    > Sentence:

    The agent writes a sentence of the grammar (`keywords_world`), in which animals do what makes
    sense to things and to each other, such as " The fox hid a red ball near the mill." Verbs may
    be inflected.

    ## Rewards
    On the last step: the fraction of the words that the sentence has, less a tenth of it for every
    content word more than a shortest sentence with all of the words must have. Nothing for a text
    that is not exactly one grammatical sentence. Half if the agent did not end the text itself.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    - `level` (int, default 1): 1 to 3 ask for four, five and six words.

    ## Version History
    - v0: first version.

    Example:
        >>> task = KeywordsToSentenceTask()
        >>> instance = task.from_prompt("Words: ball, mill, red, fox\\nSentence:")
        >>> task.score_text(instance, " The fox hid a red ball near the mill.")
        1.0
        >>> task.score_text(instance, " A fox found the ball.")
        0.5
        >>> task.score_text(instance, " The red ball hid a fox near the mill.")
        0.0
    """

    levels = 3
    metric_names = ("chrf", "rouge_l", "token_f1")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self.max_new_tokens = 32

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw what the sentence is about, then which of its words are asked for, uniformly."""
        dice = dice_of(rng)
        count = _MIN_WORDS - 1 + self.level
        # As likely as there are ways to choose the words asked for from the plan.
        weights = [math.comb(len(plan), count) for plan in _PLANS.values()]
        (group,) = dice.choices(tuple(_PLANS), weights)
        slots = dice.sample(_PLANS[group], count)
        kinds = dice.sample(CONCEPTS["kind"], 2)
        words = [
            kinds.pop()
            if slot == "kind"
            else dice.choice(VERBS[group])[0]
            if slot == "verb"
            else dice.choice(CONCEPTS[slot])
            for slot in slots
        ]
        return _instance(words)

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not one of this task's.
        """
        words = prompt.removeprefix(_ASK).removesuffix(_ASK_END).split(", ")
        if f"{_ASK}{', '.join(words)}{_ASK_END}" != prompt:
            raise ValueError(
                f"not a prompt for a sentence: {prompt[:200]!r}. Expected one such as "
                f"{_ASK + 'ball, mill, red, fox' + _ASK_END!r}."
            )
        for word in words:
            if word not in CONCEPT_CLASS:
                raise ValueError(
                    f"sentence prompt: {word[:80]!r} is no word that can be asked for. "
                    f"Known: {', '.join(CONCEPT_CLASS)}."
                )
        if len(set(words)) < len(words) or not _shapes_for(words):
            raise ValueError(
                f"sentence prompt: no sentence has all of {', '.join(words)}. Ask for at most one "
                "verb, one thing, one adjective, one place and two animals."
            )
        return _instance(words)

    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The fraction of the words in `completion`, less for more words than are needed."""
        if len(completion) > MAX_CHARACTERS:
            return 0.0
        content = read(completion.strip())
        if content is None:
            return 0.0
        data = self.known(instance).data
        words: tuple[str, ...] = data["words"]
        coverage = sum(word in content for word in words) / len(words)
        needless = max(0, len(content) - int(data["needed"]))
        return max(0.0, coverage * (1 - _EXTRA_COST * needless)) * (1.0 if ended else 0.5)

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt."""
        each = max(longest((", {word}",), {"word": w}, count_tokens) for w in CONCEPTS.values())
        ends = count_tokens(_ASK) + count_tokens(_ASK_END)
        # One more a word for tokenizers that merge over a space.
        return ends + (each + 1) * (_MIN_WORDS - 1 + self.level)


def _shapes_for(words: Sequence[str]) -> tuple[str, ...]:
    verb = next((GROUP_OF[word] for word in words if word in GROUP_OF), None)
    return shapes_with(verb, tuple(sorted(CONCEPT_CLASS[word] for word in words)))


def _instance(words: Sequence[str]) -> Instance:
    prompt = f"{_ASK}{', '.join(words)}{_ASK_END}"
    dice = dice_of(prompt)
    shape = dice.choice(_shapes_for(words))
    slots = _SLOT.findall(shape)
    target = " " + _fill(shape, slots, words, dice)
    return Instance(prompt, target=target, data={"words": tuple(words), "needed": len(slots)})


def _fill(shape: str, slots: Sequence[str], words: Sequence[str], dice: random.Random) -> str:
    """A sentence of `shape` with all of `words`, and words of its own in the other slots."""
    asked = Counter(words)
    filled = []
    for slot in slots:
        group, _, form = slot.partition("_")
        verbs = {verb[0]: verb for verb in VERBS.get(group, ())}
        options = verbs or CONCEPTS[slot]
        mine = [word for word in options if asked[word]]
        word = dice.choice(mine or [w for w in options if w not in filled])
        asked[word] = 0
        filled.append(word)
        shape = shape.replace(f"{{{slot}}}", verbs[word][FORMS.index(form)] if verbs else word, 1)
    return with_articles(shape + ".")
