"""For whom room is kept: batches that were passed for too long, and those for whom others give way.

A batch with a pledge has left its lane. What becomes free counts as taken for all that come after it, until it starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from operator import itemgetter

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.ledger import NOTHING, Ledger
from headrace.core.admission.order import Group, Place, Turn


class Taken:
    """What counts as taken for one that waits: what is held, and what is pledged to its betters.

    A pledge takes nothing where there is room for it anyway: it holds up those alone that stand between it and its start.
    """

    def __init__(self, compartment: Compartment) -> None:
        self._compartment = compartment
        self.in_all = compartment.used
        self._pledged: dict[str, Ledger] = {}

    @classmethod
    def by_betters(cls, compartment: Compartment, group: Group) -> Taken:
        """For one of that group."""
        taken = cls(compartment)
        for place in compartment.pledges.values():
            if place.group <= group:
                taken.pledge(place)
        return taken

    def room(self, place: Place) -> int:
        """Pods that there is room for."""
        return self._compartment.room(place, self.in_all, self._by(place.namespace))

    def pledge(self, place: Place) -> None:
        """Somebody better waits in that lane, and what becomes free is kept for it."""
        shape, here = place.shape, self._compartment
        if here.caps.room(here.used, shape) < shape.min_pods:
            self.in_all = self.in_all.copy() if self.in_all is here.used else self.in_all
            self.in_all.add(shape, shape.min_pods, 1)
        held = here.used_by.get(place.namespace, NOTHING)
        if here.namespace_caps.room(held, shape) < shape.min_pods:
            self._pledged.setdefault(place.namespace, held.copy()).add(shape, shape.min_pods, 1)

    def _by(self, namespace: str) -> Ledger:
        return self._pledged.get(namespace) or self._compartment.used_by.get(namespace, NOTHING)


def taken_in_the_end(compartment: Compartment, place: Place) -> tuple[Ledger, Ledger]:
    """What will be taken, in all and by the namespace, once all that has to be given back has been. To try things in."""
    taken = compartment.kept.copy()
    taken_here = compartment.kept_by.get(place.namespace, NOTHING).copy()
    for other in compartment.pledges.values():
        if other.group > place.group:
            continue
        taken.add(other.shape, other.shape.min_pods, 1)
        if other.namespace == place.namespace:
            taken_here.add(other.shape, other.shape.min_pods, 1)
    return taken, taken_here


def give_up_pledges(compartment: Compartment, now: datetime) -> None:
    """Nothing is kept for those who could not start even if there were room."""
    for key, place in list(compartment.pledges.items()):
        if _may_start(compartment, place, now):
            continue
        del compartment.pledges[key]
        entry = compartment.entries[key]
        entry.preempts = ()
        compartment.lanes.add(place, compartment.order.turn(entry.demand))


def _may_start(compartment: Compartment, place: Place, now: datetime) -> bool:
    budgets = compartment.spec.budgets
    spent = bool(budgets) and compartment.spending.exhausted(place.namespace, now) is not None
    return not spent and compartment.breakers.let(place.shape, now)


def keep_room_for_overdue(compartment: Compartment, now: datetime) -> None:
    """Keep what becomes free for the first of those that have been passed for too long; for one at a time."""
    if now < compartment.look_for_overdue_at:
        return
    compartment.look_for_overdue_at = now + compartment.patience / 10
    if any(not compartment.entries[key].preempts for key in compartment.pledges):
        return
    entries, since = compartment.entries, now - compartment.patience
    overdue = [it for it in compartment.heads() if entries[it[1][-1]].demand.since <= since]
    for place, key in in_order(compartment, overdue, now):
        if Taken.by_betters(compartment, place.group).room(place) < place.shape.min_pods:
            pledge(compartment, place, key)
            return


def pledge(compartment: Compartment, place: Place, key: str) -> None:
    """From now on, what becomes free is kept for that one."""
    compartment.lanes.remove(key)
    compartment.pledges[key] = place


def in_order(compartment: Compartment, heads: Iterable[tuple[Place, Turn]], now: datetime) -> list[tuple[Place, str]]:
    """Those heads of lanes that could start if there were room, the ones that go first at the beginning."""
    found = [(place, turn) for place, turn in heads if _may_start(compartment, place, now)]
    shares = {namespace: compartment.share(namespace) for namespace in {place.namespace for place, _ in found}}
    ranked = [((place.group, shares[place.namespace], turn), place) for place, turn in found]
    ranked.sort(key=itemgetter(0))
    return [(place, str(rank[-1][-1])) for rank, place in ranked]
