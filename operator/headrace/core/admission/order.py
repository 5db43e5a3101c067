"""Who goes first: `spec.ordering` as keys that can be compared, and the lanes in which batches wait.

A lane holds batches that differ in nothing but their turn: of one group (all that comes before the fair share, by default the priority), one
namespace and one shape. There are few lanes, however many batches wait, and only the heads of lanes are ever looked at.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, TypeAlias

from headrace.api.bulkhead import Ordering
from headrace.core.admission.demand import Demand, Shape, latest_start

Group: TypeAlias = tuple[Any, ...]
"""Compares batches before the share of their namespace is; its last part is whether they run already, and only want to grow."""
Turn: TypeAlias = tuple[Any, ...]
"""Compares batches of one lane; it ends with the key, so no two are equal."""


@dataclass(frozen=True, slots=True)
class Order:
    """The keys of an ordering."""

    group: Callable[[Demand, bool], Group]
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
        return cls(_groups(before), _turns(after), fair)


_KEYS: dict[Ordering, Callable[[Demand], Any]] = {
    Ordering.PRIORITY: lambda demand: -demand.priority,
    Ordering.DEADLINE: latest_start,
    Ordering.AGE: lambda demand: demand.created,
}


def _groups(words: tuple[Ordering, ...]) -> Callable[[Demand, bool], Group]:
    if words == (Ordering.PRIORITY,):
        return lambda demand, grows: (-demand.priority, grows)
    keys = [_KEYS[word] for word in words]
    return lambda demand, grows: (*[key(demand) for key in keys], grows)


def _turns(words: tuple[Ordering, ...]) -> Callable[[Demand], Turn]:
    if words in ((Ordering.DEADLINE, Ordering.AGE), (Ordering.DEADLINE,)):
        return lambda demand: (latest_start(demand), demand.created, demand.key)
    keys = [_KEYS[word] for word in words]
    return lambda demand: (*[key(demand) for key in keys], demand.created, demand.key)


@dataclass(slots=True)
class Lane:
    """Batches of one group, namespace and shape, in their order. Those that have left are dropped when they come to the head."""

    heap: list[Turn] = field(default_factory=list)
    members: dict[str, Turn] = field(default_factory=dict)

    def add(self, turn: Turn) -> None:
        """One more waits."""
        self.members[turn[-1]] = turn
        heappush(self.heap, turn)

    def add_all(self, turns: Iterable[Turn]) -> None:
        """Many more wait."""
        self.members.update((turn[-1], turn) for turn in turns)
        self._tidy()

    def remove(self, key: str) -> None:
        """One waits no longer."""
        del self.members[key]
        if len(self.heap) > 64 and len(self.heap) > 2 * len(self.members):
            self._tidy()

    def head(self) -> Turn:
        """The one that goes first; a lane that is kept is never empty."""
        while True:
            turn = self.heap[0]
            if self.members.get(turn[-1]) == turn:
                return turn
            heappop(self.heap)

    def _tidy(self) -> None:
        self.heap = list(self.members.values())
        heapify(self.heap)


class Place(NamedTuple):
    """Which lane."""

    group: Group
    namespace: str
    shape: Shape


@dataclass(slots=True)
class Lanes:
    """All that waits in one bulkhead."""

    by_group: dict[Group, dict[str, dict[Shape, Lane]]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    """Those that somebody is in, the first at the beginning."""
    shapes: defaultdict[Shape, int] = field(default_factory=lambda: defaultdict(int))
    """How many lanes there are of each shape that somebody waits for."""
    places: dict[str, Place] = field(default_factory=dict)
    version: int = 0
    """Another one whenever somebody has come or gone."""

    def __len__(self) -> int:
        return len(self.places)

    def add(self, place: Place, turn: Turn) -> None:
        """One more waits."""
        self._lane(place).add(turn)
        self.places[turn[-1]] = place
        self.version += 1

    def add_all(self, place: Place, turns: list[Turn]) -> None:
        """Many more wait in one lane."""
        self._lane(place).add_all(turns)
        self.places.update((turn[-1], place) for turn in turns)
        self.version += 1

    def remove(self, key: str) -> bool:
        """One waits no longer; False when it did not wait. Lanes that are empty go: they must not pile up."""
        place = self.places.pop(key, None)
        if place is None:
            return False
        self.version += 1
        lane = self.by_group[place.group][place.namespace][place.shape]
        lane.remove(key)
        if not lane.members:
            self._drop(place)
        return True

    def has(self, place: Place, turn: Turn) -> bool:
        """Whether that one waits there already, with that turn."""
        if self.places.get(turn[-1]) != place:
            return False
        return self.by_group[place.group][place.namespace][place.shape].members[turn[-1]] == turn

    def lanes(self, groups: Iterable[Group] | None = None) -> Iterator[tuple[Place, Lane]]:
        """Every lane, of these groups or of all, those of the first group at the beginning."""
        for group in self.groups if groups is None else groups:
            for namespace, shapes in self.by_group[group].items():
                for shape, lane in shapes.items():
                    yield Place(group, namespace, shape), lane

    def _lane(self, place: Place) -> Lane:
        group, namespace, shape = place
        if group not in self.by_group:
            self.by_group[group] = {}
            insort(self.groups, group)
        shapes = self.by_group[group].setdefault(namespace, {})
        if shape not in shapes:
            shapes[shape] = Lane()
            self.shapes[shape] += 1
        return shapes[shape]

    def _drop(self, place: Place) -> None:
        group, namespace, shape = place
        namespaces = self.by_group[group]
        del namespaces[namespace][shape]
        self.shapes[shape] -= 1
        if not self.shapes[shape]:
            del self.shapes[shape]
        if not namespaces[namespace]:
            del namespaces[namespace]
        if not namespaces:
            del self.by_group[group]
            del self.groups[bisect_left(self.groups, group)]
