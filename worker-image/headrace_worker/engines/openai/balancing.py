"""Which of several endpoints gets the next request. Pure: standings in, one of them out.

A balancer sees only endpoints that can take a request now, so one that is full, paused or behind an open breaker costs nobody anything
and gets its share again when it is back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.api.engines import LoadBalancing


@dataclass(frozen=True, slots=True)
class Standing:
    """What a balancer may look at."""

    name: str
    order: int
    """Place in the spec."""
    in_flight: int = 0
    sent: int = 0
    """Requests so far."""
    weight: int = 1
    is_near: bool = False
    """Whether it is in the zone that the worker is in."""
    seconds: float | None = None
    """The moving average of its response times; None where nothing is known, or not lately."""


class Balancer(Protocol):
    """One way to choose."""

    def choose(self, standings: Sequence[Standing]) -> Standing:
        """One of them; there is at least one."""


class RoundRobin:
    """Each in turn."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, standings: Sequence[Standing]) -> Standing:
        """The next one after the last in the order of the spec."""
        chosen = min(standings, key=lambda it: (it.order <= self._last, it.order))
        self._last = chosen.order
        return chosen


class LeastRequests:
    """The one with the fewest requests in flight; of equals the one that has had fewer."""

    def choose(self, standings: Sequence[Standing]) -> Standing:
        """The idlest."""
        return min(standings, key=lambda it: (it.in_flight, it.sent, it.order))


class Weighted:
    """In proportion to the weights, spread as evenly as can be (smooth weighted round robin); weight 0 gets nothing beside others."""

    def __init__(self) -> None:
        self._credit: defaultdict[str, int] = defaultdict(int)

    def choose(self, standings: Sequence[Standing]) -> Standing:
        """The one that its weight owes most to."""
        weights = {it.name: it.weight for it in standings}
        if not any(weights.values()):
            weights = dict.fromkeys(weights, 1)
        for name, weight in weights.items():
            self._credit[name] += weight
        owed = (it for it in standings if weights[it.name])
        chosen = max(owed, key=lambda it: (self._credit[it.name], -it.order))
        self._credit[chosen.name] -= sum(weights.values())
        return chosen


class Locality:
    """Those of the same zone first, and others when none of those can take it; among either, the idlest."""

    def __init__(self) -> None:
        self._idlest = LeastRequests()

    def choose(self, standings: Sequence[Standing]) -> Standing:
        """A near one, if there is one."""
        return self._idlest.choose([it for it in standings if it.is_near] or standings)


class Soonest:
    """The one that should answer soonest; one of which nothing is known is taken to be as quick as the quickest."""

    def choose(self, standings: Sequence[Standing]) -> Standing:
        """The least of average times requests in flight; of equals the one that has had fewer."""
        quickest = min((it.seconds for it in standings if it.seconds is not None), default=0.0)

        def wait(it: Standing) -> float:
            return (quickest if it.seconds is None else it.seconds) * (it.in_flight + 1)

        return min(standings, key=lambda it: (wait(it), it.in_flight, it.sent, it.order))


_BALANCERS: Mapping[LoadBalancing, Callable[[], Balancer]] = {
    LoadBalancing.ROUND_ROBIN: RoundRobin,
    LoadBalancing.LEAST_REQUESTS: LeastRequests,
    LoadBalancing.WEIGHTED: Weighted,
    LoadBalancing.LOCALITY: Locality,
    LoadBalancing.EWMA: Soonest,
}


def balancer(policy: LoadBalancing) -> Balancer:
    """The balancer of a policy, with nothing sent yet."""
    return _BALANCERS[policy]()
