"""Admission event by event: a shell tells what has changed and asks for verdicts. Each costs about the same, however many there are.

Somebody who asks for a verdict with `look` is about to write it into the batch's status; nobody else may be writing the same status then.
Positions are counted anew every few seconds: they are for people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from headrace.api.bulkhead import DEFAULT_BULKHEAD, Bulkhead
from headrace.api.meta import ObjectMeta
from headrace.api.reasons import Reason
from headrace.core.admission import words
from headrace.core.admission.breakers import Breakers, trouble
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.decide import decide
from headrace.core.admission.demand import Demand
from headrace.core.admission.entry import Cause, Entry
from headrace.core.admission.refresh import Standings
from headrace.core.observed import Verdict

UNLIMITED = Bulkhead(metadata=ObjectMeta(name=DEFAULT_BULKHEAD))
"""The compartment `default` as long as nobody has made one."""
_NOTHING_TO_DECIDE = Verdict(admitted=False, reason=Reason.PLANNING, message="it does not wait for a bulkhead yet")


@dataclass(slots=True)
class Book:
    """All bulkheads, and all batches that hold or want something of them."""

    compartments: dict[str, Compartment] = field(default_factory=dict)
    breakers: Breakers = field(default_factory=Breakers)
    paces: dict[str, float] = field(default_factory=dict)
    """Seconds that one pod takes for a record, by model, as far as any batch has shown it."""
    where: dict[str, str] = field(default_factory=dict)
    """The bulkhead of each batch."""
    decided: set[str] = field(default_factory=set)
    outdated: set[str] = field(default_factory=set)
    standings: Standings = field(default_factory=Standings)

    def load(self, demands: Iterable[Demand], bulkheads: Iterable[Bulkhead], now: datetime) -> None:
        """Begin with all that there is, as a new process does; each batch is in it once."""
        for bulkhead in bulkheads:
            self._compartment(bulkhead.name, now).follow(bulkhead, now)
        evident, holding, others = list[Demand](), list[Demand](), list[Demand]()
        waiting: defaultdict[str, list[Demand]] = defaultdict(list)
        for demand in demands:
            if demand.evidence:
                evident.append(demand)
            if demand.held:
                holding.append(demand)
            elif demand.wants:
                waiting[demand.bulkhead].append(demand)
            else:
                others.append(demand)
        self._see_history(evident)
        holding.sort(key=lambda it: it.started or it.created)
        for demand in (*holding, *others):
            self._put(demand, now)
        self._park(now)
        self._line_up(waiting, now)

    def take_decided(self) -> set[str]:
        """The batches about which something was decided since this was asked last."""
        decided, self.decided = self.decided, set()
        return decided

    def take_changed(self) -> set[str]:
        """These, and all others whose status says something else than is true, as far as it was found out since this was asked last."""
        outdated, self.outdated = self.outdated, set()
        return self.take_decided() | outdated

    # events

    def put(self, demand: Demand, now: datetime) -> None:
        """A batch is new or has changed."""
        tripped = bool(demand.evidence) and self.breakers.see(demand, demand.evidence)
        self._put(demand, now)
        if tripped:
            self._park(now)
            self._decide_all(now)
        else:
            self._decide(self.compartments[demand.bulkhead], now, time_has_passed=False)

    def leave(self, key: str, now: datetime) -> bool:
        """A batch is gone but its pods are not: it holds what it held. Whether it holds anything."""
        entry = self._entry(key)
        if entry is None or not entry.counted:
            return False
        self.put(replace(entry.demand, wants=False, suspended=False, held=entry.counted, evidence=()), now)
        return True

    def remove(self, key: str, now: datetime) -> None:
        """A batch is gone."""
        name = self.where.pop(key, None)
        if name is not None:
            self.compartments[name].remove(key)
            self._decide(self.compartments[name], now)

    def put_bulkhead(self, bulkhead: Bulkhead, now: datetime) -> None:
        """A Bulkhead is new or has changed."""
        self._follow(bulkhead.name, bulkhead, now)

    def remove_bulkhead(self, name: str, now: datetime) -> None:
        """A Bulkhead is gone. What runs goes on; nothing more starts, unless it was the one that all batches are in by default."""
        self._follow(name, UNLIMITED if name == DEFAULT_BULKHEAD else None, now)

    def tick(self, now: datetime) -> None:
        """Time has passed, every few seconds: a budget has something left again, a breaker may be tried, somebody has waited too long."""
        self._decide_all(now)
        self.outdated.update(self.standings.refresh(self.compartments, now))

    def look(self, key: str, now: datetime) -> Verdict:
        """The verdict on a batch, for somebody who is about to act on it."""
        entry = self._entry(key)
        if entry is None:
            return _NOTHING_TO_DECIDE
        compartment = self.compartments[self.where[key]]
        if compartment.tell(entry):
            self._decide(compartment, now, time_has_passed=False)
        if entry.target:
            return words.admitted(entry)
        standing = self.standings.get(compartment, key, now) if entry.group else None
        return words.waiting(words.obstacle(compartment, entry, now), standing, entry)

    def settle(self, key: str, now: datetime) -> None:
        """The one who looked has written what he was told, or has had nothing to write: nothing is on its way any more."""
        entry = self._entry(key)
        if entry is None or not entry.told:
            return
        compartment = self.compartments[self.where[key]]
        if compartment.settle(entry):
            self._decide(compartment, now, time_has_passed=False)

    def _see_history(self, evident: Iterable[Demand]) -> None:
        history = [(seen.at, seen.ok, demand, seen) for demand in evident for seen in demand.evidence]
        for _, _, demand, seen in sorted(history, key=lambda it: it[:2]):
            self.breakers.see(demand, (seen,))

    def _line_up(self, waiting: Mapping[str, list[Demand]], now: datetime) -> None:
        """Take in all that wait, by bulkhead, and decide: of one bulkhead after the other, while all of it is near the processor."""
        for name in waiting:
            self._compartment(name, now)
        for name, compartment in self.compartments.items():
            compartment.line_up(waiting.get(name, ()))
            self.where.update(dict.fromkeys(compartment.entries, name))
            self._decide(compartment, now)

    def _decide_all(self, now: datetime) -> None:
        for compartment in self.compartments.values():
            self._decide(compartment, now)

    def _decide(self, compartment: Compartment, now: datetime, *, time_has_passed: bool = True) -> None:
        decide(compartment, now, time_has_passed=time_has_passed)
        self.decided |= compartment.changed
        compartment.changed.clear()

    def _follow(self, name: str, bulkhead: Bulkhead | None, now: datetime) -> None:
        compartment = self._compartment(name, now)
        compartment.follow(bulkhead, now)
        self.outdated.update(compartment.entries)
        self._decide(compartment, now)

    def _put(self, demand: Demand, now: datetime) -> None:
        before = self.where.get(demand.key)
        if before is not None and before != demand.bulkhead:  # made anew under its old name
            self.compartments[before].remove(demand.key)
        if demand.pace is not None:
            self.paces[demand.shape.breakers[0]] = demand.pace
        self.where[demand.key] = demand.bulkhead
        self._compartment(demand.bulkhead, now).put(demand, now)
        if self.breakers.known and demand.held:
            self.breakers.recognise(demand, now)

    def _compartment(self, name: str, now: datetime) -> Compartment:
        known = self.compartments.get(name)
        if known is None:
            known = self.compartments[name] = Compartment(name, self.breakers)
            if name == DEFAULT_BULKHEAD:
                known.follow(UNLIMITED, now)
        return known

    def _park(self, now: datetime) -> None:
        """A breaker has opened: whoever depends on it and does not get on gives its GPUs back, and waits with no attempt spent."""
        if not self.breakers.known:
            return
        for compartment in self.compartments.values():
            for entry in [entry for members in compartment.running.values() for entry in members.values()]:
                name = self.breakers.open(entry.demand.shape, now)
                if name is not None and not entry.demand.moving:
                    compartment.take_back(entry, 0, Cause(Reason.BREAKER_OPEN, trouble(name)))

    def _entry(self, key: str) -> Entry | None:
        name = self.where.get(key)
        return self.compartments[name].entries.get(key) if name is not None else None
