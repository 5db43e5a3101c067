"""Where everybody stands who waits, and when they may expect to start.

The order is that of `decide`, played forward: whoever starts adds to the share of its namespace. The times are an estimate: what runs ends
when its own estimate says so, and what starts takes as long as its model took for other records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush, heapreplace
from typing import TypeAlias

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Entry
from headrace.core.admission.ledger import Ledger
from headrace.core.admission.order import Group, Turn

Standing: TypeAlias = tuple[int, datetime | None]
"""Position from 1, and the estimated start where one can be told."""


STEADY = 10
"""A position is said anew when it has changed by more than this part of itself; so the first few always are."""


def has_moved(before: int, position: int) -> bool:
    """Whether it is worth a word: far back in a line that moves all the time, a step or two are not."""
    return abs(before - position) * STEADY >= before


def standings(compartment: Compartment, now: datetime) -> dict[str, Standing]:
    """The standing of everybody who waits to start, by key."""
    forecast = Forecast(compartment, now)
    return {
        key: (position, forecast.start(compartment.entries[key])) for position, key in enumerate(_order(compartment), 1)
    }


def _order(compartment: Compartment) -> Iterator[str]:
    """The keys of all that wait to start, in order; those for whom room is kept come first."""
    yield from sorted(compartment.pledges, key=lambda key: compartment.pledges[key].group)
    groups: dict[Group, dict[str, list[Turn]]] = defaultdict(lambda: defaultdict(list))
    for lane in compartment.lanes:
        if not lane.shape.grows:
            groups[lane.group][lane.namespace].extend(lane.turns)
    shares: dict[str, float] = {}
    for group in sorted(groups):
        yield from _take_turns(compartment, groups[group], shares)


def _take_turns(compartment: Compartment, waiting: dict[str, list[Turn]], shares: dict[str, float]) -> Iterator[str]:
    """The keys of one group: always the first of the namespace that has the smallest share by then."""
    gpus_in_all = compartment.caps.gpus or compartment.used.gpus or 1
    pods_in_all = compartment.caps.pods or compartment.used.pods or 1
    for turns in waiting.values():
        turns.sort(reverse=True)
    heap = [
        (shares.get(namespace, compartment.share(namespace)), turns[-1], namespace)
        for namespace, turns in waiting.items()
    ]
    heapify(heap)
    fair, entries = compartment.order.fair, compartment.entries
    while heap:
        share, turn, namespace = heap[0]
        key = turn[-1]
        yield key
        if fair:
            demand = entries[key].demand
            share += demand.pods * max(demand.shape.gpus / gpus_in_all, 1 / pods_in_all)
            shares[namespace] = share
        turns = waiting[namespace]
        turns.pop()
        if turns:
            heapreplace(heap, (share, turns[-1], namespace))
        else:
            heappop(heap)


class Forecast:
    """Plays forward what ends and what starts."""

    def __init__(self, compartment: Compartment, now: datetime) -> None:
        self._caps, self._clock = compartment.caps, now
        self._used: Ledger = compartment.used.copy()
        self._ends: list[tuple[datetime, int, Shape, int]] = []
        self._count = 0
        self._known = True
        for members in compartment.running.values():
            for entry in members.values():
                if entry.demand.ends is not None:
                    self._push(max(now, entry.demand.ends), entry.demand.shape, entry.counted)

    def start(self, entry: Entry) -> datetime | None:
        """When the next in order starts; None when nobody knows, and then nobody knows of those behind it either."""
        shape, demand = entry.demand.shape, entry.demand
        while self._known and (room := self._caps.room(self._used, shape)) < shape.min_pods:
            if not self._ends:
                self._known = False
                break
            ends, _, ended, pods = heappop(self._ends)
            self._used.add(ended, -pods, -1)
            self._clock = max(self._clock, ends)
        if not self._known:
            return None
        pods = min(demand.pods, room)
        self._used.add(shape, pods, 1)
        if demand.run_seconds is not None:
            self._push(self._clock + timedelta(seconds=demand.run_seconds * demand.pods / pods), shape, pods)
        return self._clock

    def _push(self, ends: datetime, shape: Shape, pods: int) -> None:
        self._count += 1  # so that shapes are never compared
        heappush(self._ends, (ends, self._count, shape, pods))
