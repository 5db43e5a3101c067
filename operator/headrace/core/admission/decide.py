"""What follows from the state of a bulkhead: who starts, for whom room is kept, and who gives way.

`decide` lets in, one after another, the first in order of all that fit. One that does not fit is passed, so that nothing lies idle while
something else could use it, but not for ever: after a while, or once others give way to it, what becomes free is pledged to it, and only
what fits beside the pledge may pass.
"""

from __future__ import annotations

from datetime import datetime

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Entry, Group, Turn
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
    _let_in(compartment, *found, now)
    return True


def _first_pledge(compartment: Compartment, now: datetime) -> tuple[Entry, int] | None:
    if not compartment.pledges:
        return None
    taken = Taken(compartment, {entry.shape for entry in compartment.pledges.values()})
    if not taken.fitting or compartment.gate(now) is not None:
        return None
    for entry in compartment.pledges.values():
        room = taken.room(entry)
        if room >= entry.shape.min_pods:
            return entry, room
        taken.pledge(entry)
        if not taken.fitting:
            break
    return None


def _first_waiting(compartment: Compartment, now: datetime) -> tuple[Entry, int] | None:
    taken = Taken(compartment, compartment.lines.shapes)
    if taken.fitting:
        taken.fitting = _not_held_up(compartment, taken.fitting, now)
    for group in compartment.lines.groups:
        taken.count_betters_of(group)
        if not taken.fitting:
            return None
        found = _first_of_group(compartment, group, taken, now)
        if found is not None:
            return found
    return None


def _not_held_up(compartment: Compartment, shapes: set[Shape], now: datetime) -> set[Shape]:
    gated = compartment.gate(now) is not None
    if not gated and not compartment.breakers.known:
        return shapes
    return {shape for shape in shapes if (shape.grows or not gated) and compartment.breakers.let(shape, now)}


def _first_of_group(compartment: Compartment, group: Group, taken: Taken, now: datetime) -> tuple[Entry, int] | None:
    """The first of a group that there is room for beside what is pledged to its betters: of the smallest share, then by its turn."""
    lines, entries = compartment.lines.of(group), compartment.entries
    found: tuple[float, Turn, int] | None = None
    for share, namespace in sorted((compartment.share(namespace), namespace) for namespace in lines):
        if found is not None and found[0] < share:
            break
        if compartment.spec.budgets and compartment.spending.exhausted(namespace, now) is not None:
            continue
        for turn in lines[namespace].heads(taken.fitting, entries):
            room = taken.room(entries[turn[-1]])
            if room >= entries[turn[-1]].shape.min_pods and (found is None or (share, turn) < found[:2]):
                found = (share, turn, room)
    return (entries[found[1][-1]], found[2]) if found is not None else None


def _let_in(compartment: Compartment, entry: Entry, room: int, now: datetime) -> None:
    key, wanted, shape = entry.demand.key, entry.demand.pods, entry.shape
    if shape.grows:
        entry.target = min(wanted, entry.target + room)
    else:
        probes = compartment.breakers.start(key, shape, now)
        entry.target = shape.min_pods if probes else min(wanted, room)
        if compartment.spec.capacity.starts_per_minute is not None:
            compartment.starts.add(key, now)
    compartment.changed.add(key)
    compartment.recount(entry)
