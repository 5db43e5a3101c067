"""A circuit breaker of one endpoint: when most requests fail nothing more is sent, then one probe is, and its fate decides. Pure.

It counts requests of one process, thousands a second. Whole batches that fail in a row are the operator's matter.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

REMEMBERED = 20
"""It is judged by the last so many requests,"""
FEWEST = 5
"""when there were at least so many,"""
FAILING_SHARE = 0.5
"""and opened when so many of them have failed."""
REST_SECONDS = 1.0
"""How long it stays open the first time; each further time in a row twice as long,"""
LONGEST_REST_SECONDS = 60.0
"""but no longer than this."""


class State(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half-open"
    """One probe."""


class Breaker:
    """The caller says what time it is, in seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=REMEMBERED)
        self._retry_at: float | None = None
        self._trips = 0
        self._probing = False

    @property
    def retry_at(self) -> float | None:
        """When a probe may be sent; None while it is closed."""
        return self._retry_at

    def state(self, now: float) -> State:
        """What it lets through now."""
        if self._retry_at is None:
            return State.CLOSED
        return State.OPEN if now < self._retry_at else State.HALF_OPEN

    def lets_through(self, now: float) -> bool:
        """Whether a request may be sent now."""
        if self._retry_at is None:
            return True
        return now >= self._retry_at and not self._probing

    def send(self, now: float) -> bool:
        """A request that was let through is sent; returns whether it is the probe."""
        self._probing = self.state(now) == State.HALF_OPEN
        return self._probing

    def succeeded(self, *, probe: bool) -> None:
        """A request was answered. Stragglers that were sent before it was opened prove nothing."""
        if probe:
            self._failed.clear()
            self._retry_at, self._trips, self._probing = None, 0, False
        elif self._retry_at is None:
            self._failed.append(False)

    def failed(self, now: float, *, probe: bool) -> None:
        """A request failed, and the endpoint is to blame."""
        if probe:
            self._open(now)
        elif self._retry_at is None:
            self._failed.append(True)
            if len(self._failed) >= FEWEST and sum(self._failed) >= FAILING_SHARE * len(self._failed):
                self._open(now)

    def trip(self, now: float) -> None:
        """Others have found that it must not be asked."""
        if self._retry_at is None:
            self._open(now)

    def released(self, *, probe: bool) -> None:
        """A request has proved nothing; if it was the probe, another may be sent."""
        self._probing = self._probing and not probe

    def _open(self, now: float) -> None:
        self._retry_at = now + min(LONGEST_REST_SECONDS, REST_SECONDS * 2 ** min(self._trips, 10))
        self._trips += 1
        self._probing = False
        self._failed.clear()
