"""A circuit breaker: after some failures in a row nothing more is sent the same way, then one probe is, and its fate decides.

Pure: what it knows are failures and successes, each with its time and its source; the clock comes in from outside. What was seen before
is seen again without effect, so that a new process may tell it the whole history once more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

FAILURES = 3
"""So many failures with no success between them open it,"""
WINDOW = timedelta(minutes=10)
"""when they lie within this time."""
REST = timedelta(minutes=1)
"""How long it stays open the first time; each further time in a row twice as long,"""
LONGEST_REST = timedelta(minutes=30)
"""but no longer than this."""


class State(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half-open"
    """One probe."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker of one thing that work depends on: a model, an image, an endpoint."""

    failures: tuple[tuple[datetime, str], ...] = ()
    """Time and source of the failures since it was closed last, with no success since."""
    opened_at: datetime | None = None
    """When it was opened; None while it is closed."""
    trips: int = 0
    """How often in a row it was opened."""
    probe: str | None = None
    """Whose fate decides."""
    since: datetime | None = None
    """When its state was changed last by what was seen; whatever is not younger is history."""

    @property
    def retry_at(self) -> datetime | None:
        """When a probe may be sent; None while it is closed."""
        if self.opened_at is None:
            return None
        rest: timedelta = min(LONGEST_REST, REST * 2 ** min(self.trips - 1, 10))
        return self.opened_at + rest

    def state(self, now: datetime) -> State:
        """What it lets through now."""
        retry_at = self.retry_at
        if retry_at is None:
            return State.CLOSED
        return State.OPEN if now < retry_at else State.HALF_OPEN

    def lets_through(self, now: datetime) -> bool:
        """Whether it may be tried now: by anybody while it is closed, by one while it is half-open."""
        state = self.state(now)
        return state == State.CLOSED or (state == State.HALF_OPEN and self.probe is None)

    def probed_by(self, source: str) -> Breaker:
        """It is half-open and this is the probe."""
        return replace(self, probe=source)

    def released_by(self, source: str) -> Breaker:
        """Whoever is the probe is gone, and has proved nothing."""
        return replace(self, probe=None) if self.probe == source else self

    def failed(self, source: str, at: datetime, started: datetime | None = None, *, sure: bool = False) -> Breaker:
        """Something failed that was started then. While it is open only the probe counts; `sure`: no second one is needed to open it."""
        if self._is_history(at):
            return self
        if self.opened_at is not None:
            return self._opened(at) if self._is_probe(source, started) else self
        if (at, source) in self.failures:
            return self
        recent = tuple(sorted({f for f in (*self.failures, (at, source)) if f[0] > at - WINDOW}))
        return self._opened(at) if sure or len(recent) >= FAILURES else replace(self, failures=recent)

    def succeeded(self, source: str, at: datetime, started: datetime | None = None) -> Breaker:
        """Something went well that was started then. Once it has been open only the probe counts."""
        if self._is_history(at):
            return self
        if self.opened_at is None:
            later = tuple(failure for failure in self.failures if failure[0] > at)
            return self if later == self.failures else replace(self, failures=later)
        return Breaker(since=at) if self._is_probe(source, started) else self

    def _is_history(self, at: datetime) -> bool:
        return self.since is not None and at <= self.since

    def _is_probe(self, source: str, started: datetime | None) -> bool:
        """Whether it is, or was for an earlier process, the one that was let through."""
        if self.probe is not None:
            return self.probe == source
        return started is not None and self.retry_at is not None and started >= self.retry_at

    def _opened(self, at: datetime) -> Breaker:
        return Breaker(opened_at=at, trips=self.trips + 1, since=at)
