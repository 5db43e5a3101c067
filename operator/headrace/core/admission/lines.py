"""The lines in which batches wait: one for each group (all that is compared before the fair share, often the priority) and namespace."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter

from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Entry, Group
from headrace.core.admission.line import Line, Tier
from headrace.core.admission.order import Order

NEVER = datetime.max.replace(tzinfo=UTC)
_SHAPE, _SINCE = attrgetter("shape"), attrgetter("demand.since")


@dataclass(slots=True)
class Lines:
    """All that waits in one bulkhead."""

    order: Order
    tiers: dict[Group, Tier] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    """Those that somebody is in, the first at the beginning."""
    shapes: Counter[Shape] = field(default_factory=Counter)
    """How many wait for each shape that somebody waits for."""
    count: int = 0
    """How many wait."""
    version: int = 0
    """Another one whenever somebody has come or gone."""

    def of(self, group: Group) -> dict[str, Line]:
        """The lines of one group, by namespace."""
        tier = self.tiers.get(group)
        return tier.lines if tier is not None else {}

    def add(self, entry: Entry, shape: Shape) -> None:
        """One more waits, for that shape."""
        tier = self._tier(self.order.group(entry.demand, shape))
        entry.group, entry.shape = tier.group, shape
        tier.add(entry)
        self.shapes[shape] += 1
        self.count += 1
        self.version += 1

    def add_all(self, entries: Collection[Entry]) -> datetime:
        """Many begin to wait at once, each for the shape that it asks for. Returns since when the first of them waits."""
        group_of, tiers = self.order.group, self.tiers
        for entry in entries:
            demand = entry.demand
            shape = entry.shape = demand.shape
            group = group_of(demand, shape)
            tier = tiers.get(group) or self._tier(group)
            entry.group = tier.group
            tier.aside.append(entry)
        self.shapes.update(map(_SHAPE, entries))
        self.count += len(entries)
        self.version += 1
        return min(map(_SINCE, entries), default=NEVER)

    def remove(self, entry: Entry) -> None:
        """One waits no longer."""
        group, shape = entry.group, entry.shape
        if self.tiers[group].remove(entry):
            del self.tiers[group]
            del self.groups[bisect_left(self.groups, group)]
        self.shapes[shape] -= 1
        if not self.shapes[shape]:
            del self.shapes[shape]
        self.count -= 1
        self.version += 1

    def keep_turn(self, entry: Entry) -> None:
        """One that waits is about to change: its turn must be known, by what it is until now."""
        if entry.group and not entry.turn:
            _ = self.of(entry.group)[entry.demand.namespace].turns

    def _tier(self, group: Group) -> Tier:
        tier = self.tiers.get(group)
        if tier is None:
            tier = self.tiers[group] = Tier(group, self.order.turn)
            insort(self.groups, group)
        return tier
