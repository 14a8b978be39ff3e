"""`HTTP`: a reward that a service of your own gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgym.episode import Episode
from textgym.errors import check_positive_int
from textgym.rewards.service.service_reward import ServiceReward, number, plain
from textgym.rewards.service.session import Failure
from textgym.rewards.service.settings import ServiceSettings


class HTTP(ServiceReward):
    """What a service says of each episode, in answer to a JSON request.

    The request is ``{"episodes": [EPISODE, ...]}``, where an EPISODE is ``{"prompt": "...",
    "completion": "...", "target": "..." or null, "finish_reason": "stop" | "length" | "task"}``;
    the answer is ``{"rewards": [0.5, ...]}``, one number an episode. With `batched` false it is
    EPISODE and ``{"reward": 0.5}``. What maximises the reward is up to the service; it should
    judge an episode by itself, whatever others are in the batch, and always alike: rewards are
    cached one by one.

    Episodes whose reward does not come or is no number from `low` to `high` are paid `fallback`,
    and a warning says which URL gave what. While the service is down only every `cool_down`
    seconds a request is tried (see `ServiceSettings.give_up_after`), so training goes on without
    it: watch the figure ``failures``. Written as a specification: ``http:URL,low=0,high=1``; see
    `service.service_reward.url_and_arguments` for commas in URLs.

    Args:
        url: where to post to.
        low: the least reward that is taken.
        high: the greatest.
        field: where the reward is in the answer: a key, or a JSON pointer such as
            ``/data/0/score``. ``"rewards"`` by default, or ``"reward"`` if not `batched`.
        batched: whether a request holds many episodes.
        batch_size: how many at most.
        max_chars: how many characters are sent of a prompt, a completion or a target. What comes
            after is not judged, so a completion can hide things there.
        fallback: what an episode is paid that could not be judged; `low` by default. Paying more
            than a bad completion gets would reward whatever breaks the service.
        key_env, concurrency, request_timeout, deadline, retries, rate, cool_down, cache, version:
            see `ServiceSettings`; times in seconds.
        name: its name in `info["rewards"]`.

    Raises:
        ValueError: for arguments that make no sense.
        ImportError: without httpx.

    Example:
        >>> reward = HTTP.from_arguments("http://localhost:8000/judge?model=a,low=-1,rate=20")
        >>> reward.client.settings.url, reward.range, reward.fallback
        ('http://localhost:8000/judge?model=a', (-1.0, 1.0), -1.0)
    """

    def __init__(
        self,
        url: str,
        *,
        low: float = 0.0,
        high: float = 1.0,
        field: str | None = None,
        batched: bool = True,
        batch_size: int = 32,
        max_chars: int = 100_000,
        fallback: float | None = None,
        key_env: str | None = None,
        concurrency: int = 8,
        request_timeout: float = 30.0,
        deadline: float = 120.0,
        retries: int = 3,
        rate: float | None = None,
        cool_down: float = 60.0,
        cache: str | Path | None = None,
        version: str = "",
        name: str = "http",
    ) -> None:
        settings = ServiceSettings(
            url,
            key_env=key_env,
            concurrency=concurrency,
            request_timeout=request_timeout,
            deadline=deadline,
            retries=retries,
            rate=rate,
            cool_down=cool_down,
            cache=cache,
            version=version,
        )
        super().__init__(settings, low, high, fallback=fallback, name=name)
        self.batched = batched
        self.batch_size = check_positive_int("batch_size", batch_size)
        self.max_chars = check_positive_int("max_chars", max_chars)
        self.field = field if field is not None else ("rewards" if batched else "reward")

    def __call__(self, episodes: Sequence[Episode]) -> NDArray[np.float32]:
        """`[B] float32`, in the range."""
        items = [self._item(episode) for episode in episodes]
        answers = self.client.post(
            items,
            pack=self._pack,
            read=self._read,
            size=self.batch_size if self.batched else 1,
            tags=[self.field] * len(items),
        )
        return self.paid(episodes, answers)

    def _item(self, episode: Episode) -> dict[str, str | None]:
        target = episode.instance.target
        return {
            "prompt": plain(episode.prompt, self.max_chars),
            "completion": plain(episode.completion_text, self.max_chars),
            "target": None if target is None else plain(target, self.max_chars),
            "finish_reason": episode.finish_reason,
        }

    def _pack(self, items: list[Any]) -> Any:
        return {"episodes": items} if self.batched else items[0]

    def _read(self, answer: Any, count: int) -> list[float | Failure]:
        found = at_pointer(answer, self.field)
        values = found if self.batched else [found]
        if not isinstance(values, list) or len(values) != count:
            got = f"a list of {len(values)}" if isinstance(values, list) else type(values).__name__
            raise ValueError(f"expected a list of {count} rewards at {self.field!r}, got {got}")
        return [number(value, self.low, self.high) for value in values]


def at_pointer(value: Any, pointer: str) -> Any:
    """What is in a JSON value at a key, or at a JSON pointer (RFC 6901).

    Raises:
        ValueError: where nothing is.

    Example:
        >>> at_pointer({"data": [{"a/b": 3}]}, "/data/0/a~1b"), at_pointer({"a": 1}, "a")
        (3, 1)
    """
    steps = pointer.split("/")[1:] if pointer.startswith("/") else [pointer] if pointer else []
    for step in steps:
        step = step.replace("~1", "/").replace("~0", "~") if pointer.startswith("/") else step
        try:
            if not isinstance(value, dict | list):
                raise TypeError
            value = value[step] if isinstance(value, dict) else value[_index(step)]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"nothing at {pointer!r}") from None
    return value


def _index(step: str) -> int:
    if not (step.isascii() and step.isdigit()):
        raise ValueError("not an index")
    return int(step)
