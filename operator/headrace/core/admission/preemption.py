"""Who gives way: batches of lower priority, as few of them and as little as is enough."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime

from headrace.api.reasons import Reason
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.entry import Cause, Entry
from headrace.core.admission.ledger import Rooms
from headrace.core.admission.order import Lane
from headrace.core.admission.pledges import in_order, pledge, taken_in_the_end


def preempt(compartment: Compartment, now: datetime) -> bool:
    """Make room for those for whom somebody of lower priority can; whether there was one."""
    state = compartment.version
    if state == compartment.nobody_gives_way or not compartment.may_preempt or compartment.gate(now) is not None:
        return False
    found = False
    for lane, key in in_order(compartment, _urgent(compartment), now):
        entry = compartment.entries[key]
        victims = _victims(compartment, lane, entry)
        if victims is None:
            continue
        found = True
        pledge(compartment, lane, key)
        entry.preempts = tuple(victim.demand.key for victim, _ in victims)
        for victim, pods in victims:
            _give_way(compartment, victim, pods, entry)
        if not compartment.may_preempt:
            break
    if not found:
        compartment.nobody_gives_way = state
    return found


def _urgent(compartment: Compartment) -> Iterator[Lane]:
    """The lanes for which there would be room if all of lower priority gave way; for the others nobody need be tried."""
    lanes, lowest = compartment.lanes, compartment.lowest_running
    for group in lanes.groups:
        priority = -group[0]
        if priority <= lowest:
            return
        rest = compartment.kept.copy()
        for level, held in compartment.kept_at.items():
            if level < priority:
                rest.take(held)
        enough = Rooms(compartment.caps, rest).for_which(lanes.shapes)
        if enough:
            yield from (lane for lane in lanes.of_group(group) if lane.shape in enough)


def _victims(compartment: Compartment, lane: Lane, entry: Entry) -> list[tuple[Entry, int]] | None:
    """Who must make do with how many pods so that the batch can start; None when that cannot be had.

    The lowest priority gives way first, and of one priority whoever started last. Nobody gives more than is needed.
    """
    trial = Trial(compartment, lane)
    asked: list[Entry] = []
    for victim in _lower(compartment, entry.demand.priority):
        if trial.fits:
            break
        trial.give(victim, victim.target)
        asked.append(victim)
    if not trial.fits:
        return None
    found: list[tuple[Entry, int]] = []
    for victim in reversed(asked):
        trial.give(victim, -victim.target)
        if not trial.fits:
            pods = trial.least(victim)
            trial.give(victim, pods)
            found.append((victim, victim.target - pods))
    return found


def _lower(compartment: Compartment, priority: int) -> Iterator[Entry]:
    """What runs with a lower priority, whoever gives way first at the beginning."""
    for level in sorted(compartment.running):
        if level >= priority:
            return
        yield from reversed(compartment.running[level].values())


class Trial:
    """What there would be room for if some gave way."""

    def __init__(self, compartment: Compartment, lane: Lane) -> None:
        self._compartment, self._lane = compartment, lane
        self._taken, self._taken_here = taken_in_the_end(compartment, lane)

    @property
    def fits(self) -> bool:
        """Whether the least that the batch needs would fit."""
        room = self._compartment.room(self._lane, self._taken, self._taken_here)
        return room >= self._lane.shape.min_pods

    def give(self, victim: Entry, pods: int) -> None:
        """Somebody gives back so many pods, or takes as many (negative) back again."""
        batches = (pods == victim.target) - (pods == -victim.target)
        self._taken.add(victim.demand.shape, -pods, -batches)
        if victim.demand.namespace == self._lane.namespace:
            self._taken_here.add(victim.demand.shape, -pods, -batches)

    def least(self, victim: Entry) -> int:
        """How few pods of somebody would be enough; all of them, should too few be left for it to go on."""
        spare = victim.target - victim.demand.shape.min_pods
        enough = bisect_left(range(1, spare + 1), x=True, key=lambda pods: self._enough(victim, pods)) + 1
        return enough if enough <= spare else victim.target

    def _enough(self, victim: Entry, pods: int) -> bool:
        self.give(victim, pods)
        fits = self.fits
        self.give(victim, -pods)
        return fits


def _give_way(compartment: Compartment, victim: Entry, pods: int, entry: Entry) -> None:
    own, other = victim.demand.priority, entry.demand
    message = f"makes room for {other.key}, whose priority is {other.priority}; its own is {own}"
    compartment.take_back(victim, pods, Cause(Reason.PREEMPTED, message))
