"""What follows from the state of a bulkhead: who starts, for whom room is kept, and who gives way.

`decide` lets in, one after another, the first in order of all that fit. One that does not fit is passed, so that nothing lies idle while
something else could use it, but not for ever: after a while, or once others give way to it, what becomes free is pledged to it, and only
what fits beside the pledge may pass.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import itemgetter

from headrace.api.reasons import Reason
from headrace.core.admission.compartment import Cause, Compartment, Entry
from headrace.core.admission.ledger import NOTHING, Ledger
from headrace.core.admission.order import Group, Place, Turn


def decide(compartment: Compartment, now: datetime, *, time_has_passed: bool = True) -> None:
    """Let in all that may be let in, and see to it that nobody is passed for ever.

    Most news of a batch changes nothing that matters here; unless time alone may have made a difference, there is nothing to do then.
    """
    if not time_has_passed and compartment.decided == compartment.version:
        return
    _give_up_pledges(compartment, now)
    _keep_room_for_overdue(compartment, now)
    while True:
        while _next(compartment, now):
            pass
        if not _preempt(compartment, now):
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
        if compartment.spec.capacity.starts_per_minute is not None or compartment.spending.tokens_per_minute:
            compartment.starts.add(key, now)
    compartment.pledges.pop(key, None)
    entry.preempts = ()
    compartment.changed.add(key)
    compartment.recount(entry)


# what is kept for whom


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


def _taken_in_the_end(compartment: Compartment, place: Place) -> tuple[Ledger, Ledger]:
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


def _give_up_pledges(compartment: Compartment, now: datetime) -> None:
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


def _keep_room_for_overdue(compartment: Compartment, now: datetime) -> None:
    """Keep what becomes free for the first of those that have been passed for too long; for one at a time."""
    if now < compartment.look_for_overdue_at:
        return
    compartment.look_for_overdue_at = now + compartment.patience / 10
    if any(not compartment.entries[key].preempts for key in compartment.pledges):
        return
    entries, since = compartment.entries, now - compartment.patience
    overdue = [it for it in compartment.heads() if entries[it[1][-1]].demand.since <= since]
    for place, key in _in_order(compartment, overdue, now):
        if Taken.by_betters(compartment, place.group).room(place) < place.shape.min_pods:
            _pledge(compartment, place, key)
            return


def _pledge(compartment: Compartment, place: Place, key: str) -> None:
    compartment.lanes.remove(key)
    compartment.pledges[key] = place


def _in_order(compartment: Compartment, heads: Iterable[tuple[Place, Turn]], now: datetime) -> list[tuple[Place, str]]:
    """Those heads of lanes that could start if there were room, the ones that go first at the beginning."""
    ranked = [(compartment.rank(place, turn), place) for place, turn in heads if _may_start(compartment, place, now)]
    ranked.sort(key=itemgetter(0))
    return [(place, str(rank[-1][-1])) for rank, place in ranked]


# who gives way


def _preempt(compartment: Compartment, now: datetime) -> bool:
    """Make room for those for whom somebody of lower priority can; whether there was one."""
    state = compartment.version
    if state == compartment.nobody_gives_way or not compartment.may_preempt or compartment.gate(now) is not None:
        return False
    found = False
    urgent = (it for it in compartment.heads() if -it[0].group[0] > compartment.lowest_running)
    for place, key in _in_order(compartment, urgent, now):
        entry = compartment.entries[key]
        victims = _victims(compartment, place, entry)
        if victims is None:
            continue
        found = True
        _pledge(compartment, place, key)
        entry.preempts = tuple(victim.demand.key for victim, _ in victims)
        for victim, pods in victims:
            _give_way(compartment, victim, pods, entry)
        if not compartment.may_preempt:
            break
    if not found:
        compartment.nobody_gives_way = state
    return found


def _victims(compartment: Compartment, place: Place, entry: Entry) -> list[tuple[Entry, int]] | None:
    """Who must make do with how many pods so that the batch can start; None when that cannot be had.

    The lowest priority gives way first, and of one priority whoever started last. Nobody gives more than is needed.
    """
    trial = Trial(compartment, place)
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

    def __init__(self, compartment: Compartment, place: Place) -> None:
        self._compartment, self._place = compartment, place
        self._taken, self._taken_here = _taken_in_the_end(compartment, place)

    @property
    def fits(self) -> bool:
        """Whether the least that the batch needs would fit."""
        room = self._compartment.room(self._place, self._taken, self._taken_here)
        return room >= self._place.shape.min_pods

    def give(self, victim: Entry, pods: int) -> None:
        """Somebody gives back so many pods, or takes as many (negative) back again."""
        batches = (pods == victim.target) - (pods == -victim.target)
        self._taken.add(victim.demand.shape, -pods, -batches)
        if victim.demand.namespace == self._place.namespace:
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
