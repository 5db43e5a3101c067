"""The circuit breakers of all models and images, and what batches prove about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from headrace.core.admission.demand import Demand, Evidence, Shape
from headrace.core.breaker import Breaker, State


@dataclass(slots=True)
class Breakers:
    """Those that anything is known against, by name."""

    known: dict[str, Breaker] = field(default_factory=dict)

    def see(self, demand: Demand, evidence: Iterable[Evidence]) -> bool:
        """Take in what a batch proves; whether a breaker was opened or closed by it."""
        changed = False
        for seen in evidence:
            before = self.known.get(seen.breaker)
            if before is None and seen.ok:
                continue
            before = before or Breaker()
            if seen.ok:
                after = before.succeeded(demand.key, seen.at, demand.started)
            else:
                after = before.failed(demand.key, seen.at, demand.started, sure=seen.sure)
            self.known[seen.breaker] = after
            changed |= before.opened_at != after.opened_at
        return changed

    def let(self, shape: Shape, now: datetime) -> bool:
        """Whether a batch of that shape may start; whether one that runs may grow, for which nothing may be in doubt."""
        if not self.known:
            return True
        found = (self.known[name] for name in shape.breakers if name in self.known)
        if shape.grows:
            return all(breaker.state(now) == State.CLOSED for breaker in found)
        return all(breaker.lets_through(now) for breaker in found)

    def open(self, shape: Shape, now: datetime) -> str | None:
        """The name of a breaker that is open and stands in the way of that shape."""
        return next((n for n in shape.breakers if n in self.known and self.known[n].state(now) == State.OPEN), None)

    def start(self, key: str, shape: Shape, now: datetime) -> bool:
        """A batch starts; whether it is a probe."""
        in_doubt = [n for n in shape.breakers if n in self.known and self.known[n].state(now) == State.HALF_OPEN]
        for name in in_doubt:
            self.known[name] = self.known[name].probed_by(key)
        return bool(in_doubt)

    def recognise(self, demand: Demand, now: datetime) -> None:
        """A batch runs: if it was started when a breaker was half-open, it is the probe, whoever let it."""
        for name in demand.shape.breakers:
            breaker = self.known.get(name)
            if breaker is None or breaker.probe is not None or breaker.state(now) != State.HALF_OPEN:
                continue
            if demand.started is not None and breaker.retry_at is not None and demand.started >= breaker.retry_at:
                self.known[name] = breaker.probed_by(demand.key)

    def release(self, demand: Demand) -> bool:
        """A batch holds nothing any more; whether it was a probe."""
        if not self.known:
            return False
        probed = [n for n in demand.shape.breakers if n in self.known and self.known[n].probe == demand.key]
        for name in probed:
            self.known[name] = self.known[name].released_by(demand.key)
        return bool(probed)

    def why(self, shape: Shape, now: datetime) -> str:
        """What stands in the way of that shape, for people; empty when nothing does."""
        for name in shape.breakers:
            breaker = self.known.get(name)
            if breaker is None or breaker.lets_through(now):
                continue
            if breaker.probe is not None:
                return f"{name}: {breaker.probe} is trying whether it works again"
            return f"{trouble(name)}; one will be tried at {breaker.retry_at:%H:%M:%SZ}"
        return ""

    def not_closed(self, names: Iterable[str], now: datetime) -> list[tuple[str, Breaker]]:
        """Those of that name that let not everything through, by name."""
        found = ((name, self.known[name]) for name in sorted(set(names) & self.known.keys()))
        return [(name, breaker) for name, breaker in found if breaker.state(now) != State.CLOSED]

    def retry_at(self, now: datetime) -> datetime | None:
        """When the next open breaker lets a probe through."""
        waits = (breaker.retry_at for breaker in self.known.values() if breaker.state(now) == State.OPEN)
        return min((at for at in waits if at is not None), default=None)


def trouble(name: str) -> str:
    """What has opened a breaker, for people."""
    return f"{name}: no batch is answered" if name.startswith("endpoints ") else f"{name}: batches have failed in a row"
