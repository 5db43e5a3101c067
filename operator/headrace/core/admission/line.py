"""One group of those that wait: all that are alike but for their namespace and their turn.

Where a bulkhead is full, hardly anybody asks who is first, but for a few. So those that come many at once stand aside until somebody does.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import Entry, Group, Turn


@dataclass(slots=True, eq=False)
class Line:
    """Batches of one group and namespace.

    Those of one shape differ in nothing but their turn: they are a lane, and only the heads of lanes are ever looked at.
    """

    turn_of: Callable[[Demand], Turn]
    aside: list[Entry] = field(default_factory=list)
    in_order: list[Turn] = field(default_factory=list)
    """The turns of those that do not stand aside, the first at the beginning."""
    lanes: defaultdict[Shape, list[Turn]] | None = None
    """All turns by shape. Few lines are ever asked for them, and only then they are made."""

    @property
    def turns(self) -> list[Turn]:
        """The turns of all, the first at the beginning; never empty while the line is kept."""
        if self.aside:
            for entry in self.aside:
                entry.turn = self.turn_of(entry.demand)
                self.in_order.append(entry.turn)
            self.in_order.sort()
            self.aside.clear()
            self.lanes = None
        return self.in_order

    def heads(self, shapes: Collection[Shape], entries: Mapping[str, Entry]) -> list[Turn]:
        """The first of each of these shapes, in no order."""
        turns = self.turns
        if self.lanes is None:
            self.lanes = defaultdict(list)
            for turn in turns:
                self.lanes[entries[turn[-1]].shape].append(turn)
        if len(shapes) < len(self.lanes):
            return [self.lanes[shape][0] for shape in shapes if shape in self.lanes]
        return [turns[0] for shape, turns in self.lanes.items() if shape in shapes]

    def add(self, entry: Entry) -> None:
        """One more waits."""
        entry.turn = self.turn_of(entry.demand)
        insort(self.turns, entry.turn)
        if self.lanes is not None:
            insort(self.lanes[entry.shape], entry.turn)

    def remove(self, entry: Entry) -> None:
        """One waits no longer."""
        turns = self.turns  # only then is the turn of everybody known
        del turns[bisect_left(turns, entry.turn)]
        if self.lanes is not None:
            lane = self.lanes[entry.shape]
            del lane[bisect_left(lane, entry.turn)]
            if not lane:
                del self.lanes[entry.shape]


@dataclass(slots=True, eq=False)
class Tier:
    """All of one group: a line for each namespace."""

    group: Group
    turn_of: Callable[[Demand], Turn]
    aside: list[Entry] = field(default_factory=list)
    by_namespace: dict[str, Line] = field(default_factory=dict)
    """The lines of those that do not stand aside."""

    @property
    def lines(self) -> dict[str, Line]:
        """The line of each namespace, with everybody in it."""
        for entry in self.aside:
            self._line(entry.demand.namespace).aside.append(entry)
        self.aside.clear()
        return self.by_namespace

    def members(self, entries: Mapping[str, Entry]) -> Iterator[Entry]:
        """All, in no order."""
        yield from self.aside
        for line in self.by_namespace.values():
            yield from line.aside
            for turn in line.in_order:
                yield entries[turn[-1]]

    def add(self, entry: Entry) -> None:
        """One more waits."""
        self._line(entry.demand.namespace).add(entry)

    def remove(self, entry: Entry) -> bool:
        """One waits no longer; whether it was the last. Lines that are empty go: they must not pile up."""
        lines, namespace = self.lines, entry.demand.namespace
        lines[namespace].remove(entry)
        if not lines[namespace].turns:
            del lines[namespace]
        return not lines

    def _line(self, namespace: str) -> Line:
        line = self.by_namespace.get(namespace)
        if line is None:
            line = self.by_namespace[namespace] = Line(self.turn_of)
        return line
