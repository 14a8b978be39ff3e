"""The action space of a token environment: `Discrete`, plus which tokenizer the ids belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete


class TokenSpace(Discrete):
    """`Discrete(V)` over the ids of one tokenizer.

    Any library takes it for the `Discrete` it is. A language-model policy also reads from it that
    its own tokenizer is the one the environment uses.

    Args:
        n: the number of tokens V.
        tokenizer_hash: `Tokenizer.hash` of the tokenizer the ids belong to.
        eos_token_id: the token that ends a turn.
        max_turns: the most turns an episode can have.
        seed: as in `Discrete`.
    """

    def __init__(
        self,
        n: int,
        *,
        tokenizer_hash: str,
        eos_token_id: int,
        max_turns: int = 1,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(n, seed=seed)
        self.tokenizer_hash = tokenizer_hash
        self.eos_token_id = eos_token_id
        self.max_turns = max_turns

    def __eq__(self, other: Any) -> bool:
        return super().__eq__(other) and (
            getattr(other, "tokenizer_hash", self.tokenizer_hash) == self.tokenizer_hash
        )

    __hash__ = None  # type: ignore[assignment]  # as in Discrete: compared by value, mutable RNG
