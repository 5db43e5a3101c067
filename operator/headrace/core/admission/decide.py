"""What follows from the state of a bulkhead: who starts, for whom room is kept, and who gives way.

`decide` lets in, one after another, the first in order of all that fit. One that does not fit is passed, so that nothing lies idle while
something else could use it, but not for ever: after a while, or once others give way to it, what becomes free is pledged to it, and only
what fits beside the pledge may pass.
"""

from __future__ import annotations

from datetime import datetime

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Entry
from headrace.core.admission.order import Group, Lane, Turn
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
    lane, key, room = found
    _let_in(compartment, compartment.entries[key], lane, room, now)
    return True


def _first_pledge(compartment: Compartment, now: datetime) -> tuple[Lane, str, int] | None:
    taken = Taken(compartment, {lane.shape for lane in compartment.pledges.values()})
    if not taken.fitting or compartment.gate(now) is not None:
        return None
    for key, lane in compartment.pledges.items():
        room = taken.room(lane)
        if room >= lane.shape.min_pods:
            return lane, key, room
        taken.pledge(lane)
        if not taken.fitting:
            break
    return None


def _first_waiting(compartment: Compartment, now: datetime) -> tuple[Lane, str, int] | None:
    taken = Taken(compartment, compartment.lanes.shapes)
    if taken.fitting:
        taken.fitting = _not_held_up(compartment, taken.fitting, now)
    for group in compartment.lanes.groups:
        taken.count_betters_of(group)
        if not taken.fitting:
            return None
        found = _first_of_group(compartment, group, taken, now)
        if found is not None:
            return found
    return None


def _not_held_up(compartment: Compartment, shapes: set[Shape], now: datetime) -> set[Shape]:
    gated = compartment.gate(now) is not None
    return {shape for shape in shapes if (shape.grows or not gated) and compartment.breakers.let(shape, now)}


def _first_of_group(
    compartment: Compartment, group: Group, taken: Taken, now: datetime
) -> tuple[Lane, str, int] | None:
    """The first of a group that there is room for beside what is pledged to its betters: of the smallest share, then by its turn."""
    lanes = compartment.lanes.by_group[group]
    found: tuple[tuple[float, Turn], Lane, int] | None = None
    for share, namespace in sorted((compartment.share(namespace), namespace) for namespace in lanes):
        if found is not None and found[0][0] < share:
            break
        if compartment.spec.budgets and compartment.spending.exhausted(namespace, now) is not None:
            continue
        for shape, lane in lanes[namespace].items():
            if shape not in taken.fitting or (room := taken.room(lane)) < shape.min_pods:
                continue
            rank = (share, lane.turns[0])
            if found is None or rank < found[0]:
                found = (rank, lane, room)
    return (found[1], found[0][1][-1], found[2]) if found is not None else None


def _let_in(compartment: Compartment, entry: Entry, lane: Lane, room: int, now: datetime) -> None:
    key, wanted = entry.demand.key, entry.demand.pods
    if lane.shape.grows:
        entry.target = min(wanted, entry.target + room)
    else:
        probes = compartment.breakers.start(key, lane.shape, now)
        entry.target = lane.shape.min_pods if probes else min(wanted, room)
        if compartment.spec.capacity.starts_per_minute is not None:
            compartment.starts.add(key, now)
    compartment.pledges.pop(key, None)
    entry.preempts = ()
    compartment.changed.add(key)
    compartment.recount(entry)
