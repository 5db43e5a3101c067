"""Who goes first: `spec.ordering` as keys that can be compared, and the lanes in which batches wait.

A lane holds batches that differ in nothing but their turn: of one group (all that comes before the fair share, by default the priority),
one namespace and one shape. There are few lanes, however many batches wait, and only the heads of lanes are ever looked at.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

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


@dataclass(slots=True, eq=False)
class Lane:
    """Batches of one group, namespace and shape."""

    group: Group
    namespace: str
    shape: Shape
    turns: list[Turn]
    """In their order; never empty while the lane is kept."""


@dataclass(slots=True)
class Lanes:
    """All that waits in one bulkhead."""

    by_group: dict[Group, dict[str, dict[Shape, Lane]]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    """Those that somebody is in, the first at the beginning."""
    shapes: defaultdict[Shape, int] = field(default_factory=lambda: defaultdict(int))
    """How many lanes there are of each shape that somebody waits for."""
    of: dict[str, tuple[Lane, Turn]] = field(default_factory=dict)
    """Where each batch stands."""
    version: int = 0
    """Another one whenever somebody has come or gone."""

    def __len__(self) -> int:
        return len(self.of)

    def __contains__(self, key: str) -> bool:
        return key in self.of

    def at(self, key: str) -> Lane | None:
        """Where a batch waits; None when it does not."""
        found = self.of.get(key)
        return found[0] if found is not None else None

    def add(self, lane: Lane, turn: Turn) -> None:
        """One more waits."""
        insort(lane.turns, turn)
        self.of[turn[-1]] = (lane, turn)
        self.version += 1

    def add_all(self, waiting: Iterable[tuple[Lane, Turn]]) -> None:
        """Many more wait."""
        for one in waiting:
            lane, turn = one
            lane.turns.append(turn)
            self.of[turn[-1]] = one
        for lane in self:
            lane.turns.sort()
        self.version += 1

    def remove(self, key: str) -> bool:
        """One waits no longer; False when it did not wait. Lanes that are empty go: they must not pile up."""
        found = self.of.pop(key, None)
        if found is None:
            return False
        lane, turn = found
        del lane.turns[bisect_left(lane.turns, turn)]
        if not lane.turns:
            self._drop(lane)
        self.version += 1
        return True

    def __iter__(self) -> Iterator[Lane]:
        """Every lane, those of the first group at the beginning."""
        return (lane for group in self.groups for lane in self.of_group(group))

    def of_group(self, group: Group) -> Iterator[Lane]:
        """The lanes of one group."""
        return (lane for shapes in self.by_group[group].values() for lane in shapes.values())

    def lane(self, group: Group, namespace: str, shape: Shape) -> Lane:
        """The lane at that place, for somebody who is about to wait there."""
        namespaces = self.by_group.get(group)
        if namespaces is None:
            namespaces = self.by_group[group] = {}
            insort(self.groups, group)
        shapes = namespaces.get(namespace)
        if shapes is None:
            shapes = namespaces[namespace] = {}
        lane = shapes.get(shape)
        if lane is None:
            lane = shapes[shape] = Lane(group, namespace, shape, [])
            self.shapes[shape] += 1
        return lane

    def _drop(self, lane: Lane) -> None:
        namespaces = self.by_group[lane.group]
        del namespaces[lane.namespace][lane.shape]
        self.shapes[lane.shape] -= 1
        if not self.shapes[lane.shape]:
            del self.shapes[lane.shape]
        if not namespaces[lane.namespace]:
            del namespaces[lane.namespace]
        if not namespaces:
            del self.by_group[lane.group]
            del self.groups[bisect_left(self.groups, lane.group)]
