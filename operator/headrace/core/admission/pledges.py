"""For whom room is kept: batches that were passed for too long, and those for whom others give way.

A batch with a pledge has left its lane. What becomes free counts as taken for all that come after it, until it starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.ledger import NO_CAPS, NOTHING, Ledger, Rooms
from headrace.core.admission.order import Group, Lane


class Taken:
    """What counts as taken for one that waits: what is held, and what is pledged to its betters.

    A pledge takes nothing where there is room for it anyway: it holds up those alone that stand between it and its start.
    """

    def __init__(self, compartment: Compartment, shapes: Iterable[Shape]) -> None:
        self._compartment = compartment
        self._in_all = compartment.used
        self._rooms = Rooms(compartment.caps, compartment.used)
        self._by: dict[str, Ledger] = {}
        self._better = list(reversed(compartment.pledges.values()))
        self.fitting = self._rooms.for_which(shapes)
        """Those of the shapes for which there is still room in all. Once there are none, nobody need be looked at any more."""

    def count_betters_of(self, group: Group) -> None:
        """Count what is pledged to those who go before that group, or with it; to be asked of one group after the other."""
        while self.fitting and self._better and self._better[-1].group <= group:
            self.pledge(self._better.pop())

    def room(self, lane: Lane) -> int:
        """Pods that there is room for."""
        held = self._by.get(lane.namespace) or self._compartment.used_by.get(lane.namespace, NOTHING)
        return self._compartment.room(lane, self._in_all, held)

    def pledge(self, lane: Lane) -> None:
        """Somebody better waits in that lane, and what becomes free is kept for it."""
        shape, here = lane.shape, self._compartment
        if not self._rooms.fits(shape):
            self._in_all = self._in_all.copy() if self._in_all is here.used else self._in_all
            self._in_all.add(shape, shape.min_pods, 1)
            self.fitting = Rooms(here.caps, self._in_all).for_which(self.fitting)
        if here.namespace_caps is NO_CAPS:
            return
        held = here.used_by.get(lane.namespace, NOTHING)
        if here.namespace_caps.room(held, shape) < shape.min_pods:
            self._by.setdefault(lane.namespace, held.copy()).add(shape, shape.min_pods, 1)


def taken_in_the_end(compartment: Compartment, lane: Lane) -> tuple[Ledger, Ledger]:
    """What will be taken, in all and by the namespace, once all that has to be given back has been. To try things in."""
    taken = compartment.kept.copy()
    taken_here = compartment.kept_by.get(lane.namespace, NOTHING).copy()
    for other in compartment.pledges.values():
        if other.group > lane.group:
            continue
        taken.add(other.shape, other.shape.min_pods, 1)
        if other.namespace == lane.namespace:
            taken_here.add(other.shape, other.shape.min_pods, 1)
    return taken, taken_here


def give_up_pledges(compartment: Compartment, now: datetime) -> None:
    """Nothing is kept for those who could not start even if there were room."""
    if _nobody_is_held_up(compartment):
        return
    for key, lane in list(compartment.pledges.items()):
        if _may_start(compartment, lane, now):
            continue
        del compartment.pledges[key]
        entry = compartment.entries[key]
        entry.preempts = ()
        again = compartment.lanes.lane(lane.group, lane.namespace, lane.shape)
        compartment.lanes.add(again, compartment.order.turn(entry.demand))


def _nobody_is_held_up(compartment: Compartment) -> bool:
    """Whether room is all that anybody may lack, as nearly always."""
    return not compartment.spec.budgets and not compartment.breakers.known


def _may_start(compartment: Compartment, lane: Lane, now: datetime) -> bool:
    budgets = compartment.spec.budgets
    spent = bool(budgets) and compartment.spending.exhausted(lane.namespace, now) is not None
    return not spent and compartment.breakers.let(lane.shape, now)


def keep_room_for_overdue(compartment: Compartment, now: datetime) -> None:
    """Keep what becomes free for the first of those that have been passed for too long; for one at a time."""
    if now < compartment.look_for_overdue_at:
        return
    compartment.look_for_overdue_at = now + compartment.patience / 10
    if any(not compartment.entries[key].preempts for key in compartment.pledges):
        return
    entries, since = compartment.entries, now - compartment.patience
    overdue = (lane for lane in compartment.lanes if entries[lane.turns[0][-1]].demand.since <= since)
    for lane, key in in_order(compartment, overdue, now):
        taken = Taken(compartment, (lane.shape,))
        taken.count_betters_of(lane.group)
        if not taken.fitting or taken.room(lane) < lane.shape.min_pods:
            pledge(compartment, lane, key)
            return


def pledge(compartment: Compartment, lane: Lane, key: str) -> None:
    """From now on, what becomes free is kept for that one."""
    compartment.lanes.remove(key)
    pledges = {**compartment.pledges, key: lane}
    compartment.pledges = dict(sorted(pledges.items(), key=lambda it: it[1].group))


def in_order(compartment: Compartment, lanes: Iterable[Lane], now: datetime) -> list[tuple[Lane, str]]:
    """Those lanes whose heads could start if there were room, and the keys of these; the ones that go first at the beginning."""
    found = [lane for lane in lanes if not lane.shape.grows]
    if not _nobody_is_held_up(compartment):
        found = [lane for lane in found if _may_start(compartment, lane, now)]
    shares = {namespace: compartment.share(namespace) for namespace in {lane.namespace for lane in found}}
    found.sort(key=lambda lane: (lane.group, shares[lane.namespace], lane.turns[0]))
    return [(lane, str(lane.turns[0][-1])) for lane in found]
