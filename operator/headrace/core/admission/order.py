"""Who goes first: `spec.ordering` as keys that can be compared, and the lanes in which batches wait.

A lane holds batches that differ in nothing but their turn: of one shape, one namespace, and one group (all that comes before the fair
share, by default the priority). There are few lanes, however many batches wait, and only the heads of lanes are ever looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, TypeAlias

from headrace.api.bulkhead import Ordering
from headrace.core.admission.demand import Demand, Shape, latest_start

Group: TypeAlias = tuple[Any, ...]
Turn: TypeAlias = tuple[Any, ...]
"""Compares batches of one lane; it ends with the key, so no two are equal."""


@dataclass(frozen=True, slots=True)
class Order:
    """The keys of an ordering."""

    group: Callable[[Demand], Group]
    """What is compared before the fair share; the smaller goes first."""
    turn: Callable[[Demand], Turn]
    """What is compared after it."""
    fair: bool
    """Whether namespaces take turns."""

    @classmethod
    def of(cls, ordering: tuple[Ordering, ...]) -> Order:
        """The keys of that ordering."""
        fair = Ordering.FAIR_SHARE in ordering
        cut = ordering.index(Ordering.FAIR_SHARE) if fair else int(ordering[0] == Ordering.PRIORITY)
        before, after = ordering[:cut], ordering[cut + 1 if fair else 0 :]
        return cls(_keys(before), _turns(after), fair)


_KEYS: dict[Ordering, Callable[[Demand], Any]] = {
    Ordering.PRIORITY: lambda demand: -demand.priority,
    Ordering.DEADLINE: latest_start,
    Ordering.AGE: lambda demand: demand.created,
}


def _keys(words: tuple[Ordering, ...]) -> Callable[[Demand], Group]:
    if words == (Ordering.PRIORITY,):
        return lambda demand: (-demand.priority,)
    keys = [_KEYS[word] for word in words]
    return lambda demand: tuple(key(demand) for key in keys)


def _turns(words: tuple[Ordering, ...]) -> Callable[[Demand], Turn]:
    if words in ((Ordering.DEADLINE, Ordering.AGE), (Ordering.DEADLINE,)):
        return lambda demand: (latest_start(demand), demand.created, demand.key)
    keys = _keys(words)
    return lambda demand: (*keys(demand), demand.created, demand.key)


@dataclass(slots=True)
class Lane:
    """Batches of one shape, group and namespace, in their order. Those that have left are dropped when they come to the head."""

    heap: list[Turn] = field(default_factory=list)
    members: dict[str, Turn] = field(default_factory=dict)

    def add(self, turn: Turn) -> None:
        """One more waits."""
        self.members[turn[-1]] = turn
        heappush(self.heap, turn)

    def remove(self, key: str) -> None:
        """One waits no longer."""
        del self.members[key]
        if len(self.heap) > 64 and len(self.heap) > 2 * len(self.members):
            self.heap = list(self.members.values())
            heapify(self.heap)

    def head(self) -> Turn | None:
        """The one that goes first."""
        while self.heap:
            turn = self.heap[0]
            if self.members.get(turn[-1]) == turn:
                return turn
            heappop(self.heap)
        return None


class Place(NamedTuple):
    """Which lane."""

    shape: Shape
    group: Group
    namespace: str


@dataclass(slots=True)
class Lanes:
    """All that waits in one bulkhead."""

    by_shape: dict[Shape, dict[Group, dict[str, Lane]]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    version: int = 0
    """Another one whenever somebody has come or gone."""

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: Place, turn: Turn) -> None:
        """One more waits."""
        lanes = self.by_shape.setdefault(place.shape, {}).setdefault(place.group, {})
        lanes.setdefault(place.namespace, Lane()).add(turn)
        self.places[turn[-1]] = place
        self.version += 1

    def remove(self, key: str) -> bool:
        """One waits no longer; False when it did not wait. Lanes that are empty go: shapes must not pile up."""
        place = self.places.pop(key, None)
        if place is None:
            return False
        self.version += 1
        groups = self.by_shape[place.shape]
        lane = groups[place.group][place.namespace]
        lane.remove(key)
        if not lane.members:
            del groups[place.group][place.namespace]
            if not groups[place.group]:
                del groups[place.group]
            if not groups:
                del self.by_shape[place.shape]
        return True

    def has(self, place: Place, turn: Turn) -> bool:
        """Whether that one waits there already, with that turn."""
        if self.places.get(turn[-1]) != place:
            return False
        return self.by_shape[place.shape][place.group][place.namespace].members[turn[-1]] == turn

    def lanes(self) -> Iterator[tuple[Place, Lane]]:
        """Every lane."""
        for shape, groups in self.by_shape.items():
            for group, lanes in groups.items():
                for namespace, lane in lanes.items():
                    yield Place(shape, group, namespace), lane
