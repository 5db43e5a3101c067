"""What follows from the state of a bulkhead: who starts, for whom room is kept, and who gives way.

`decide` lets in, one after another, the first in order of all that fit. One that does not fit is passed, so that nothing lies idle while
something else could use it, but not for ever: after a while, or once others give way to it, what becomes free is pledged to it, and only
what fits beside the pledge may pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.entry import Entry
from headrace.core.admission.order import Group, Place, Turn
from headrace.core.admission.pledges import Taken, give_up_pledges, keep_room_for_overdue
from headrace.core.admission.preemption import preempt


def decide(compartment: Compartment, now: datetime, *, time_has_passed: bool = True) -> None:
    """Let in all that may be let in, and see to it that nobody is passed for ever.

    Most news of a batch changes nothing that matters here; unless time alone may have made a difference, there is nothing to do then.
    """
    if not time_has_passed and compartment.decided == compartment.version:
        return
    give_up_pledges(compartment, now)
    keep_room_for_overdue(compartment, now)
    while True:
        while _next(compartment, now):
            pass
        if not preempt(compartment, now):
            break
    compartment.decided = compartment.version


def _next(compartment: Compartment, now: datetime) -> bool:
    """Let in the first in order that fits, with as many pods as there is room for; False when nothing fits."""
    found = _first_pledge(compartment, now) or _first_waiting(compartment, now)
    if found is None:
        return False
    place, key, room = found
    _let_in(compartment, compartment.entries[key], place, room, now)
    return True


def _first_pledge(compartment: Compartment, now: datetime) -> tuple[Place, str, int] | None:
    if not compartment.pledges or compartment.gate(now) is not None:
        return None
    taken = Taken(compartment)
    for key, place in sorted(compartment.pledges.items(), key=lambda it: it[1].group):
        room = taken.room(place)
        if room >= place.shape.min_pods:
            return place, key, room
        taken.pledge(place)
    return None


def _first_waiting(compartment: Compartment, now: datetime) -> tuple[Place, str, int] | None:
    lanes = compartment.lanes.by_shape
    gated = bool(lanes) and compartment.gate(now) is not None
    best, found = None, None
    taken: dict[Group, Taken] = {}
    for shape, groups in lanes.items():
        if (gated and not shape.grows) or compartment.caps.room(compartment.used, shape) < shape.min_pods:
            continue
        if not compartment.breakers.let(shape, now):
            continue
        for group in sorted(groups):
            if best is not None and best[:2] < (group, shape.grows):
                break
            if group not in taken:
                taken[group] = Taken.by_betters(compartment, group)
            for place, turn, room in _fitting(compartment, taken[group], Place(shape, group, ""), now):
                rank = compartment.rank(place, turn)
                if best is None or rank < best:
                    best, found = rank, (place, turn[-1], room)
    return found


def _fitting(compartment: Compartment, taken: Taken, where: Place, now: datetime) -> Iterator[tuple[Place, Turn, int]]:
    """The heads of a group's lanes that there is room for, beside what is pledged."""
    least = where.shape.min_pods
    if compartment.caps.room(taken.in_all, where.shape) < least:
        return
    for namespace, lane in compartment.lanes.by_shape[where.shape][where.group].items():
        place = where._replace(namespace=namespace)
        room, turn = taken.room(place), lane.head()
        if turn is None or room < least:
            continue
        if compartment.spec.budgets and compartment.spending.exhausted(namespace, now) is not None:
            continue
        yield place, turn, room


def _let_in(compartment: Compartment, entry: Entry, place: Place, room: int, now: datetime) -> None:
    key, wanted = entry.demand.key, entry.demand.pods
    if place.shape.grows:
        entry.target = min(wanted, entry.target + room)
    else:
        probes = compartment.breakers.start(key, place.shape, now)
        entry.target = place.shape.min_pods if probes else min(wanted, room)
        if compartment.spec.capacity.starts_per_minute is not None:
            compartment.starts.add(key, now)
    compartment.pledges.pop(key, None)
    entry.preempts = ()
    compartment.changed.add(key)
    compartment.recount(entry)
