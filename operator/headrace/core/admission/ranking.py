"""Where everybody stands who waits, and when they may expect to start.

The order is that of `decide`, played forward: whoever starts adds to the share of its namespace. The times are an estimate: what runs ends
when its own estimate says so, and what starts takes as long as its model took for other records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import chain, repeat
from typing import TypeAlias

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import Turn
from headrace.core.admission.ledger import PLENTY
from headrace.core.admission.line import Line

Standing: TypeAlias = tuple[int, datetime | None]
"""Position from 1, and the estimated start where one can be told."""


STEADY = 10
"""A position is said anew when it has changed by more than this part of itself; so the first few always are."""
TRIFLE = timedelta(seconds=15)
NEAR = 10
"""Whoever stands so near the head of a line has every number in its status kept true: those who soon start look at it."""


def has_moved(before: int, position: int) -> bool:
    """Whether it is worth a word: far back in a line that moves all the time, a step or two are not."""
    return abs(before - position) * STEADY >= before


def is_put_off(before: datetime | None, start: datetime | None, now: datetime) -> bool:
    """Whether another estimate of the start is worth a word: seconds are not, nor is a small part of a long wait."""
    if before is None or start is None:
        return before is not start
    return abs(before - start) > max(TRIFLE, (start - now) / STEADY)


def standings(compartment: Compartment, now: datetime) -> dict[str, Standing]:
    """The standing of everybody who waits to start, by key."""
    keys, entries = _order(compartment), compartment.entries
    starts = Forecast(compartment, now).starts(entries[key].demand for key in keys)
    return dict(zip(keys, enumerate(chain(starts, repeat(None)), 1), strict=False))


def _order(compartment: Compartment) -> list[str]:
    """The keys of all that wait to start, in order; those for whom room is kept come first, and then one group after the other."""
    keys = list(compartment.pledges)
    take_turns = TakingTurns(compartment)
    for group in compartment.lines.groups:
        runs_already = group[-1]
        if not runs_already:
            keys += take_turns(compartment.lines.of(group))
    return keys


class TakingTurns:
    """Namespaces take turns: next is always the first of the one that has the smallest share by then.

    Along a line the share only grows. So to let them take turns is to put all of them in the order of the shares that they find.
    """

    def __init__(self, compartment: Compartment) -> None:
        gpus = compartment.accounts.caps.gpus or compartment.accounts.used.gpus or 1
        pods = compartment.accounts.caps.pods or compartment.accounts.used.pods or 1
        self._compartment = compartment
        self._weights = {shape: max(shape.gpus / gpus, 1 / pods) for shape in compartment.lines.shapes}
        """What one pod adds to a share."""
        self._shares: dict[str, float] = {}
        """What each namespace will hold by then."""

    def __call__(self, lines: Mapping[str, Line]) -> list[str]:
        """The keys of one group, in order."""
        if not self._compartment.lines.order.fair:
            return [turn[-1] for turn in sorted(chain.from_iterable(line.turns for line in lines.values()))]
        entries, weights, shares = self._compartment.entries, self._weights, self._shares
        ranked = list[tuple[float, Turn]]()
        for namespace, line in lines.items():
            share = shares.get(namespace)
            if share is None:
                share = self._compartment.share(namespace)
            for turn in line.turns:
                ranked.append((share, turn))
                entry = entries[turn[-1]]
                share += entry.demand.pods * weights[entry.shape]
            shares[namespace] = share
        ranked.sort()
        return [turn[-1] for _, turn in ranked]


class Forecast:
    """Plays forward what ends and what starts."""

    def __init__(self, compartment: Compartment, now: datetime) -> None:
        caps, used = compartment.accounts.caps, compartment.accounts.used
        self._gpus = PLENTY if caps.gpus is None else caps.gpus - used.gpus
        self._pods = PLENTY if caps.pods is None else caps.pods - used.pods
        self._batches = PLENTY if caps.batches is None else caps.batches - used.batches
        self._calls = PLENTY if caps.calls is None else caps.calls - used.calls
        self._resources = {name: most - used.resources.get(name, 0) for name, most in caps.resources.items()}
        self._clock, self._count = now, 0
        self._ends: list[tuple[datetime, int, Shape, int]] = []
        for members in compartment.running.values():
            for entry in members.values():
                if entry.demand.ends is not None:
                    self._push(max(now, entry.demand.ends), entry.demand.shape, entry.counted)

    def starts(self, line: Iterable[Demand]) -> Iterator[datetime]:
        """When they start, one after the other; it ends where nobody knows, for nobody knows of those behind that one either."""
        for demand in line:
            start = self._start(demand)
            if start is None:
                return
            yield start

    def _start(self, demand: Demand) -> datetime | None:
        shape = demand.shape
        while (room := self._room(shape)) < shape.min_pods:
            if not self._ends:
                return None
            ends, _, ended, pods = heappop(self._ends)
            self._take(ended, -pods, -1)
            self._clock = max(self._clock, ends)
        pods = min(demand.pods, room)
        self._take(shape, pods, 1)
        if demand.run_seconds is not None:
            self._push(self._clock + timedelta(seconds=demand.run_seconds * demand.pods / pods), shape, pods)
        return self._clock

    def _room(self, shape: Shape) -> int:
        """Pods of that shape that there is room for."""
        resource, gpus, calls = shape.of_one_pod
        room = self._pods if self._batches > 0 else 0
        if gpus:
            room = min(room, self._gpus // gpus)
            if resource in self._resources:
                room = min(room, self._resources[resource] // gpus)
        return min(room, self._calls // calls) if calls else room

    def _take(self, shape: Shape, pods: int, batches: int) -> None:
        resource, gpus, calls = shape.of_one_pod
        self._pods -= pods
        self._batches -= batches
        self._gpus -= pods * gpus
        self._calls -= pods * calls
        if resource in self._resources:
            self._resources[resource] -= pods * gpus

    def _push(self, ends: datetime, shape: Shape, pods: int) -> None:
        self._count += 1  # so that shapes are never compared
        heappush(self._ends, (ends, self._count, shape, pods))
