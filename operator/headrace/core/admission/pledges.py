"""For whom room is kept: batches that were passed for too long, and those for whom others give way.

A batch with a pledge has left its line. What becomes free counts as taken for all that come after it, until it starts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime

from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Entry, Group
from headrace.core.admission.ledger import NO_CAPS, NOTHING, Ledger, Rooms
from headrace.core.admission.line import Line


class Taken:
    """What counts as taken for one that waits: what is held, and what is pledged to its betters.

    A pledge takes nothing where there is room for it anyway: it holds up those alone that stand between it and its start.
    """

    def __init__(self, compartment: Compartment, shapes: Iterable[Shape]) -> None:
        self._compartment = compartment
        self._in_all = compartment.accounts.used
        self._rooms = Rooms(compartment.accounts.caps, compartment.accounts.used)
        self._by: dict[str, Ledger] = {}
        self._better = list(reversed(compartment.pledges.values()))
        self.fitting = self._rooms.for_which(shapes)
        """Those of the shapes for which there is still room in all. Once there are none, nobody need be looked at any more."""

    def count_betters_of(self, group: Group) -> None:
        """Count what is pledged to those who go before that group, or with it; to be asked of one group after the other."""
        while self.fitting and self._better and self._better[-1].group <= group:
            self.pledge(self._better.pop())

    def room(self, entry: Entry) -> int:
        """Pods that there is room for."""
        namespace = entry.demand.namespace
        held = self._by.get(namespace) or self._compartment.accounts.used_by.get(namespace, NOTHING)
        return self._compartment.accounts.room(entry.shape, self._in_all, held)

    def pledge(self, entry: Entry) -> None:
        """Somebody better waits, and what becomes free is kept for it."""
        shape, namespace, here = entry.shape, entry.demand.namespace, self._compartment
        if not self._rooms[shape.size]:
            self._in_all = self._in_all.copy() if self._in_all is here.accounts.used else self._in_all
            self._in_all.add(shape, shape.min_pods, 1)
            self.fitting = Rooms(here.accounts.caps, self._in_all).for_which(self.fitting)
        if here.accounts.namespace_caps is NO_CAPS:
            return
        held = here.accounts.used_by.get(namespace, NOTHING)
        if here.accounts.namespace_caps.room(held, shape) < shape.min_pods:
            self._by.setdefault(namespace, held.copy()).add(shape, shape.min_pods, 1)


def taken_in_the_end(compartment: Compartment, entry: Entry) -> tuple[Ledger, Ledger]:
    """What will be taken once all that has to be given back has been, in all and by the namespace. To try things in.

    Where namespaces are not limited, nobody needs to know the second.
    """
    taken, betters = compartment.accounts.kept.copy(), list[Entry]()
    for other in compartment.pledges.values():
        if other.group > entry.group:
            break
        betters.append(other)
        taken.add(other.shape, other.shape.min_pods, 1)
    if compartment.accounts.namespace_caps is NO_CAPS:
        return taken, NOTHING
    return taken, _taken_in_the_end_by(compartment, entry.demand.namespace, betters)


def _taken_in_the_end_by(compartment: Compartment, namespace: str, betters: Iterable[Entry]) -> Ledger:
    taken = Ledger()
    for members in compartment.running.values():
        for entry in members.values():
            if entry.demand.namespace == namespace:
                taken.add(entry.demand.shape, entry.kept, 1)
    for better in betters:
        if better.demand.namespace == namespace:
            taken.add(better.shape, better.shape.min_pods, 1)
    return taken


def give_up_pledges(compartment: Compartment, now: datetime) -> None:
    """Nothing is kept for those who could not start even if there were room."""
    if _nobody_is_held_up(compartment):
        return
    for key, entry in list(compartment.pledges.items()):
        if not _is_spent(compartment, entry.demand.namespace, now) and compartment.breakers.let(entry.shape, now):
            continue
        del compartment.pledges[key]
        entry.preempts = ()
        compartment.lines.add(entry, entry.shape)


def _nobody_is_held_up(compartment: Compartment) -> bool:
    """Whether room is all that anybody may lack, as nearly always."""
    return not compartment.spec.budgets and not compartment.breakers.known


def _is_spent(compartment: Compartment, namespace: str, now: datetime) -> bool:
    """Whether a budget has nothing left for the namespace."""
    return bool(compartment.spec.budgets) and compartment.spending.exhausted(namespace, now) is not None


def keep_room_for_overdue(compartment: Compartment, now: datetime) -> None:
    """Keep what becomes free for the first of those that have been passed for too long; for one at a time."""
    if now < compartment.look_for_overdue_at:
        return
    compartment.look_for_overdue_at = now + compartment.patience / 10
    if any(not entry.preempts for entry in compartment.pledges.values()):
        return
    lines, since = compartment.lines, now - compartment.patience
    groups = [group for group in lines.groups if _anybody_since(compartment, group, since)]
    for entry in in_order(compartment, groups, lines.shapes, now):
        if entry.demand.since > since:
            continue
        taken = Taken(compartment, (entry.shape,))
        taken.count_betters_of(entry.group)
        if not taken.fitting or taken.room(entry) < entry.shape.min_pods:
            pledge(compartment, entry)
            return


def _anybody_since(compartment: Compartment, group: Group, since: datetime) -> bool:
    """Whether anybody in that group waits for so long."""
    return any(entry.demand.since <= since for entry in compartment.lines.tiers[group].members(compartment.entries))


def pledge(compartment: Compartment, entry: Entry) -> None:
    """From now on, what becomes free is kept for that one."""
    compartment.lines.remove(entry)
    pledges = {**compartment.pledges, entry.demand.key: entry}
    compartment.pledges = dict(sorted(pledges.items(), key=lambda it: it[1].group))


def in_order(
    compartment: Compartment, groups: Iterable[Group], shapes: Iterable[Shape], now: datetime
) -> Iterator[Entry]:
    """The first of each of those shapes in each namespace who could start if there were room; who goes first is at the beginning.

    All that they are compared by is as it was when somebody asked for the first of their group.
    """
    entries = compartment.entries
    starting = {shape for shape in shapes if not shape.grows and compartment.breakers.let(shape, now)}
    for group in groups:
        lines: defaultdict[float, list[Line]] = defaultdict(list)
        for namespace, line in compartment.lines.of(group).items():
            if not _is_spent(compartment, namespace, now):
                lines[compartment.share(namespace)].append(line)
        for share in sorted(lines):
            for turn in sorted(turn for line in lines[share] for turn in line.heads(starting, entries)):
                yield entries[turn[-1]]
