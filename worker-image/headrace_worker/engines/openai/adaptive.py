"""How much one endpoint is asked at once, and how fast: found out by trying. Pure; the caller says what time it is.

`AdaptiveLimit` bounds the requests in flight by additive increase and multiplicative decrease, as TCP does: pods that share an endpoint
come to equal shares without speaking to each other. `Pace` bounds requests a second for an endpoint that has said that there are too
many: what it has let through between two such words is what it allows.
"""

from __future__ import annotations

FIRST_LIMIT = 8
"""Requests in flight at first; doubled with each round of answers until the endpoint is congested for the first time."""
GROWTH_A_SECOND = 0.02
"""By so much of itself a pace grows each second, for a limit may have been raised."""
SLOWEST = 1 / 60
"""Requests a second: below this nothing could be found out any more."""
CUT, MOST_CUT = 0.9, 0.25
"""To how much of itself one refusal brings a pace at most; the latter where hardly half of it has passed.

Less may have passed because there was little to do, or because others use the limit up: going ever slower would mend nothing."""
BURST_SECONDS = 0.1
"""What was not sent in time may be made up for, so far back."""


class AdaptiveLimit:
    """Requests in flight to one endpoint."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(FIRST_LIMIT, most))
        self._doubling = True
        self._cut_at = float("-inf")

    @property
    def value(self) -> int:
        """How many there may be; at least 1."""
        return int(self._limit)

    def succeeded(self, in_flight: int) -> None:
        """A request was answered while so many were in flight. A limit that is not made use of does not grow."""
        if 2 * in_flight >= self._limit:
            self._limit = min(float(self._most), self._limit + (1.0 if self._doubling else 1.0 / self._limit))

    def congested(self, sent_at: float, now: float) -> None:
        """The endpoint had too much to do. What was sent before the limit was cut for it says nothing new."""
        if sent_at >= self._cut_at:
            self._cut_at, self._doubling = now, False
            self._limit = max(1.0, self._limit / 2)


class Pace:
    """Requests a second to one endpoint; any number until it has refused some."""

    def __init__(self, now: float) -> None:
        self._rate: float | None = None
        self._next = now
        self._grown_at = now
        self._since, self._sent = now, 0

    def ready_at(self) -> float:
        """From when on the next request may be sent."""
        return self._next

    def send(self, now: float) -> None:
        """A request is sent."""
        self._sent += 1
        if self._rate is not None:
            self._rate *= 1 + GROWTH_A_SECOND * (now - self._grown_at)
            self._grown_at = now
            self._next = max(self._next, now - BURST_SECONDS) + 1 / self._rate

    def refused(self, sent_at: float, now: float) -> None:
        """There are too many. What was sent before the last such word says nothing new."""
        if sent_at < self._since:
            return
        measured = max(SLOWEST, max(1, self._sent - 1) / max(now - self._since, 1e-3))
        if self._rate is None:
            self._rate = measured
        else:
            is_far_off = measured < self._rate / 2
            self._rate = min(self._rate, max(measured, self._rate * (MOST_CUT if is_far_off else CUT)))
        self._since, self._sent, self._grown_at = now, 0, now
