"""All endpoints of a batch, and which of them is asked next. Pure; the caller says what time it is.

Endpoints stand in tiers. A record goes to the lowest tier in which an endpoint can be used at all; that it is full or paused for a moment
is no reason to go on to the next one, an open breaker is. A record that has had all its tries in a tier goes to those above.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from headrace.api.engines import OpenAIEngine
from headrace_worker.engines.openai.balancing import Standing, balancer
from headrace_worker.engines.openai.endpoint import EndpointState
from headrace_worker.engines.openai.sharing import Sight, agree

KEPT_SHARE = 8
"""No more than one place in so many is kept for endpoints without a request."""
PATIENCE_SECONDS = 1800.0
"""How long records wait for a sign of life of any endpoint, at least. Before that somebody should have put the work away."""


class Fleet:
    """All endpoints of a batch."""

    def __init__(self, spec: OpenAIEngine, most: int, now: float, zone: str | None = None) -> None:
        """`most`: requests in flight to all together; `zone`: where this worker is."""
        pause = float(spec.max_retry_after_seconds)
        self.endpoints = [
            EndpointState(it, Standing(it.name, order, is_near=it.zone == (zone or "")), most, now, longest_pause=pause)
            for order, it in enumerate(spec.asked)
        ]
        self._most = most
        self._tiers = sorted({it.spec.tier for it in self.endpoints})
        self._balancer = balancer(spec.load_balancing)
        self._alive_at = now
        self._patience = max(PATIENCE_SECONDS, 2.0 * spec.park_after_seconds)

    @property
    def lowest_tier(self) -> int:
        """The one whose answers are what was asked for."""
        return self._tiers[0]

    def show(self, now: float) -> None:
        """Bring up to date what is told of all of them: time alone lets a breaker be tried."""
        for endpoint in self.endpoints:
            endpoint.show(now)

    def beware(self, names: Collection[str], now: float) -> None:
        """Send one probe to each of these before anything else."""
        for endpoint in self.endpoints:
            if endpoint.spec.name in names:
                endpoint.beware(now)

    @property
    def shut(self) -> list[str]:
        """Those whose breakers are not closed, by name."""
        return [it.spec.name for it in self.endpoints if it.is_shut]

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
        return by_name[self._balancer.choose([it.standing(now) for it in others]).name]

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
        if now - self._alive_at > self._patience:
            return "EndpointsUnreachable", f"no endpoint has answered for {self._patience / 60:.0f} minutes"
        return None

    def _kept(self, idle: int, endpoint: EndpointState) -> int:
        """Places that are kept free of requests to one endpoint, for others of its tier that have none: those that must be asked slowly.

        Else all places could be taken by what waits in the line of one server when another can be asked again.
        """
        return min(idle - (endpoint.stats.in_flight == 0), self._most // KEPT_SHARE)

    def _is_shut(self, tier: int, now: float) -> bool:
        return all(it.is_open(now) for it in self.endpoints if it.spec.tier == tier)
