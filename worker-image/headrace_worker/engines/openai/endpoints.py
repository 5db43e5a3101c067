"""What is known of each endpoint, and which of them is asked next. Pure; the caller says what time it is.

Endpoints stand in tiers. A record goes to the lowest tier in which an endpoint can be used at all; that it is full or paused for a moment
is no reason to go on to the next one, an open breaker is. A record that has had all its tries in a tier goes to those above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from headrace.api.engines import Endpoint, OpenAIEngine
from headrace_worker.engines.base import EndpointStats
from headrace_worker.engines.openai.adaptive import AdaptiveLimit, Pace
from headrace_worker.engines.openai.balancing import Standing, balancer
from headrace_worker.engines.openai.breaker import Breaker, State
from headrace_worker.engines.openai.sharing import Agreement, Sight, agree
from headrace_worker.engines.openai.verdicts import LASTING, Kind, Verdict

LONGEST_PAUSE_SECONDS = 300.0
"""So long an endpoint is left alone at most, whatever `Retry-After` says: the limit may have been raised."""
FIRST_PAUSE_SECONDS, LONGEST_GUESSED_PAUSE_SECONDS = 1.0, 60.0
"""How long it is left alone when it does not say how long; each further time in a row twice as long."""
COARSE_SECONDS = 1.0
"""Who can only say whole seconds asks for too much of a pause, and so is asked at a pace that needs none. Finer words are just followed."""
ASKED_SECONDS = 10.0
"""A pod that has sent nothing for so long leaves its part of an endpoint to the others."""
ANSWERED_SECONDS = 30.0
"""An endpoint that has answered within this time can be reached, whatever other pods find."""
KEPT_SHARE = 8
"""No more than one place in so many is kept for endpoints without a request."""
PATIENCE_SECONDS = 1800.0
"""How long records wait for a sign of life of any endpoint."""


class Ticket(NamedTuple):
    """One request under way."""

    sent_at: float
    probe: bool


class EndpointState:
    """One endpoint."""

    def __init__(self, spec: Endpoint, standing: Standing, most: int, now: float) -> None:
        """`most`: requests in flight to all endpoints together."""
        self.spec, self.stats, self.weight = spec, EndpointStats(), spec.weight
        self.unusable: Verdict | None = None
        """Why it is not asked any more: somebody must mend something first."""
        self._standing = standing
        self._has_answered = False
        self._limit = AdaptiveLimit(min(most, spec.max_concurrent_requests or most))
        self._breaker, self._pace = Breaker(), Pace(now)
        self._paused_until, self._refusals = now, 0
        self._sent_at = self._answered_at = float("-inf")
        self._sharers, self._may_probe = 1, True

    @property
    def limit(self) -> int:
        """Requests in flight that it is thought to bear."""
        return self._limit.value

    @property
    def standing(self) -> Standing:
        """What a balancer looks at."""
        stats = self.stats
        return replace(self._standing, in_flight=stats.in_flight, sent=stats.sent, weight=self.weight)

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
        self.stats.limit = self._limit.value

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
        self.stats.limit, self.stats.open = self._limit.value, self.is_open(now)
        return verdict

    def _adapt(self, ticket: Ticket, verdict: Verdict, now: float) -> None:
        """How much it is asked."""
        if verdict.kind in (Kind.ANSWERED, Kind.REFUSED):
            self._limit.succeeded(self.stats.in_flight)
            self._has_answered, self._refusals, self._answered_at = True, 0, now
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
        self._paused_until = max(self._paused_until, now + min(seconds, LONGEST_PAUSE_SECONDS))

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
            case Kind.BUSY:
                self._breaker.released(probe=ticket.probe)
            case Kind.UNUSABLE:
                self._breaker.released(probe=ticket.probe)
                self.unusable = verdict


class Fleet:
    """All endpoints of a batch."""

    def __init__(self, spec: OpenAIEngine, most: int, now: float, zone: str | None = None) -> None:
        """`most`: requests in flight to all together; `zone`: where this worker is."""
        self.endpoints = [
            EndpointState(it, Standing(it.name, order, is_near=zone is not None and it.zone == zone), most, now)
            for order, it in enumerate(spec.endpoints)
        ]
        self._most = most
        self._tiers = sorted({it.spec.tier for it in self.endpoints})
        self._balancer = balancer(spec.load_balancing)
        self._alive_at = now

    def weigh(self, weights: Mapping[str, int]) -> None:
        """Give endpoints other weights than those of the spec, by name; the rest get those of the spec again."""
        for endpoint in self.endpoints:
            endpoint.weight = weights.get(endpoint.spec.name, endpoint.spec.weight)

    def sights(self, now: float, *, waits: bool) -> dict[str, Sight]:
        """What to tell the other pods about the endpoints that are asked from here. `waits`: whether records wait for one."""
        found = ((it.spec.name, it.sight(now, waits=waits)) for it in self.endpoints)
        return {name: sight for name, sight in found if sight is not None}

    def heed(self, own: str, sights: Mapping[str, Mapping[str, Sight]], turn: int, now: float) -> None:
        """Take this pod's part of what the pods know. `sights`: by their names, `own` among them, and the names of endpoints."""
        for endpoint in self.endpoints:
            name = endpoint.spec.name
            by_pod = {pod: told[name] for pod, told in sights.items() if name in told}
            endpoint.heed(agree(own, {own: Sight(), **by_pod}, turn), now)

    def capacity(self, now: float) -> int:
        """Records that could be in flight now; at least one, which then waits for the first endpoint that takes it."""
        return max(1, min(self._most, sum(it.limit for it in self.endpoints if not it.is_open(now))))

    def choose(self, lowest_tier: int, avoid: str | None, now: float) -> EndpointState | None:
        """The endpoint that a record goes to now; None when it has to wait. `avoid`: where it has just failed, if there are others."""
        tier = next((it for it in self._tiers if it >= lowest_tier and not self._is_shut(it, now)), None)
        usable = [it for it in self.endpoints if it.spec.tier == tier and not it.is_open(now)]
        places = self._most - sum(it.stats.in_flight for it in self.endpoints)
        idle = sum(it.stats.in_flight == 0 for it in usable)
        able = [it for it in usable if it.available(now) and places > self._kept(idle, it)]
        others = [it for it in able if it.spec.name != avoid] or able
        if len(others) < 2:
            return next(iter(others), None)
        by_name = {it.spec.name: it for it in others}
        return by_name[self._balancer.choose([it.standing for it in others]).name]

    def next_tier(self, tier: int) -> int | None:
        """The tier above, if there is anything in it that can be used."""
        found = (it.spec.tier for it in self.endpoints if it.spec.tier > tier and it.unusable is None)
        return min(found, default=None)

    def next_moment(self, now: float) -> float | None:
        """When an endpoint can be asked that cannot now, if no answer makes room before; None when only an answer can."""
        moments = (it.available_at() for it in self.endpoints)
        return min((at for at in moments if at is not None and at > now), default=None)

    def alive(self, now: float) -> None:
        """An endpoint has shown a sign of life, or there was nothing to ask for until now."""
        self._alive_at = now

    def hopeless(self, now: float) -> tuple[str, str] | None:
        """Why waiting leads nowhere (a reason of one word and a sentence); None as long as it may."""
        unusable = [it.unusable for it in self.endpoints if it.unusable is not None]
        if len(unusable) == len(self.endpoints):
            return str(unusable[0].reason), "; ".join(dict.fromkeys(it.message for it in unusable[:3]))
        if now - self._alive_at > PATIENCE_SECONDS:
            return "EndpointsUnreachable", f"no endpoint has answered for {PATIENCE_SECONDS / 60:.0f} minutes"
        return None

    def _kept(self, idle: int, endpoint: EndpointState) -> int:
        """Places that are kept free of requests to one endpoint, for others of its tier that have none: those that must be asked slowly.

        Else all places could be taken by what waits in the line of one server when another can be asked again.
        """
        return min(idle - (endpoint.stats.in_flight == 0), self._most // KEPT_SHARE)

    def _is_shut(self, tier: int, now: float) -> bool:
        return all(it.is_open(now) for it in self.endpoints if it.spec.tier == tier)
