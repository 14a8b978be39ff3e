"""`ServiceSettings`: where a service is, and how hard it may be asked."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from textgym.errors import check_positive_int


@dataclass(frozen=True)
class ServiceSettings:
    """Where a service is, and how hard it may be asked. All times are in seconds.

    Args:
        url: ``http://`` or ``https://``. Without a user and password: use `key_env`. Messages show
            it without its query.
        key_env: the name of an environment variable that holds an API key, sent as
            ``Authorization: Bearer KEY``. The key itself is read as requests are made, and kept
            nowhere: not in specs, pickles, messages or the cache.
        concurrency: the most requests under way at a time.
        request_timeout: what one request may take, the reading of its answer included.
        deadline: what all requests of one call may take together, tries and waits included.
        retries: how often a request is sent again after the statuses 408, 429 and 5xx, connection
            errors and timeouts.
        backoff: the wait before the first retry; it doubles with each, up to half of it is taken
            off at random. A ``Retry-After`` of the service's is honoured by all requests.
        rate: the most requests a second, retries included, by a token bucket that holds one
            token; None is no limit. Each process counts its own.
        give_up_after: after so many requests in a row have failed, retries included, none is sent
            during `cool_down`: they fail at once. After that each is sent once, without retries,
            and the first to fail begins another cool-down, the first to be answered ends them. A
            service that is down so costs training `request_timeout` each `cool_down`.
        cool_down: see `give_up_after`.
        max_bytes: the longest answer that is read.
        cache: a file to keep answers in, or None. Several processes may use it at once. It grows
            until you delete it.
        version: of the service, say: answers are kept apart by it in the cache.
        seed: of the random part of waits; None is a new one each time (so that processes do not
            all come back at once). Rewards do not depend on it.

    Raises:
        ValueError: for a value that makes no sense; it says which.
    """

    url: str
    key_env: str | None = None
    concurrency: int = 8
    request_timeout: float = 30.0
    deadline: float = 120.0
    retries: int = 3
    backoff: float = 0.5
    rate: float | None = None
    give_up_after: int = 5
    cool_down: float = 60.0
    max_bytes: int = 1_000_000
    cache: str | Path | None = None
    version: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_url(self.url)
        for name in ("concurrency", "give_up_after", "max_bytes"):
            check_positive_int(name, getattr(self, name))
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(f"`retries` must be an int of at least 0, got {self.retries!r}.")
        for name in ("request_timeout", "deadline", "backoff", "cool_down", "rate"):
            value = getattr(self, name)
            if value is None and name == "rate":
                continue
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a number above 0, got {value!r}.")
        if self.cache is not None and not Path(self.cache).expanduser().parent.is_dir():
            raise ValueError(f"`cache`: {self.cache} is in a folder that is not there. Make it.")
        self.key()

    def key(self) -> str:
        """The API key, "" without `key_env`.

        Raises:
            ValueError: where the environment has none that can be sent.
        """
        if self.key_env is None:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not re.fullmatch(r"[A-Za-z_]\w*", self.key_env) or not key:
            # Not quoted: it may be the key itself, given by mistake.
            raise ValueError(
                "`key_env` must be the name of an environment variable that is set, such as "
                "OPENAI_API_KEY, not the key itself. Set it, or correct the name."
            )
        if not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"the key in the environment variable {self.key_env} has characters that cannot "
                "be sent: it must be one line of ASCII."
            )
        return key

    @property
    def where(self) -> str:
        """The URL for messages: without its query, which may hold secrets.

        >>> ServiceSettings("http://localhost:8000/judge?token=secret").where
        'http://localhost:8000/judge'
        """
        return self.url.partition("?")[0].partition("#")[0]


def _check_url(url: str) -> None:
    expected = "expected `http://HOST/PATH` or `https://HOST/PATH`"
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        bad = parts is None or parts.scheme not in ("http", "https") or not parts.hostname
        bad = bad or parts is None or parts.port == 0  # raises for a port that is none
    except ValueError:
        parts, bad = None, True
    if parts is not None and "@" in parts.netloc:
        raise ValueError(f"`url`: {expected}, got one with a user or password. Use `key_env`.")
    if bad or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError(f"`url`: {expected}, got {url!r}.")
