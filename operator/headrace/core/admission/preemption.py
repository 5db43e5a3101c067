"""Who gives way: batches of lower priority, as few of them and as little as is enough."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime

from headrace.api.reasons import Reason
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Cause, Entry, Group
from headrace.core.admission.ledger import NO_CAPS, PLENTY, Rooms
from headrace.core.admission.pledges import in_order, pledge, taken_in_the_end


def preempt(compartment: Compartment, now: datetime) -> bool:
    """Make room for those for whom somebody of lower priority can; whether there was one."""
    state = compartment.version
    if state == compartment.nobody_gives_way or not compartment.may_preempt or compartment.gate(now) is not None:
        return False
    found = False
    for group in list(compartment.lines.groups):
        if -group[0] <= compartment.lowest_running:
            break
        found |= _make_room_for_group(compartment, group, now)
    if not found:
        compartment.nobody_gives_way = state
    return found


def _make_room_for_group(compartment: Compartment, group: Group, now: datetime) -> bool:
    """Make room for those of one group for whom there would be enough if all of lower priority gave way."""
    found, in_vain = False, InVain(compartment)
    for entry in in_order(compartment, (group,), _enough_for(compartment, group), now):
        victims = _victims(compartment, entry) if not in_vain.includes(entry) else None
        if victims is None:
            in_vain.add(entry)
            continue
        found = True
        pledge(compartment, entry)
        entry.preempts = tuple(victim.demand.key for victim, _ in victims)
        for victim, pods in victims:
            _give_way(compartment, victim, pods, entry)
        if -group[0] <= compartment.lowest_running:
            break
    return found


class InVain:
    """The sizes for which nobody can make room any more: with each who gets some, there is less for those behind it."""

    def __init__(self, compartment: Compartment) -> None:
        self._by_namespace = compartment.accounts.namespace_caps is not NO_CAPS
        self._least: dict[tuple[str, int, int, str], int] = {}
        """How few pods were too many already, by what one of them takes up."""

    def includes(self, entry: Entry) -> bool:
        """Whether it need not be tried for that one."""
        return entry.shape.min_pods >= self._least.get(self._size(entry), PLENTY)

    def add(self, entry: Entry) -> None:
        """It was tried for that one."""
        size = self._size(entry)
        self._least[size] = min(entry.shape.min_pods, self._least.get(size, PLENTY))

    def _size(self, entry: Entry) -> tuple[str, int, int, str]:
        return (*entry.shape.of_one_pod, entry.demand.namespace if self._by_namespace else "")


def _enough_for(compartment: Compartment, group: Group) -> set[Shape]:
    """The shapes for which there would be room if all of lower priority gave way; for the others nobody need be tried."""
    rest = compartment.accounts.kept.copy()
    for level, held in compartment.accounts.kept_at.items():
        if level < -group[0]:
            rest.take(held)
    return Rooms(compartment.accounts.caps, rest).for_which(compartment.lines.shapes)


def _victims(compartment: Compartment, entry: Entry) -> list[tuple[Entry, int]] | None:
    """Who must make do with how many pods so that the batch can start; None when that cannot be had.

    The lowest priority gives way first, and of one priority whoever started last. Nobody gives more than is needed.
    """
    trial = Trial(compartment, entry)
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

    def __init__(self, compartment: Compartment, entry: Entry) -> None:
        self._compartment, self._entry = compartment, entry
        self._taken, self._taken_here = taken_in_the_end(compartment, entry)
        self._limited = entry.demand.namespace if compartment.accounts.namespace_caps is not NO_CAPS else None

    @property
    def fits(self) -> bool:
        """Whether the least that the batch needs would fit."""
        shape = self._entry.shape
        return self._compartment.accounts.room(shape, self._taken, self._taken_here) >= shape.min_pods

    def give(self, victim: Entry, pods: int) -> None:
        """Somebody gives back so many pods, or takes as many (negative) back again."""
        batches = (pods == victim.target) - (pods == -victim.target)
        self._taken.add(victim.demand.shape, -pods, -batches)
        if victim.demand.namespace == self._limited:
            self._taken_here.add(victim.demand.shape, -pods, -batches)

    def least(self, victim: Entry) -> int:
        """How few pods of somebody would be enough; all of them, should too few be left for it to go on."""
        spare = victim.target - victim.demand.shape.min_pods
        if spare <= 0:
            return victim.target
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
