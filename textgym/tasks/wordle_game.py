"""The game of Wordle: how a guess is marked, and how well it can be played.

The best play is computed exactly, by dynamic programming over what the secret may still be and
the guesses made: for a uniformly drawn secret and guesses out of the same list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

HERE, ELSEWHERE, NOWHERE = "+", "?", "-"
# Lists up to this long are played exactly; there are up to 2^n states.
MAX_EXACT_WORDS = 16


def marks(guess: str, secret: str) -> str:
    """The mark of each letter of `guess`, of as many letters as `secret`.

    `HERE` where it is right, `ELSEWHERE` where the secret has it in another place, else `NOWHERE`.
    Each letter of the secret accounts for one mark: right ones first, then from the left.

    >>> marks("eerie", "there")
    '?-?-+'
    """
    found = [HERE if a == b else NOWHERE for a, b in zip(guess, secret, strict=True)]
    rest = [b for a, b in zip(guess, secret, strict=True) if a != b]
    for i, letter in enumerate(guess):
        if found[i] != HERE and letter in rest:
            found[i] = ELSEWHERE
            rest.remove(letter)
    return "".join(found)


class ExactPlay:
    """The play of one list of words with the greatest expected pay.

    Args:
        words: what the secret is drawn from, each alike, and what may be guessed.
        pays: what finding the secret with the first, second, ... guess pays; none but these
            guesses are allowed, and not finding it pays 0.

    Raises:
        ValueError: more than `MAX_EXACT_WORDS` words, or one twice; a pay below 0.
    """

    def __init__(self, words: Sequence[str], pays: Sequence[float]) -> None:
        if not 1 <= len(words) <= MAX_EXACT_WORDS or len(set(words)) < len(words):
            raise ValueError(
                f"exact play needs 1 to {MAX_EXACT_WORDS} different words, got {len(words)}. "
                "Give a shorter list."
            )
        if min(pays, default=0.0) < 0.0:
            raise ValueError(f"pays must not be below 0, as missing the secret pays 0: {pays}.")
        self.words, self.pays = tuple(words), tuple(pays)
        self._all = (1 << len(words)) - 1
        # For each guess, the sets of secrets (bits) that give it one mark each, but its own.
        self._splits = [tuple(_split(word, self.words).values()) for word in self.words]
        self._best: dict[tuple[int, int], tuple[float, int]] = {}

    @property
    def value(self) -> float:
        """The expected pay of the best play."""
        return self._solve(self._all, 0)[0] / len(self.words)

    def guess(self, history: Mapping[str, str], used: int) -> str:
        """The best next guess.

        Args:
            history: the marks of each word guessed so far.
            used: the number of guesses made.
        """
        left = self._all
        for i, word in enumerate(self.words):
            if any(marks(guess, word) != seen for guess, seen in history.items()):
                left &= ~(1 << i)
        return self.words[self._solve(left, used)[1]]

    def _solve(self, left: int, used: int) -> tuple[float, int]:
        """The total pay over the secrets in `left`, and the guess to make; ties: the first."""
        key = left, used
        if key not in self._best:
            self._best[key] = self._search(left, used)
        return self._best[key]

    def _search(self, left: int, used: int) -> tuple[float, int]:
        if used >= len(self.pays):
            return 0.0, 0
        pay = self.pays[used]
        if left & (left - 1) == 0:
            return pay, left.bit_length() - 1
        best, most = (-1.0, 0), left.bit_count() * max(self.pays[used:])
        for i, split in enumerate(self._splits):
            total = pay if left >> i & 1 else 0.0
            for group in split:
                if group & left == left:
                    break  # tells nothing
                if group & left:
                    total += self._solve(group & left, used + 1)[0]
            else:
                if total > best[0]:
                    best = (total, i)
                if total >= most:
                    break  # no guess can be better
        return best


def optimal_value(words: Sequence[str], pays: Sequence[float]) -> float:
    """The expected pay of the best play that does not know the secret; see `ExactPlay`.

    >>> optimal_value(["cat", "dog"], [1.0, 0.5])
    0.75
    """
    return ExactPlay(words, pays).value


def fewest_guesses(words: Sequence[str]) -> float:
    """The expected number of guesses of the play that needs the fewest.

    >>> fewest_guesses(["cat", "dog"])
    1.5
    """
    # No play needs more guesses than there are words.
    return len(words) - optimal_value(words, [len(words) - i for i in range(1, len(words) + 1)])


def is_sure(words: Sequence[str], guesses: int) -> bool:
    """Whether the best play finds every secret out of `words` in so many guesses."""
    return optimal_value(words, [1.0] * guesses) == 1.0


@lru_cache(maxsize=4096)
def best_play(words: tuple[str, ...], pays: tuple[float, ...]) -> ExactPlay:
    """The play with the greatest expected pay, and of those one with the fewest guesses.

    For pays that are equal or differ by 0.1 and more.
    """
    # All that could be saved by fewer guesses is less than one secret found too late costs.
    guess = 0.1 / (MAX_EXACT_WORDS * len(pays) + 1)
    return ExactPlay(words, [max(0.0, pay - i * guess) for i, pay in enumerate(pays)])


def good_guess(words: tuple[str, ...], history: Mapping[str, str]) -> str:
    """A good next guess for a list of any length: that with the most different marks to come.

    Ties go to what may be the secret, and then to the first in the list.
    """
    return _good_guess(words, tuple(history.items()))


@lru_cache(maxsize=4096)
def _good_guess(words: tuple[str, ...], history: tuple[tuple[str, str], ...]) -> str:
    left = [w for w in words if all(marks(guess, w) == seen for guess, seen in history)]
    if len(left) < 3:
        return (left or words)[0]
    return max(words, key=lambda guess: (len({marks(guess, w) for w in left}), guess in left))


# The lists of a level share their words, so the same pairs come again and again.
_known_marks = lru_cache(maxsize=1 << 15)(marks)


def _split(guess: str, words: Sequence[str]) -> dict[str, int]:
    """The secrets other than `guess`, as bits, by the mark they give it."""
    groups: dict[str, int] = {}
    for i, word in enumerate(words):
        if word != guess:
            mark = _known_marks(guess, word)
            groups[mark] = groups.get(mark, 0) | 1 << i
    return groups
