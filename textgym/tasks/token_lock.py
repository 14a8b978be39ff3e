"""`TokenLockTask`: open a lock, a small automaton over a few tokens of which all is known."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar, Literal, get_args

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers

from textgym.episode import Episode, Instance
from textgym.errors import check_positive_int, near_matches
from textgym.seeding import SPLITS, Split, split_of
from textgym.tasks.base import TextTask, TokenCounter, check_level
from textgym.tokenization import Tokenizer

RewardVariant = Literal["sparse", "dense", "delayed", "shaped"]
VARIANTS: tuple[RewardVariant, ...] = get_args(RewardVariant)

EOS = "<eos>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Vocabulary, keys, pins and budget of each level.
LEVELS = ((8, 4, 4, 7), (12, 6, 5, 10), (16, 8, 6, 13))
# Prompts are long enough that there are at least this many.
_MIN_PROMPTS = 1_000_000
# Up to this many prompts can be listed.
_MAX_LISTED = 4096

# What a lock remembers: the state it is in, and how many pins were set in each of the moments
# before, as many as a delayed reward looks back.
Memory = tuple[int, ...]


class TokenLockTask(TextTask):
    """Open a lock by writing the letters of its key: a Markov decision process solved exactly.

    ## Description
    The vocabulary is end-of-sequence and a few letters. The lock takes `keys` keys, each of `pins`
    letters, and the last letter of the prompt says for which of them it is set:

    > g c a e b d f a

    The right letter sets the next pin. Any other drops at least one pin, and may set the lock for
    another key: to which state it goes is drawn by `lock_seed`. The agent is to stop when all pins
    are set, which takes at least ``pins + 1`` tokens; slips can be made good while tokens are left.
    A state is a key and a number of pins set, so that there are ``keys * (pins + 1)``, and with
    `textgym.exact` optimal values, advantages and KL-regularised optima are computed, not
    estimated.

    ## Rewards
    The score is half the square of the share of pins that are set at the end, and another half if
    the agent stopped with all of them set. Every variant of `reward` pays that in total, whatever
    is written, and so all have the same optimum (`shaped`: where the agent discounts by `gamma`):

    - ``"sparse"``: all on the last step.
    - ``"dense"``: at every step, what the score would be has grown by.
    - ``"delayed"``: the same, but `delay` tokens later; what is owed is settled on the last step.
    - ``"shaped"``: the sparse reward plus ``gamma * p(s') - p(s)``, where p is the share of pins
      set, and 0 when the episode has ended (Ng et al. 1999).

    A text of more than `max_new_tokens` letters jams the lock and scores 0; what is no letter of
    the lock drops all pins.

    ## Episode End
    When the agent writes the end-of-sequence token or has spent `max_new_tokens`.

    ## Arguments
    Args:
        level: 1 to 3: sets what is not given of the next four.
        vocab_size: V, tokens, end-of-sequence included: 3 to 27.
        keys: the lock's keys, at most one a letter.
        pins: the letters of a key.
        max_new_tokens: the budget, at least ``pins + 1``.
        reward: ``"sparse"``, ``"dense"``, ``"delayed"`` or ``"shaped"``.
        delay: tokens by which ``"delayed"`` delays.
        gamma: the agent's own discount, for ``"shaped"``.
        lock_seed: draws the keys and where wrong letters lead.
        prompt_length: letters in a prompt; by default as many as give a million prompts. With few
            prompts (see `prompts`) each of them can be solved.

    ## Version History
    - v0: first version.

    Example:
        >>> task = TokenLockTask()
        >>> instance = task.from_prompt("g c a e b d f a")
        >>> task.score_text(instance, task.solve(instance))
        1.0
        >>> task.score_text(instance, "")
        0.0
    """

    levels: ClassVar[int] = len(LEVELS)
    metric_names = ("pins", "opened")

    def __init__(
        self,
        level: int = 1,
        *,
        vocab_size: int | None = None,
        keys: int | None = None,
        pins: int | None = None,
        max_new_tokens: int | None = None,
        reward: RewardVariant = "sparse",
        delay: int = 3,
        gamma: float = 1.0,
        lock_seed: int = 0,
        prompt_length: int | None = None,
    ) -> None:
        self.level = check_level(self, level)
        given = (vocab_size, keys, pins, max_new_tokens)
        names = ("vocab_size", "keys", "pins", "max_new_tokens")
        sizes = [
            default if value is None else check_positive_int(name, value)
            for name, value, default in zip(names, given, LEVELS[self.level - 1], strict=True)
        ]
        self.vocab_size, self.keys, self.pins, self.max_new_tokens = sizes
        _check_sizes(*sizes)
        if reward not in VARIANTS:
            raise ValueError(f"unknown `reward` {reward!r}; {near_matches(str(reward), VARIANTS)}")
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"`gamma` must be above 0 and at most 1, got {gamma!r}.")
        self.reward: RewardVariant = reward
        self.dense = reward != "sparse"
        self.delay = check_positive_int("delay", delay) if reward == "delayed" else 0
        self.gamma = float(gamma)
        self.lock_seed = lock_seed
        self.letters = LETTERS[: self.vocab_size - 1]
        fewest = math.ceil(math.log(_MIN_PROMPTS) / math.log(len(self.letters)))
        self.prompt_length = (
            fewest if prompt_length is None else check_positive_int("prompt_length", prompt_length)
        )
        self.tokenizer = lock_tokenizer(self.vocab_size)
        self.transitions, self.right = draw_lock(lock_seed, len(self.letters), self.keys, self.pins)
        self._moves: list[list[int]] = self.transitions.tolist()

    # ------------------------------------------------------------------ prompts
    def sample(self, rng: np.random.Generator) -> Instance:
        """Draw an instance: every letter of the prompt independently."""
        drawn = rng.integers(len(self.letters), size=self.prompt_length)
        return Instance(" ".join([self.letters[i] for i in drawn.tolist()]))

    def draw(self, rng: np.random.Generator, split: Split) -> Instance:
        """Draw an instance of `split`; where there are few prompts, one of `prompts(split)`."""
        if len(self.letters) ** self.prompt_length > _MAX_LISTED:
            return super().draw(rng, split)
        prompts = self.prompts(split)
        return prompts[int(rng.integers(len(prompts)))]

    def prompts(self, split: Split) -> tuple[Instance, ...]:
        """Every instance of `split`, all equally likely.

        Where one of the splits would be empty, both have all of them.

        Raises:
            ValueError: there are more than 4,096.
        """
        count = len(self.letters) ** self.prompt_length
        if count > _MAX_LISTED:
            raise ValueError(
                f"this lock has {count:,} prompts, too many to list (at most {_MAX_LISTED:,}). "
                f"Make it with a smaller `prompt_length` than {self.prompt_length}."
            )
        return _listed(self.letters, self.prompt_length)[split]

    def from_prompt(self, prompt: str) -> Instance:
        """The instance that `prompt` asks for.

        Raises:
            ValueError: where `prompt` is not `prompt_length` letters of this lock.
        """
        words = prompt.split()
        known = all(len(word) == 1 and word in self.letters for word in words)
        if not known or len(words) != self.prompt_length or " ".join(words) != prompt:
            raise ValueError(
                f"not a prompt of this lock: {prompt[:80]!r}. Expected {self.prompt_length} of the "
                f"letters {self.letters[0]} to {self.letters[-1]}, with spaces between."
            )
        return Instance(prompt)

    def prompt_bound(self, count_tokens: TokenCounter) -> int:
        """An upper bound on the tokens of any prompt: its letters meet at spaces."""
        alone = max(map(count_tokens, self.letters))
        more = max(count_tokens(f"{x} {x}") - count_tokens(x) for x in self.letters)
        return alone + (self.prompt_length - 1) * more

    # ------------------------------------------------------------------ the lock
    def start(self, instance: Instance) -> int:
        """The state the lock is in at the beginning: no pin set."""
        last = instance.prompt[-1:]
        if not last or last not in self.letters:
            self.from_prompt(instance.prompt)  # says what is wrong
        return self.letters.index(last) % self.keys * (self.pins + 1)

    def pins_of(self, state: int) -> int:
        """How many pins are set in `state`."""
        return state % (self.pins + 1)

    def begin(self, start: int) -> Memory:
        """What the lock remembers when it begins in state `start`."""
        return (start, *[self.pins_of(start)] * self.delay)

    def step(self, memory: Memory, letter: int | None, last: bool) -> tuple[Memory, float, bool]:
        """Take one token.

        Args:
            memory: what the lock remembers.
            letter: index of a letter, -1 for something else, None for the end of the text.
            last: whether this spends the budget.

        Returns:
            What it remembers then, what the step pays, and whether it ends the episode.
        """
        state, *past = memory
        if letter is None:
            after = state
        elif letter < 0:
            after = state - self.pins_of(state)
        else:
            after = self._moves[state][letter]
        ended = last or letter is None
        score = self._final(self.pins_of(after), stopped=letter is None) if ended else 0.0
        before, line = self.pins_of(state), [*past, self.pins_of(state), self.pins_of(after)]
        if self.reward == "sparse":
            pays = score
        elif self.reward == "shaped":
            potential = 0.0 if ended else self.pins_of(after) / self.pins
            pays = score + self.gamma * potential - before / self.pins
        else:  # what was paid before is what the first of `line` is worth
            pays = (score if ended else self._worth(line[1])) - self._worth(line[0])
        return (after, *line[1:-1]), pays, ended

    def _worth(self, pins: int) -> float:
        return (pins / self.pins) ** 2 / 2

    def _final(self, pins: int, *, stopped: bool) -> float:
        return self._worth(pins) + (0.5 if stopped and pins == self.pins else 0.0)

    # ------------------------------------------------------------------ scoring
    def score_text(self, instance: Instance, completion: str, *, ended: bool = True) -> float:
        """The score of `completion` as it would be if the agent wrote it.

        Args:
            instance: what was asked for.
            completion: any text.
            ended: whether the agent ended the text itself.
        """
        pins = self._pins_at_end(instance, completion)
        return 0.0 if pins is None else self._final(pins, stopped=ended)

    def metrics(self, episode: Episode) -> Mapping[str, float]:
        """`pins`: those set at the end; `opened`: 1.0 if that is all and the agent stopped."""
        pins = self._pins_at_end(episode.instance, episode.completion_text) or 0
        opened = pins == self.pins and episode.finish_reason == "stop"
        return {"pins": float(pins), "opened": float(opened)}

    def token_rewards(self, episodes: Sequence[Episode]) -> list[NDArray[np.float32]]:
        """One `[N] float32` an episode: what each token so far has been paid."""
        return [self._token_rewards(episode) for episode in episodes]

    def _token_rewards(self, episode: Episode) -> NDArray[np.float32]:
        rewards = np.zeros(int(episode.completion_mask.sum()), np.float32)
        letters: list[int | None] = [*self._read(episode.completion_text)]
        reason = episode.finish_reason
        if len(letters) > self.max_new_tokens:
            return rewards  # jammed: 0 in all
        if reason == "stop":
            letters.append(None)
        memory, paid = self.begin(self.start(episode.instance)), []
        for i, letter in enumerate(letters, 1):
            memory, pays, _ = self.step(memory, letter, reason == "length" and i == len(letters))
            paid.append(pays)
        if len(paid) == len(rewards):
            rewards[:] = paid
        else:  # another tokenizer than the lock's own, whose tokens are not letters
            rewards[-1] = sum(paid)
        return rewards

    def _pins_at_end(self, instance: Instance, completion: str) -> int | None:
        """The pins set by `completion`; None where it jams the lock."""
        letters = self._read(completion)
        if len(letters) > self.max_new_tokens:
            return None
        state = self.start(instance)
        for letter in letters:
            state = self._moves[state][letter] if letter >= 0 else state - self.pins_of(state)
        return self.pins_of(state)

    def _read(self, text: str) -> list[int]:
        """The letters of `text` by index, -1 for other words; no more than show that it jams."""
        words = text.split(None, self.max_new_tokens)
        return [self.letters.find(word) if len(word) == 1 else -1 for word in words]

    # ------------------------------------------------------------------ the oracle
    def solve(self, instance: Instance) -> str:
        """A completion that opens the lock: the key, now and then after a slip made good."""
        rng = np.random.default_rng(zlib.crc32(instance.prompt.encode()))
        state, left, written = self.start(instance), self.max_new_tokens, []
        while self.pins_of(state) < self.pins:
            letter = int(self.right[state])
            if rng.random() < 0.1:
                other = int(rng.integers(len(self.letters)))
                wanting = self.pins - self.pins_of(self._moves[state][other])
                if wanting + 1 < left:
                    letter = other
            state, left = self._moves[state][letter], left - 1
            written.append(" " + self.letters[letter])
        return "".join(written)


def draw_lock(
    seed: int, letters: int, keys: int, pins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The automaton of a lock.

    State ``key * (pins + 1) + p`` is the lock set for `key` with p pins set.

    Args:
        seed: draws it.
        letters: L, how many letters there are.
        keys: how many keys; their first letters differ.
        pins: the letters of a key; no two neighbours are the same, so that writing one letter
            over and over sets one pin at most.

    Returns:
        ``[S, L] int64``, the state that each letter leads to, and ``[S] int64``, the right letter,
        -1 where all pins are set.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, letters, keys, pins)))
    states = keys * (pins + 1)
    transitions = np.zeros((states, letters), np.int64)
    right = np.full(states, -1, np.int64)
    firsts = rng.permutation(letters)
    for state in range(states):
        key, set_pins = divmod(state, pins + 1)
        to_key = rng.integers(keys, size=letters)
        kept = rng.integers(max(set_pins, 1), size=letters)  # fewer than are set
        transitions[state] = to_key * (pins + 1) + kept
        if set_pins < pins:
            step = 1 + int(rng.integers(letters - 1))
            letter = int(firsts[key]) if set_pins == 0 else (right[state - 1] + step) % letters
            right[state] = letter
            transitions[state, letter] = state + 1
    for array in (transitions, right):
        array.flags.writeable = False
    return transitions, right


@lru_cache(maxsize=32)
def lock_tokenizer(vocab_size: int) -> Tokenizer:
    """The tokenizer of a lock: id 0 ends the text, the others are its letters in order."""
    words = (EOS, *LETTERS[: vocab_size - 1])
    # Every text must have ids: what is no letter reads as the last one. No prompt has such.
    backend = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[-1])
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([EOS])
    return Tokenizer(backend, eos_token=EOS, name=f"letters {words[1]} to {words[-1]}")


@lru_cache(maxsize=32)
def _listed(letters: str, length: int) -> dict[Split, tuple[Instance, ...]]:
    everything = [Instance(" ".join(p)) for p in itertools.product(letters, repeat=length)]
    parts: dict[Split, tuple[Instance, ...]] = {
        split: tuple(i for i in everything if split_of(i.prompt) == split) for split in SPLITS
    }
    return parts if all(parts.values()) else dict.fromkeys(SPLITS, tuple(everything))


def _check_sizes(vocab_size: int, keys: int, pins: int, budget: int) -> None:
    if not 3 <= vocab_size <= len(LETTERS) + 1:
        raise ValueError(
            f"`vocab_size` must be 3 to {len(LETTERS) + 1} (end-of-sequence and letters), "
            f"got {vocab_size}."
        )
    if keys >= vocab_size:
        raise ValueError(
            f"`keys` must be at most {vocab_size - 1}, one a letter, got {keys}. "
            "Use fewer, or a greater `vocab_size`."
        )
    if budget <= pins:
        raise ValueError(
            f"`max_new_tokens` must be at least {pins + 1}, to set {pins} pins and stop, "
            f"got {budget}. Use fewer `pins` or a greater budget."
        )
