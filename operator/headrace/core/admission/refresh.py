"""Whose status has to be written anew because others have moved: it is cheaper to compare all that is said than to look at everybody.

Where a batch stands changes whenever somebody before it starts, ends or is changed. Nobody tells the batch. So every few seconds the book
holds what statuses say against what is true, and only those are looked at whose status is wrong by more than a trifle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from headrace.core.admission import words
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.ranking import Standing, has_moved, is_put_off, standings

AGE = timedelta(seconds=6)
"""How old positions may be before they are counted anew,"""
TICKS = 4
"""and in how many steps all are: with many in line it would be too much to do at once."""


@dataclass(slots=True)
class Standings:
    """The standings of all compartments, each with its age."""

    of: dict[str, Mapping[str, Standing]] = field(default_factory=dict)
    counted_at: dict[str, datetime] = field(default_factory=dict)

    def get(self, compartment: Compartment, key: str, now: datetime) -> Standing:
        """Where one stands; whoever came since all were counted stands at the end until they are again."""
        if not self.of.get(compartment.name):
            self.count(compartment, now)
        return self.of[compartment.name].get(key, (compartment.lines.count + len(compartment.pledges), None))

    def count(self, compartment: Compartment, now: datetime) -> None:
        """Count everybody."""
        self.of[compartment.name], self.counted_at[compartment.name] = standings(compartment, now), now

    def refresh(self, compartments: Mapping[str, Compartment], now: datetime) -> Iterator[str]:
        """Count anew those for which it is time, and tell whose status says something else; a part of all, the oldest first."""
        due = [it for it in compartments.values() if now - self.counted_at.get(it.name, now - AGE) >= AGE]
        due.sort(key=lambda it: (it.name in self.counted_at, self.counted_at.get(it.name)))
        left = sum(len(it.entries) for it in compartments.values()) / TICKS
        for compartment in due:
            if left < 0:
                return
            left -= len(compartment.entries)
            self.count(compartment, now)
            yield from _outdated(compartment, self.of[compartment.name], now)


def _outdated(compartment: Compartment, found: Mapping[str, Standing], now: datetime) -> Iterator[str]:
    for entry, why in words.causes(compartment, now):
        demand = entry.demand
        (position, start), said = found.get(demand.key, (None, None)), demand.position
        unmoved = said == position or (said is not None and position is not None and not has_moved(said, position))
        if demand.said != why.reason or not unmoved or is_put_off(demand.start, start, now):
            yield demand.key
