"""How fast a service may be asked, and when to stop asking. Times are of a monotonic clock."""

from __future__ import annotations


class TokenBucket:
    """At most `rate` requests a second, and none while the service asks for a pause.

    Args:
        rate: requests a second; None is no limit.

    Example:
        >>> bucket = TokenBucket(2.0)
        >>> waits = []
        >>> for _ in range(3):
        ...     waits.append(bucket.delay(10.0))
        ...     bucket.take(10.0)
        >>> waits
        [0.0, 0.5, 1.0]
    """

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.paused_until = 0.0
        # Below 0 where tokens have been promised to requests that still wait for them.
        self._tokens, self._time = 1.0, 0.0

    def delay(self, now: float) -> float:
        """The seconds that a request which comes now has to wait."""
        wait = 0.0
        if self.rate is not None:
            wait = max(0.0, (1.0 - self._level(now)) / self.rate)
        return max(wait, self.paused_until - now)

    def take(self, now: float) -> None:
        """Promise a token to a request that will wait for `delay`."""
        self._tokens, self._time = self._level(now) - 1.0, now

    def pause(self, until: float) -> None:
        """Let no request go before `until`."""
        self.paused_until = max(self.paused_until, until)

    def _level(self, now: float) -> float:
        return min(1.0, self._tokens + (now - self._time) * (self.rate or 0.0))


class Breaker:
    """Stops requests for a while after many in a row have failed.

    Args:
        give_up_after: how many.
        cool_down: seconds.

    Attributes:
        notes: what there is to tell: one sentence each time that it stops requests.

    Example:
        >>> breaker = Breaker(2, 60.0)
        >>> breaker.failed(0.0, "refused"); breaker.closed_for(0.0)
        0.0
        >>> breaker.failed(1.0, "refused"); breaker.closed_for(11.0)
        50.0
        >>> breaker.closed_for(61.0), breaker.probing
        (0.0, True)
    """

    def __init__(self, give_up_after: int, cool_down: float) -> None:
        self.give_up_after = give_up_after
        self.cool_down = cool_down
        self.last = ""
        self.notes: list[str] = []
        self._failures = 0
        self._until = 0.0

    @property
    def probing(self) -> bool:
        """Whether the service has not answered since requests were last stopped."""
        return self._failures >= self.give_up_after

    def closed_for(self, now: float) -> float:
        """For how many seconds no request may be sent."""
        return max(0.0, self._until - now)

    def succeeded(self) -> None:
        """The service has answered."""
        self._failures, self._until = 0, 0.0

    def failed(self, now: float, reason: str) -> None:
        """A request has failed for good."""
        self._failures += 1
        self.last = reason
        if self.probing and now >= self._until:
            self._until = now + self.cool_down
            self.notes.append(
                f"the last {self._failures} requests failed, so that none is sent for "
                f"{self.cool_down:g} s. The last failure: {reason}"
            )
