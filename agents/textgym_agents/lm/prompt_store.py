"""`PromptStore`: what a model made of contexts that come again and again."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

# Contexts remembered as having come once.
_MOST_SEEN = 100_000

# Keys and values `[H, T, D]` of each layer, and the last hidden state `[d]`.
Known = tuple[list[tuple[Tensor, Tensor]], Tensor]


def tokens_of(known: Known) -> int:
    """How many tokens were read."""
    return known[0][0][0].shape[1]


class PromptStore:
    """Keys and values of contexts that came more than once, the last used ones.

    Args:
        most_tokens: of all contexts kept, together.
    """

    def __init__(self, most_tokens: int = 16_384) -> None:
        self.most_tokens = most_tokens
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._tokens = 0
        self._seen: set[int] = set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def __getitem__(self, key: bytes) -> Known:
        self._known.move_to_end(key)
        return self._known[key]

    def comes_again(self, key: bytes) -> bool:
        """Whether the context has come before; from now on it has."""
        if hash(key) in self._seen:
            return True
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen.add(hash(key))
        return False

    def keep(self, key: bytes, known: Known) -> None:
        """Keep `known`, in place of what was used longest ago."""
        self._known[key] = known
        self._tokens += tokens_of(known)
        while self._tokens > self.most_tokens:
            self._tokens -= tokens_of(self._known.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget them, for the weights have changed."""
        self._known.clear()
        self._tokens = 0
