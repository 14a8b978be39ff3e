"""`ServiceReward`: what rewards have in common that a service gives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import near_matches
from textgym.rewards.arguments import parse_arguments
from textgym.rewards.fallible import Fallible
from textgym.rewards.service.http_client import JSONClient
from textgym.rewards.service.session import Failure
from textgym.rewards.service.settings import ServiceSettings

_GREATEST = float(np.finfo(np.float32).max)


class ServiceReward(Fallible):
    """A reward that a service gives, from `low` to `high`; `fallback` where it fails.

    Args:
        settings: where the service is, and how hard it may be asked.
        low: the least it can give.
        high: the greatest.
        fallback: what an episode is paid that could not be judged; `low` by default.
        name: its name in `info["rewards"]`.
    """

    thread_safe = True  # all that its calls share is the client, which is made for it

    def __init__(
        self,
        settings: ServiceSettings,
        low: float,
        high: float,
        *,
        fallback: float | None,
        name: str,
    ) -> None:
        if not (-_GREATEST <= low < high <= _GREATEST):
            raise ValueError(
                f"`low` must be below `high`, both finite float32, got low={low}, high={high}."
            )
        self.low, self.high = float(low), float(high)
        self.fallback = self.low if fallback is None else float(fallback)
        if not abs(self.fallback) <= _GREATEST:
            raise ValueError(f"`fallback` must be a finite number, got {fallback}.")
        bounds = [self.low, self.high, self.fallback]
        rounded = [float(np.float32(bound)) for bound in bounds]
        self.range = (min(bounds + rounded), max(bounds + rounded))
        self.name = name
        self.client = JSONClient(settings)

    @classmethod
    def from_arguments(cls, text: str) -> Self:
        """``URL,key=value,...``, see `url_and_arguments`."""
        return cls(**url_and_arguments(cls, text))

    def paid(self, episodes: Sequence[Episode], answers: Sequence[Any]) -> NDArray[np.float32]:
        """`[B] float32`: each answer if it is a number in the range, otherwise the fallback."""
        values = np.empty(len(episodes), np.float32)
        # Cached numbers are checked again: they may be from when the range was another.
        for i, (episode, answer) in enumerate(zip(episodes, answers, strict=True)):
            value = answer if isinstance(answer, Failure) else number(answer, self.low, self.high)
            values[i] = self.failed(episode, value.reason) if isinstance(value, Failure) else value
        return values

    def figures(self) -> dict[str, float]:
        """Failures, requests made, and episodes answered by the cache."""
        counts = {"requests": self.client.requests, "cache_hits": self.client.cache_hits}
        return super().figures() | {key: float(count) for key, count in counts.items()}

    def close(self) -> None:
        """Close the connections to the service; they are opened anew where needed again."""
        self.client.close()


def number(raw: Any, low: float, high: float) -> float | Failure:
    """`raw`, a JSON value, as a number from `low` to `high`.

    >>> number(1, 0.0, 2.0), number(float("nan"), 0.0, 2.0).reason
    (1.0, 'expected a number from 0 to 2, got nan')
    """
    try:
        if isinstance(raw, int | float) and not isinstance(raw, bool):
            value = float(raw)
            if math.isfinite(value) and low <= value <= high:
                return value
    except OverflowError:
        raw = "a huge int"
    got = repr(raw)
    got = got if len(got) <= 60 else got[:57] + "..."
    return Failure(f"expected a number from {low:g} to {high:g}, got {got}")


def plain(text: str, limit: int) -> str:
    """The first `limit` characters of `text`, as strict JSON parsers take them.

    Halves of surrogate pairs, which have no UTF-8, become U+FFFD.

    >>> plain("fox \\ud83d!", 5) == "fox \\ufffd"
    True
    """
    return text[:limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def url_and_arguments(kind: type, text: str) -> dict[str, Any]:
    """Arguments of a constructor that begins with `url`, from ``URL,key=value,...``.

    A URL may have colons, equals signs and, in its query, commas. So the text is read from its
    end: the URL ends before the last run of items that are ``key=value`` with a parameter's name
    as key. A comma in a URL's path, or a query that itself ends like an argument (``?x=1,low=2``),
    must be written ``%2C``; a star, a semicolon or a parenthesis ``%2A``, ``%3B``, ``%28``,
    ``%29``, since these have meanings in specifications.

    Raises:
        ValueError: where there is no URL, or an argument that is unknown or does not fit.

    Example:
        >>> def score(url: str, *, low: float = 0.0): ...
        >>> url_and_arguments(score, "http://localhost:80/s?a=1,2&b=3,low=-1")
        {'url': 'http://localhost:80/s?a=1,2&b=3', 'low': -1.0}
    """
    names = [name for name in inspect.signature(kind).parameters if name != "url"]
    items = text.strip().removeprefix("url=").split(",")
    end = len(items)
    while end > 1 and "=" in items[end - 1] and _key(items[end - 1]) in names:
        end -= 1
    url = ",".join(items[:end]).strip()
    if not url:
        raise ValueError("it needs a URL first: `URL,key=value`.")
    if "," in url.partition("?")[0]:
        item = items[end - 1].strip()
        problem = (
            f"unknown argument {_key(item)!r}; {near_matches(_key(item), names)}."
            if "=" in item
            else f"{item!r} is not `key=value`."
        )
        raise ValueError(
            f"{problem} (A comma of the URL itself is written %2C; values cannot have one.)"
        )
    # The URL is put in afterwards, as its commas are data.
    return parse_arguments(kind, ",".join(["url=-", *items[end:]])) | {"url": url}


def _key(item: str) -> str:
    return item.partition("=")[0].strip()
