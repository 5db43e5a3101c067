"""What is known of one endpoint: how much it is asked, and whether at all. Pure; the caller says what time it is."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from headrace.api.endpointstatus import BreakerState
from headrace.api.engines import Endpoint
from headrace_worker.engines.base import EndpointStats
from headrace_worker.engines.openai.adaptive import AdaptiveLimit, Pace, ResponseTime
from headrace_worker.engines.openai.balancing import Standing
from headrace_worker.engines.openai.breaker import Breaker, State
from headrace_worker.engines.openai.sharing import Agreement, Sight
from headrace_worker.engines.openai.verdicts import LASTING, Kind, Verdict

FIRST_PAUSE_SECONDS, LONGEST_GUESSED_PAUSE_SECONDS = 1.0, 60.0
"""How long it is left alone when it does not say how long; each further time in a row twice as long."""
COARSE_SECONDS = 1.0
"""Who can only say whole seconds asks for too much of a pause, and so is asked at a pace that needs none. Finer words are just followed."""
ASKED_SECONDS = 10.0
"""A pod that has sent nothing for so long leaves its part of an endpoint to the others."""
ANSWERED_SECONDS = 30.0
"""An endpoint that has answered within this time can be reached, whatever other pods find."""


_SHOWN = {
    State.CLOSED: BreakerState.CLOSED,
    State.OPEN: BreakerState.OPEN,
    State.HALF_OPEN: BreakerState.HALF_OPEN,
}


class Ticket(NamedTuple):
    """One request under way."""

    sent_at: float
    probe: bool


class EndpointState:
    """One endpoint."""

    def __init__(self, spec: Endpoint, standing: Standing, most: int, now: float, *, longest_pause: float) -> None:
        """`most`: requests in flight to all endpoints together; `longest_pause`: in seconds, whatever `Retry-After` says."""
        self.spec, self.stats, self.weight = spec, EndpointStats(), spec.weight
        self.unusable: Verdict | None = None
        """Why it is not asked any more: somebody must mend something first."""
        self._standing = standing
        self._has_answered = False
        self._limit = AdaptiveLimit(min(most, spec.max_concurrent_requests or most))
        self._breaker, self._pace, self._time = Breaker(), Pace(now), ResponseTime()
        self._longest_pause = longest_pause
        self._paused_until, self._refusals = now, 0
        self._sent_at = self._answered_at = float("-inf")
        self._sharers, self._may_probe = 1, True

    @property
    def limit(self) -> int:
        """Requests in flight that it is thought to bear."""
        return self._limit.value

    def standing(self, now: float) -> Standing:
        """What a balancer looks at."""
        stats, seconds = self.stats, self._time.average(now)
        return replace(self._standing, in_flight=stats.in_flight, sent=stats.sent, weight=self.weight, seconds=seconds)

    def is_open(self, now: float) -> bool:
        """Whether nothing is sent to it, but for a probe that may be under way."""
        if self.unusable is not None or not self._breaker.lets_through(now):
            return True
        return not self._may_probe and self._breaker.state(now) == State.HALF_OPEN

    def available(self, now: float) -> bool:
        """Whether it can be asked now."""
        has_room = self.stats.in_flight < self._limit.value and not self.is_open(now)
        return has_room and now >= self._paused_until and now >= self._pace.ready_at()

    def available_at(self) -> float | None:
        """When it can be asked, if nothing is heard of it until then; None when only an answer could make room."""
        if self.unusable is not None or self.stats.in_flight >= self._limit.value:
            return None
        return max(self._paused_until, self._pace.ready_at(), self._breaker.retry_at or 0.0)

    def send(self, now: float) -> Ticket:
        """A request is sent."""
        self._pace.send(now)
        self._sent_at = now
        self.stats.in_flight += 1
        self.stats.sent += 1
        return Ticket(now, self._breaker.send(now))

    def sight(self, now: float, *, waits: bool) -> Sight | None:
        """What to tell the other pods; None when it is not asked from here. `waits`: whether records wait for any endpoint."""
        is_asked = self.stats.in_flight > 0 or now - self._sent_at < ASKED_SECONDS
        is_open = self._breaker.state(now) != State.CLOSED
        if self.unusable is not None or not (is_asked or (is_open and waits)):
            return None
        works = now - self._answered_at < ANSWERED_SECONDS
        return Sight(limit=self._limit.whole(), rate=self._pace.whole(), open=is_open, works=works)

    def heed(self, agreed: Agreement, now: float) -> None:
        """Take this pod's part of what all of them have agreed on. One that has not asked yet begins with what the others know."""
        self._limit.share(agreed.limit, agreed.sharers)
        self._pace.share(agreed.rate, agreed.sharers, now)
        self._sharers, self._may_probe = agreed.sharers, agreed.may_probe
        if agreed.is_down and not self.stats.sent:
            self._breaker.trip(now)
            self._may_probe = False
        self.show(now)

    def beware(self, now: float) -> None:
        """The last who asked did not get through: the first request is a probe."""
        self._breaker.trip(now)
        self.show(now)

    @property
    def is_shut(self) -> bool:
        """Whether the last who asked did not get through, and the next may."""
        return self.unusable is None and self._breaker.retry_at is not None

    def settle(self, ticket: Ticket, verdict: Verdict, now: float) -> Verdict:
        """Take note of what has come of a request; returns what that means for the record.

        What somebody must mend is an outage like any other where the endpoint has answered before, unless it is sure to last.
        """
        if verdict.kind == Kind.UNUSABLE and self._has_answered and verdict.reason not in LASTING:
            verdict = replace(verdict, kind=Kind.FAILED)
        self._adapt(ticket, verdict, now)
        self._guard(ticket, verdict, now)
        self.stats.in_flight -= 1
        self.stats.outcomes[verdict.kind] += 1
        self.show(now)
        return verdict

    def show(self, now: float) -> None:
        """Bring up to date what is told of it."""
        stats, unusable = self.stats, self.unusable
        stats.limit, stats.state = self._limit.value, _SHOWN[self._breaker.state(now)]
        if unusable is not None:
            stats.state, stats.reason = BreakerState.OPEN, unusable.reason

    def _adapt(self, ticket: Ticket, verdict: Verdict, now: float) -> None:
        """How much it is asked."""
        if verdict.kind in (Kind.ANSWERED, Kind.REFUSED):
            self._limit.succeeded(self.stats.in_flight)
            self._has_answered, self._refusals, self._answered_at = True, 0, now
            self.stats.answered += 1
            self._time.answered(now - ticket.sent_at, now)
        elif verdict.kind == Kind.FAILED:
            self._time.failed(now - ticket.sent_at, now)
        if verdict.congested:
            self._limit.congested(ticket.sent_at, now)
        is_coarse = (verdict.pause_seconds or COARSE_SECONDS) >= COARSE_SECONDS
        if verdict.kind == Kind.BUSY and verdict.congested and is_coarse:
            self._pace.refused(ticket.sent_at, now)
        if verdict.kind == Kind.BUSY or verdict.pause_seconds:
            self._pause(verdict.pause_seconds, now)

    def _pause(self, seconds: float | None, now: float) -> None:
        if seconds is None:
            if now < self._paused_until:  # one of many that were refused together
                return
            seconds = min(LONGEST_GUESSED_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._refusals, 10))
            self._refusals += 1
        self._paused_until = max(self._paused_until, now + min(seconds, self._longest_pause))

    def _guard(self, ticket: Ticket, verdict: Verdict, now: float) -> None:
        """Whether it is asked at all."""
        match verdict.kind:
            case Kind.ANSWERED | Kind.REFUSED:
                self._breaker.succeeded(probe=ticket.probe)
            case Kind.FAILED | Kind.UNREACHED:
                was = self._breaker.state(now)
                self._breaker.failed(now, probe=ticket.probe)
                if was == State.CLOSED != self._breaker.state(now):  # the others are to know it before anybody probes
                    self._may_probe = self._sharers == 1
            case Kind.BUSY | Kind.GIVEN_UP:
                self._breaker.released(probe=ticket.probe)
            case Kind.UNUSABLE:
                self._breaker.released(probe=ticket.probe)
                self.unusable = verdict
