"""`Session`: the connections to a service, on an event loop in a thread of their own."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from textgym.rewards.service.limits import Breaker, TokenBucket
from textgym.rewards.service.settings import ServiceSettings

if TYPE_CHECKING:
    import httpx

# A longer pause than this is not believed.
_LONGEST_PAUSE = 3600.0


@dataclass(frozen=True)
class Answer:
    """A status of 2xx, and the bytes that came with it."""

    status: int
    data: bytes


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, or none that can be used."""

    reason: str


class _Problem(Exception):
    """A try that failed: why, whether another may do, after how many seconds at least."""

    def __init__(self, reason: str, *, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait = reason, again, wait


class _UnsentError(Exception):
    """A request that would be of no use: why."""


class Session:
    """Sends requests, as fast as the settings allow.

    The loop is its own, since the caller's thread may be running one already, as notebooks do.

    Args:
        settings: where to, and how hard.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.bucket = TokenBucket(settings.rate)
        self.breaker = Breaker(settings.give_up_after, settings.cool_down)
        self.pid = os.getpid()
        self._key = ""
        self._rng = np.random.default_rng(settings.seed)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._http: httpx.AsyncClient | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="textgym-service", daemon=True
        )
        self._thread.start()

    def send(self, bodies: Sequence[bytes], key: str) -> list[Answer | Failure]:
        """Post each of `bodies`; what came, in their order. Waits, from any thread but its own."""
        self._key = key
        work = asyncio.run_coroutine_threadsafe(self._send_all(bodies), self._loop)
        try:
            return work.result()
        except BaseException:  # a deadline's signal, or the user's: nobody waits any more
            work.cancel()
            raise

    def close(self) -> None:
        """Close the connections and end the thread."""
        # In a forked process there is no such thread, and the sockets are the parent's.
        if self.pid != os.getpid() or self._loop.is_closed():
            return
        if threading.current_thread() is self._thread:  # by the garbage collector
            self._loop.stop()
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    # ------------------------------------------------------------------ in the loop's thread
    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    async def _send_all(self, bodies: Sequence[bytes]) -> list[Answer | Failure]:
        if self._http is None:
            import httpx

            # Time is kept by `_try`, as httpx would allow it for each packet anew. Redirects are
            # not followed: the key is for this server.
            limits = httpx.Limits(max_connections=self.settings.concurrency)
            self._http = httpx.AsyncClient(timeout=None, limits=limits, verify=_certificates())
        end = time.monotonic() + self.settings.deadline
        return list(await asyncio.gather(*(self._ask(body, end) for body in bodies)))

    async def _ask(self, body: bytes, end: float) -> Answer | Failure:
        """One request with its retries."""
        tries = 1 if self.breaker.probing else self.settings.retries + 1
        failed = ""
        for number in range(1, tries + 1):
            try:
                async with self._slots:
                    await self._turn(end)
                    return await self._try(body, end)
            except _UnsentError as problem:
                if failed:
                    break
                return Failure(str(problem))
            except _Problem as problem:
                if not problem.again:
                    return Failure(problem.reason)
                failed = problem.reason + (f" (try {number})" if number > 1 else "")
                wait = self.settings.backoff * 2.0 ** (number - 1) * self._rng.uniform(0.5, 1.0)
                if problem.wait:
                    self.bucket.pause(time.monotonic() + problem.wait)
                    wait = max(wait, problem.wait)
            if number == tries or time.monotonic() + wait >= end:
                break
            await asyncio.sleep(wait)
        self.breaker.failed(time.monotonic(), failed)
        return Failure(failed)

    async def _turn(self, end: float) -> None:
        """Wait for what the rate, the service's pauses and the breaker allow."""
        delay = self.bucket.delay(time.monotonic())
        self._check(end, delay)
        self.bucket.take(time.monotonic())
        while delay > 0:
            await asyncio.sleep(delay)
            # The service may have asked for a pause, or gone, in the meantime.
            delay = self.bucket.paused_until - time.monotonic()
            self._check(end, max(delay, 0.0))

    def _check(self, end: float, delay: float) -> None:
        """Raise where a request that goes after `delay` would be of no use."""
        now = time.monotonic()
        closed = self.breaker.closed_for(now)
        if closed > 0:
            raise _UnsentError(
                f"{self.settings.where} was not asked, nor will be for {closed:.3g} s, since too "
                f"many requests in a row failed, the last because {self.breaker.last}"
            )
        if now + delay >= end:
            paused = self.bucket.paused_until > now
            cause = "the service asks for a pause" if paused else "others came first"
            raise _UnsentError(
                f"{self.settings.where} was not asked: {cause}, and the deadline of "
                f"{self.settings.deadline:g} s would have passed"
            )

    async def _try(self, body: bytes, end: float) -> Answer:
        import httpx

        where = self.settings.where
        seconds = min(self.settings.request_timeout, end - time.monotonic())
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    "POST", self.settings.url, content=body, headers=self._headers()
                ) as response,
            ):
                data = await self._read(response)
        except TimeoutError:
            reason = f"{where} did not answer within {seconds:.3g} s"
            raise _Problem(reason, again=True) from None
        except httpx.RequestError as error:
            told = self._hide(str(error).encode("utf-8", "replace")).decode()
            reason = f"{where} could not be reached: {type(error).__name__} {told}".strip()
            raise _Problem(reason, again=True) from None
        status = response.status_code
        again = status in (408, 429) or status >= 500
        if not again:
            self.breaker.succeeded()  # refusing at once costs no time
        if not 200 <= status < 300:
            wait = _retry_after(response.headers.get("Retry-After")) if again else 0.0
            reason = f"{where} answered {status} with {shown(data)}"
            raise _Problem(reason, again=again, wait=wait)
        return Answer(status, data)

    def _headers(self) -> dict[str, str]:
        # Not packed: bytes are counted as they come, and few packed ones may unfold to very many.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        return headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            raise RuntimeError("there is no connection yet")
        return self._http

    async def _read(self, response: httpx.Response) -> bytes:
        most, status = self.settings.max_bytes, response.status_code
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise _Problem(
                f"{self.settings.where} answered {status} packed as {encoding[:40]!r}, though "
                "asked not to"
            )
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > most:
                raise _Problem(
                    f"{self.settings.where} answered {status} with more than {most} bytes, the "
                    f"first of which are {shown(self._hide(bytes(data)))}"
                )
        return self._hide(bytes(data))

    def _hide(self, data: bytes) -> bytes:
        """`data` without the key, should the service have repeated it, as JSON or as it is."""
        key = self._key.encode()
        for form in (key, key.replace(b"/", b"\\/")) if key else ():
            data = data.replace(form, b"***")
        return data


@cache
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()  # slow to make


def shown(data: bytes) -> str:
    """The beginning of what came, for messages."""
    text = data[:1000].decode("utf-8", "replace")
    return repr(text if len(text) <= 200 else text[:197] + "...")


def _retry_after(value: str | None) -> float:
    """The seconds a ``Retry-After`` asks for, a number or a date; 0 where it says nothing."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            date = parsedate_to_datetime(value or "")
            date = date if date.tzinfo else date.replace(tzinfo=UTC)
            seconds = (date - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return min(seconds, _LONGEST_PAUSE) if seconds > 0 else 0.0
