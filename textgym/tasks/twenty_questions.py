"""`TwentyQuestionsTask`: find out by yes-or-no questions what somebody thinks of."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from textgym.episode import Episode, Instance, Turn
from textgym.tasks.base import Reply, Task, TokenCounter, check_level

# What a thing is like, in the order in which it is told.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size": ("small", "big"),
    "colour": ("red", "blue", "green", "white", "black", "golden", "silver", "brown"),
    "material": ("wooden", "paper", "glass", "stone", "iron", "clay"),
    "kind": (
        *("boat", "drum", "lamp", "bell", "kite", "ball"),
        *("key", "hat", "cup", "book", "flute", "basket"),
    ),
    "place": ("garden", "mill", "barn", "tower", "cave", "castle", "village", "market"),
}
# How many words of each attribute a thing may have, level by level: powers of two, so that
# halving takes the logarithm of their product, and no strategy needs fewer questions.
LEVELS: tuple[dict[str, int], ...] = (
    {"colour": 2, "material": 2, "kind": 2},
    {"size": 2, "colour": 4, "material": 2, "kind": 4},
    {"size": 2, "colour": 4, "material": 2, "kind": 4, "place": 4},
)
BUDGETS = (48, 80, 110)
# Questions beyond those needed, each of which costs a quarter of the score.
SPARE = 3
# What a wrong guess earns, times the share of its words that are right.
NEARLY = 0.15

ASK = 'I think of a thing: {options}. Ask as in "Is it red?", then say "It is a" and all of it.\n'
AGENT, HOST = "You:", "\nHost: "
YES = ("Yes.", "Yes, it is.", "It is.", "Right, yes.")
NO = ("No.", "No, it is not.", "It is not.", "Not that.")
UNCLEAR = "I do not understand."
RIGHT = ("Right!", "Well done!", "You have it!")
WRONG = "Wrong. It is {thing}."
OVER = "Too many questions. It is {thing}."

_WORDS = frozenset(word for words in ATTRIBUTES.values() for word in words)
_QUESTION = re.compile(r"is it (.+?)\s*[?.]?")
_GUESS = re.compile(r"it is (.+?)\s*[.!]?")
# No question or guess is longer; what is need not be read.
_MAX_CHARACTERS = 200


class TwentyQuestionsTask(Task):
    """Find out by yes-or-no questions what somebody thinks of, and say what it is.

    ## Description
    The prompt tells what the thing may be, drawn anew for each episode:

    > I think of a thing: red or blue; glass or paper; a boat or drum. Ask as in "Is it red?",
    > then say "It is a" and all of it.
    > You:

    The agent asks one question a turn, and is answered Yes or No in several words. A question is
    "Is it" with a word, several ("Is it red or green?": is it any of them?) or some of one thing
    ("Is it a red boat?": is it all of them?); any other text is not understood, and counts as a
    question. A turn that begins with "It is" and tells a thing is the guess, and ends the episode:
    "It is a red paper boat."

    ## Rewards
    On the last step, in [0, 1]. A right guess is worth 1 if no more questions were asked than
    halving needs, the logarithm to base 2 of the number of things it may be; each further question
    costs a quarter. A wrong guess earns the same, times 0.15, times the share of its words that
    are right. A guess of more or fewer words than the thing has is worth nothing, and so is none.

    `metrics` gives the number of `questions`, and whether the guess was `right`.

    ## Episode End
    With the guess, with the turn after the last question that would leave a guess any worth (three
    more than halving needs), or when the agent has spent `max_new_tokens`.

    ## Arguments
    - `level` (1 to 3): one of 8 things, told apart by colour, material and kind; of 64, by size
      too; of 256, by place too. Halving needs 3, 6 and 8 questions.

    ## Version History
    - v0: first version.

    Example:
        >>> task = TwentyQuestionsTask()
        >>> task.par
        3
        >>> instance = task.sample(np.random.default_rng(0))
        >>> task.reply(instance, [Turn("agent", "Is it a purple idea?")]).text
        '\\nHost: I do not understand.\\nYou:'
    """

    levels: ClassVar[int] = len(LEVELS)
    metric_names = ("questions", "right")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._sizes = LEVELS[self.level - 1]
        self.max_new_tokens = BUDGETS[self.level - 1]
        self.par = sum((n - 1).bit_length() for n in self._sizes.values())
        self.max_turns = self.par + SPARE + 1

    # ------------------------------------------------------------------ what is asked
    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: the words of each attribute, and the thing."""
        options = {}
        for attribute, n in self._sizes.items():
            words = ATTRIBUTES[attribute]
            options[attribute] = tuple(words[i] for i in rng.permutation(len(words))[:n].tolist())
        draws = rng.random(len(options)).tolist()
        thing = tuple(w[int(u * len(w))] for u, w in zip(draws, options.values(), strict=True))
        return Instance(_prompt(options), data={"options": options, "thing": thing})

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: that of the longest words."""
        options = {
            attribute: tuple(
                sorted(ATTRIBUTES[attribute], key=lambda word: -count_tokens(f" {word}"))[:n]
            )
            for attribute, n in self._sizes.items()
        }
        return count_tokens(_prompt(options)) + 1

    # ------------------------------------------------------------------ who answers
    def reply(self, instance: Instance, turns: Sequence[Turn]) -> Reply:
        """Yes, no, or what it was: a guess and the last turn end the episode."""
        said = [turn.text for turn in turns if turn.role == "agent"]
        thing = instance.data["thing"]
        # Varied from turn to turn, the same for the same prompt.
        draw = zlib.crc32(f"{instance.prompt}{len(said)}".encode())
        guess = read_guess(said[-1])
        if guess is not None:
            words = RIGHT[draw % len(RIGHT)] if _share(guess, thing) == 1 else WRONG
            return Reply(HOST + words.format(thing=_tell(thing)), terminated=True)
        if len(said) >= self.max_turns:
            return Reply(HOST + OVER.format(thing=_tell(thing)), terminated=True)
        answer = answer_question(said[-1], thing)
        choices = (UNCLEAR,) if answer is None else YES if answer else NO
        return Reply(f"{HOST}{choices[draw % len(choices)]}\n{AGENT}")

    def reply_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of all answers together."""
        answers = (f"{HOST}{words}\n{AGENT}" for words in (*YES, *NO, UNCLEAR))
        thing = [
            max(ATTRIBUTES[attribute], key=lambda word: count_tokens(f" {word}"))
            for attribute in self._sizes
        ]
        last = (HOST + words.format(thing=_tell(thing)) for words in (*RIGHT, WRONG, OVER))
        most = max(map(count_tokens, answers))
        return (self.max_turns - 1) * most + max(most, *map(count_tokens, last)) + 1

    # ------------------------------------------------------------------ how it is scored
    def score(self, episode: Episode) -> float:
        """1.0 for a right guess within `par` questions; 0.0 for any text that is no guess."""
        questions, guess = _heard(episode)
        right = _share(guess, episode.instance.data["thing"])
        if not right:
            return 0.0
        worth = 1.0 if right == 1 else NEARLY * right
        return worth * (1 - max(0, questions - self.par) / (SPARE + 1))

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """The number of questions, and whether the guess was right."""
        questions, guess = _heard(episode)
        right = _share(guess, episode.instance.data["thing"]) == 1
        return {"questions": float(questions), "right": float(right)}

    # ------------------------------------------------------------------ the oracle
    def solve(self, instance: Instance) -> str:
        """The first of the oracle's questions."""
        return self.solve_turn(instance, ())

    def solve_turn(self, instance: Instance, turns: Sequence[Turn]) -> str:
        """A question that halves what it may be, or the guess once there is one thing left.

        It asks nothing that it would not ask without knowing the thing.
        """
        thing = instance.data["thing"]
        # Varied from prompt to prompt, the same for the same prompt.
        rng = np.random.default_rng(zlib.crc32(instance.prompt.encode()))
        order = rng.permutation(len(thing)).tolist()
        options = [list(words) for words in instance.data["options"].values()]
        asked = sum(turn.role == "agent" for turn in turns)
        for i in order:
            words = [options[i][j] for j in rng.permutation(len(options[i])).tolist()]
            while len(words) > 1:
                half = words[: len(words) // 2]
                if not asked:
                    return f" Is it {' or '.join(map(_phrase, half))}?"
                asked -= 1
                words = half if thing[i] in half else words[len(words) // 2 :]
        return f" It is {_tell(thing)}."


def answer_question(text: str, thing: Sequence[str]) -> bool | None:
    """Whether `thing` is what `text` asks; None where that is not understood.

    >>> answer_question("Is it blue or red?", ("red", "boat"))
    True
    >>> answer_question("Is it a blue boat?", ("red", "boat"))
    False
    """
    match = _QUESTION.fullmatch(_clean(text))
    if match is None:
        return None
    parts = [_words_of(part) for part in match.group(1).split(" or ")]
    known = all(part and _WORDS.issuperset(part) for part in parts)
    if not known or (len(parts) > 1 and max(map(len, parts)) > 1):
        return None  # "a red or blue boat" could mean two things
    return any(all(word in thing for word in part) for part in parts)


def read_guess(text: str) -> tuple[str, ...] | None:
    """The words of the thing that `text` says it is; None where it is no guess.

    >>> read_guess("It is a small red boat in the garden.")
    ('small', 'red', 'boat', 'garden')
    """
    match = _GUESS.fullmatch(_clean(text))
    words = _words_of(match.group(1)) if match else []
    return tuple(words) if words and _WORDS.issuperset(words) else None


def _share(guess: Sequence[str] | None, thing: Sequence[str]) -> float:
    """The share of the words of `thing` in a guess of as many, in any order; else 0."""
    if guess is None or len(guess) != len(thing):
        return 0.0
    return len(set(guess) & set(thing)) / len(thing)


def _clean(text: str) -> str:
    return text.strip().lower() if len(text) <= _MAX_CHARACTERS else ""


def _words_of(phrase: str) -> list[str]:
    """The words of "a red boat" or "in the garden" that say what it is."""
    return phrase.removeprefix("a ").removeprefix("in the ").replace(" in the ", " ").split(" ")


def _phrase(word: str) -> str:
    if word in ATTRIBUTES["kind"]:
        return f"a {word}"
    return f"in the {word}" if word in ATTRIBUTES["place"] else word


def _tell(thing: Sequence[str]) -> str:
    words = [_phrase(word) if word in ATTRIBUTES["place"] else word for word in thing]
    return "a " + " ".join(words)


def _prompt(options: Mapping[str, Sequence[str]]) -> str:
    choices = []
    for *some, last in options.values():
        first, *others = some
        choices.append(f"{', '.join([_phrase(first), *others])} or {last}")
    return ASK.format(options="; ".join(choices)) + AGENT


def _heard(episode: Episode) -> tuple[int, tuple[str, ...] | None]:
    """The number of questions, and the guess; a turn that the budget cut was not replied to."""
    questions = 0
    for turn, after in itertools.pairwise(episode.turns):
        if turn.role == "agent" and after.role == "task":
            guess = read_guess(turn.text)
            if guess is not None:
                return questions, guess
            questions += 1
    return questions, None
