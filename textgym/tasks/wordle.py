"""`WordleTask`: find a secret word by guesses whose letters are marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from textgym.episode import Episode, Instance, Turn
from textgym.tasks.base import Reply, Task, TokenCounter, check_level
from textgym.tasks.bounds import digit_tokens, most_tokens
from textgym.tasks.wordle_game import (
    ELSEWHERE,
    HERE,
    MAX_EXACT_WORDS,
    NOWHERE,
    best_play,
    good_guess,
    is_sure,
    marks,
    optimal_value,
)
from textgym.tasks.wordle_words import FIVE, FOUR, THREE

LISTED = "Which word is it: {words}?\n"
NUMBERED = "Game {game}. Find a word of {letters} letters.\n"
RULES = f"{HERE} right, {ELSEWHERE} elsewhere, {NOWHERE} not in it. {{turns}} guesses.\n"
ASK = "Guess:"
UNKNOWN = "\nNot in the list.\n" + ASK
FOUND, MISSED = "\nYes.", "\nNo, it was {secret}."
GAMES = 10_000_000
# What the right letters of the best guess are worth at most, where the word was not found.
PART = 0.1


@dataclass(frozen=True)
class _Level:
    """One level: `listed` of the `words` are in the prompt (0: the whole list, unseen).

    Good play is sure to find the secret in `par` guesses.
    """

    words: tuple[str, ...]
    listed: int
    turns: int
    par: int


_LEVELS = (
    _Level(THREE, listed=8, turns=4, par=3),
    _Level(FOUR, listed=12, turns=5, par=3),
    _Level(FIVE, listed=0, turns=6, par=4),
)


class WordleTask(Task):
    """Find a secret word by guesses whose letters are marked.

    ## Description
    A prompt lists the words that the secret is one of (level 3 does not: its list is as long as
    `wordle_words.FIVE`), and the agent guesses, one word a turn. Each guess is repeated with a
    mark behind each letter: ``+`` where it is right, ``?`` where the secret has it in another
    place, ``-`` where it does not have it (again). A guess that is not in the list is not marked,
    but counts:

    > Which word is it: ham, fly, bus, map, sky, hat, ice, man?
    > + right, ? elsewhere, - not in it. 4 guesses.
    > Guess: **hat**
    > h- a+ t-
    > Guess: **map**
    > Yes.

    | level | letters | words | guesses | enough for good play |
    |---|---|---|---|---|
    | 1 | 3 | 8, in the prompt | 4 | 3 |
    | 2 | 4 | 12, in the prompt | 5 | 3 |
    | 3 | 5 | nearly 400, unseen | 6 | 4 |

    ## Rewards
    At the end: 1.0 if the secret was found by as many guesses as are enough for good play, and
    for each one more so much less that one more than allowed would pay 0: at level 1, 0.5 for
    the fourth, at level 2, 2/3 and 1/3. If it was not found, 0.1 times the greatest fraction of
    letters marked ``+`` in one guess. A guess that the budget cut off does not count.

    At levels 1 and 2 lists are drawn so that the best play that does not know the secret is sure
    of 1.0; `optimal_value` tells that exactly for any short list, and
    `wordle_game.fewest_guesses` how few guesses are needed on average. At level 3 it is so for
    the play of `solve_turn`.

    ## Episode End
    When the secret is found, the guesses are used up, or `max_new_tokens` are spent.

    ## Arguments
    - `level`: 1 to 3, see above.

    ## Version History
    - v0: first version.

    Example:
        >>> task = WordleTask()
        >>> instance = task.sample(np.random.default_rng(0))
        >>> task.optimal_value(instance)
        1.0
        >>> guess = Turn("agent", task.solve(instance))
        >>> task.reply(instance, [guess]).text.endswith("Guess:")
        True
    """

    levels: ClassVar[int] = len(_LEVELS)
    metric_names = ("found", "guesses")

    def __init__(self, level: int = 1) -> None:
        self.level = check_level(self, level)
        self._how = _LEVELS[self.level - 1]
        self._letters = len(self._how.words[0])
        self.max_turns = self._how.turns
        # A guess takes at most a token a letter, one for the space, and end-of-sequence.
        self.max_new_tokens = self.max_turns * (self._letters + 2)
        late = self.max_turns - self._how.par
        self._pays = (1.0,) * self._how.par + tuple(1 - i / (late + 1) for i in range(1, late + 1))

    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw the secret, and the words listed with it such that good play is sure of it."""
        how = self._how
        rules = RULES.format(turns=self.max_turns) + ASK
        if not how.listed:
            game, secret = int(rng.integers(1, GAMES)), how.words[int(rng.integers(len(how.words)))]
            prompt = NUMBERED.format(game=game, letters=self._letters) + rules
            return Instance(prompt, secret)
        while True:
            drawn = rng.permutation(len(how.words))[: how.listed].tolist()
            words = tuple(how.words[i] for i in drawn)
            if is_sure(words, how.par):
                break
        secret = words[int(rng.integers(how.listed))]
        return Instance(LISTED.format(words=", ".join(words)) + rules, secret, {"words": words})

    def reply(self, instance: Instance, turns: Sequence[Turn]) -> Reply:
        """The marks of the latest guess; the end where it is right, or was the last one."""
        words, secret = self._facts(instance)
        guesses = _guesses(turns)
        if guesses[-1] == secret:
            return Reply(FOUND, terminated=True)
        if len(guesses) >= self.max_turns:
            return Reply(MISSED.format(secret=secret), terminated=True)
        if guesses[-1] not in words:
            return Reply(UNKNOWN)
        marked = zip(guesses[-1], marks(guesses[-1], secret), strict=True)
        return Reply("\n" + " ".join(map("".join, marked)) + "\n" + ASK)

    def reply_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of all replies: letters and marks one by one."""
        letter = max(count_tokens(f" {x}") for x in "abcdefghijklmnopqrstuvwxyz")
        mark = max(map(count_tokens, (HERE, ELSEWHERE, NOWHERE)))
        marked = self._letters * (letter + mark - 2 * count_tokens("")) + count_tokens("\n" + ASK)
        newline = count_tokens("\n")
        one = max(marked + newline, count_tokens(UNKNOWN))
        word = most_tokens(count_tokens, [" " + word for word in self._how.words])
        last = max(count_tokens(FOUND), count_tokens(MISSED.format(secret="")) + word)
        return (self.max_turns - 1) * one + last

    def score(self, episode: Episode) -> float:
        """1.0 for few enough guesses, then less; a little for right letters alone."""
        words, secret = self._facts(episode.instance)
        guesses = _finished(episode)
        if secret in guesses:
            return self._pays[guesses.index(secret)]
        tries = [marks(guess, secret).count(HERE) for guess in guesses if guess in words]
        return PART * max(tries, default=0) / self._letters

    def metrics(self, episode: Episode) -> dict[str, float]:
        """Whether the secret was found, and the number of guesses made."""
        _, secret = self._facts(episode.instance)
        guesses = _finished(episode)
        return {"found": float(secret in guesses), "guesses": float(len(guesses))}

    def optimal_value(self, instance: Instance) -> float:
        """The exact expected score of the best play that knows the list, but not the secret.

        (What a secret that is not found pays for its letters is left out; the best play of a list
        that this task draws finds it.)

        Raises:
            ValueError: the list is too long (level 3).
        """
        return optimal_value(self._facts(instance)[0], self._pays)

    def solve(self, instance: Instance) -> str:
        """The first guess of a play that never looks at the secret."""
        return self.solve_turn(instance, ())

    def solve_turn(self, instance: Instance, turns: Sequence[Turn]) -> str:
        """The next guess: of the exact best play, or (level 3) that with the most different marks
        to come."""
        words, secret = self._facts(instance)
        history = {g: marks(g, secret) for g in _guesses(turns) if g in words}
        if len(words) > MAX_EXACT_WORDS:
            return " " + good_guess(words, history)
        guesses = len(_guesses(turns))
        return " " + best_play(words, self._pays).guess(history, guesses)

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: of its words one by one."""
        rules = count_tokens(RULES.format(turns=self.max_turns) + ASK)
        if self._how.listed:
            word = most_tokens(count_tokens, [f" {word}," for word in self._how.words])
            return count_tokens(LISTED.format(words="")) + self._how.listed * word + rules
        digits = len(str(GAMES - 1)) * digit_tokens(count_tokens)
        return count_tokens(NUMBERED.format(game="", letters=self._letters)) + digits + rules

    def _facts(self, instance: Instance) -> tuple[tuple[str, ...], str]:
        """The words of the game and the secret."""
        words: Sequence[str] = instance.data.get("words", self._how.words)
        secret = instance.target
        if secret is None or secret not in words:
            raise ValueError(
                "a Wordle instance needs its secret as `target`, and unless it is one of the words "
                f"of this level, `data` with the `words` it is one of, got {secret!r}. "
                'Pass `options={"index": n}` for a game that the task draws.'
            )
        return tuple(words), secret


def _guesses(turns: Sequence[Turn]) -> list[str]:
    """What the agent has guessed, each turn being one guess, whatever it holds."""
    said = [turn.text for turn in turns if turn.role == "agent"]
    return [text.strip().removesuffix(".").lower() for text in said]


def _finished(episode: Episode) -> list[str]:
    """The guesses of `episode` that the agent ended itself."""
    guesses = _guesses(episode.turns)
    cut = episode.finish_reason == "length" and episode.turns and episode.turns[-1].role == "agent"
    return guesses[:-1] if cut else guesses
