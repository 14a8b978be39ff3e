"""`ActionMask`: which tokens are allowed when."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from textgym.envs.arguments import non_negative_int, token_ids
from textgym.tokenization import Tokenizer


class ActionMask:
    """Allows every token but banned ones, and end-of-sequence only after `min_new_tokens`.

    Args:
        tokenizer: names the tokens.
        min_new_tokens: tokens of its own that an episode must hold before end-of-sequence.
        banned_tokens: ids, or tokens as the vocabulary spells them.

    Raises:
        ValueError: where that leaves no token to choose.
    """

    def __init__(
        self, tokenizer: Tokenizer, min_new_tokens: int, banned_tokens: Iterable[int | str]
    ) -> None:
        self.min_new_tokens = non_negative_int("min_new_tokens", min_new_tokens)
        self._eos = tokenizer.eos_token_id
        self._allowed = np.ones(tokenizer.vocab_size, np.bool_)
        self._allowed[token_ids("banned_tokens", banned_tokens, tokenizer)] = False
        self.applies = self.min_new_tokens > 0 or not bool(self._allowed.all())
        if not (np.delete(self._allowed, self._eos).any() or self._always_eos):
            raise ValueError("`banned_tokens` leaves no token to choose. Ban fewer.")

    @property
    def _always_eos(self) -> bool:
        return self.min_new_tokens == 0 and bool(self._allowed[self._eos])

    def table(self, generated: NDArray[np.int64]) -> NDArray[np.bool_]:
        """`[B, V] bool`, True where a token is allowed.

        Args:
            generated: `[B] int64`, the tokens of its own that each row holds.
        """
        table = np.tile(self._allowed, (len(generated), 1))
        table[generated < self.min_new_tokens, self._eos] = False
        return table

    def check(
        self,
        rows: NDArray[np.int64],
        tokens: NDArray[np.integer],
        generated: Callable[[], NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """Return `tokens` as int64 if each is a token id that its row may choose.

        Args:
            rows: `[N] int64`, the rows that act.
            tokens: `[N]` of any integer dtype, their actions.
            generated: gives `[B] int64`, the tokens of its own that each row holds.

        Raises:
            ValueError: naming the first that is not.
        """
        size = self._allowed.size
        # As unsigned numbers, negative ids are huge: one comparison finds both kinds.
        faulty = tokens.astype(np.uint64) >= size
        if faulty.any():
            i = int(np.argmax(faulty))
            raise ValueError(
                f"action {tokens[i]} of row {rows[i]} is not a token id: expected 0 <= action < "
                f"{size}, the tokenizer's V. Nothing has changed."
            )
        ids = tokens.astype(np.int64)
        if self.applies:
            early = generated()[rows] < self.min_new_tokens
            faulty = ~self._allowed[ids] | (early & (ids == self._eos))
            if faulty.any():
                i = int(np.argmax(faulty))
                raise ValueError(
                    f"action {tokens[i]} of row {rows[i]} is masked (of V = {size} tokens): choose "
                    "one that `action_masks()` allows. Nothing has changed."
                )
        return ids
