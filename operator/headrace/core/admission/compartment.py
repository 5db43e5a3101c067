"""One bulkhead at work: who holds what, who waits for what, and the numbers that decisions are made by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf

from headrace.api.bulkhead import Bulkhead, BulkheadSpec, Ordering
from headrace.api.reasons import Reason
from headrace.core.admission.accounts import Accounts
from headrace.core.admission.breakers import Breakers
from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import NO_SHAPE, Cause, Entry
from headrace.core.admission.lines import NEVER, Lines
from headrace.core.admission.order import Order
from headrace.core.admission.refusals import Refusals
from headrace.core.admission.spending import MINUTE, Spending, Starts

_NO_SPEC = BulkheadSpec()
_DEFAULT_ORDER = Order.of(_NO_SPEC.ordering)


@dataclass(slots=True)
class Compartment:
    """The state of one bulkhead. `put` and `remove` take in what happens, `decide` draws the conclusions."""

    name: str
    breakers: Breakers
    spec: BulkheadSpec = _NO_SPEC
    refusals: Refusals = field(init=False)
    accounts: Accounts = field(default_factory=Accounts)
    entries: dict[str, Entry] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Batches about which something was decided since somebody asked last."""
    lines: Lines = field(default_factory=lambda: Lines(_DEFAULT_ORDER))
    pledges: dict[str, Entry] = field(default_factory=dict)
    """Batches for which what becomes free is kept, and which have left their line for it; the first group at the beginning."""
    running: defaultdict[int, dict[str, Entry]] = field(default_factory=lambda: defaultdict(dict))
    """By priority, those that started last at the end."""
    starts: Starts = field(default_factory=Starts)
    spending: Spending = field(default_factory=Spending)
    look_for_overdue_at: datetime = NEVER
    """Until when nobody needs to be looked for who has been passed for too long."""
    decided: object = None
    """The version for which all has been decided."""
    nobody_gives_way: object = None
    """The state in which it was found last that nobody can make room for anybody."""

    def __post_init__(self) -> None:
        """Nobody has made the Bulkhead yet."""
        self.refusals = Refusals(self.name)

    @property
    def exists(self) -> bool:
        """Whether there is such a Bulkhead."""
        return self.refusals.spec is not None

    def follow(self, bulkhead: Bulkhead | None, now: datetime) -> None:
        """The Bulkhead has been made, changed or (None) deleted. What runs goes on in any case."""
        fresh = not self.exists
        self.spec = bulkhead.spec if bulkhead is not None else _NO_SPEC
        self.accounts.follow(self.spec)
        self.refusals = Refusals(self.name, bulkhead.spec if bulkhead is not None else None)
        self.spending.follow(self.spec)
        if bulkhead is not None and fresh:
            self.spending.restore(bulkhead.status.budgets)
        for entry in self.entries.values():  # all of them first: groups of two orderings cannot be compared
            self._unqueue(entry)
        self.lines.order = Order.of(self.spec.ordering)
        for entry in self.entries.values():
            self._queue(entry)
        for namespace in list(self.accounts.used_by):
            self._stop_spending(namespace, now)

    # what happens

    def put(self, demand: Demand, now: datetime) -> None:
        """A batch as it is now."""
        entry = self.entries.get(demand.key)
        if entry is None:
            if not demand.wants and not demand.held and not demand.suspended:
                self._started(demand, now)
                return
            entry = self.entries[demand.key] = Entry(demand)
            if not demand.held:  # nothing to count yet
                self._queue(entry)
                return
            if demand.admitted and demand.wants:
                entry.target = min(demand.held, demand.pods)
        else:
            charged = self.spending.charge(entry.demand, demand, now)
            self._change(entry, demand)
            if charged:
                self._stop_spending(demand.namespace, now)
        if not demand.wants:
            entry.target, entry.giving = 0, None
        entry.target = min(entry.target, demand.pods)
        self._started(demand, now)
        self.recount(entry)

    def line_up(self, demands: Iterable[Demand]) -> None:
        """Many batches that hold nothing and wait; those that are known already are passed over."""
        fresh = {demand.key: Entry(demand) for demand in demands if demand.key not in self.entries}
        self.entries.update(fresh)
        waiting = list(fresh.values())
        if not self.refusals.are_none_of({entry.demand.shape for entry in waiting}):
            for entry in waiting:
                entry.refused = self.refusals.of(entry.demand)
            waiting = [entry for entry in waiting if entry.refused is None]
        self._be_patient_from(self.lines.add_all(waiting))

    def remove(self, key: str) -> None:
        """A batch is gone, and its pods with it."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return
        self._unqueue(entry)
        self.running[entry.demand.priority].pop(key, None)
        self.breakers.release(entry.demand)
        self.accounts.count(entry, 0, 0)

    def tell(self, entry: Entry) -> bool:
        """Somebody looks, and writes what he is told. As nobody else writes at the same time, what was told before is settled.

        Whether something has become free by that.
        """
        return self._told(entry, entry.target)

    def settle(self, entry: Entry) -> bool:
        """What was told is written, or is not going to be. Whether something has become free by that."""
        return self._told(entry, 0)

    def _told(self, entry: Entry, pods: int) -> bool:
        before, entry.told = entry.counted, pods
        self.recount(entry)
        return entry.counted < before

    def recount(self, entry: Entry) -> None:
        """Bring the ledgers and lines in accord with what was decided and what is known of a batch."""
        demand = entry.demand
        self.accounts.count(entry, max(entry.target, entry.told, demand.held), entry.target)
        if entry.counted <= entry.target:
            entry.giving = None
        if entry.target:
            self.running[demand.priority][demand.key] = entry
        else:
            self.running[demand.priority].pop(demand.key, None)
        if not entry.counted:
            self.breakers.release(demand)
            if not demand.wants and not demand.suspended:
                self._unqueue(entry)
                del self.entries[demand.key]
                return
        self._queue(entry)

    def take_back(self, entry: Entry, pods: int, cause: Cause) -> None:
        """A batch has to make do with so many pods."""
        entry.target, entry.giving = pods, cause
        self.changed.add(entry.demand.key)
        self.recount(entry)

    # what follows from the numbers

    def share(self, namespace: str) -> float:
        """The share that a namespace holds; nobody's is compared where namespaces do not take turns."""
        return self.accounts.share(namespace) if self.lines.order.fair else 0.0

    def gate(self, now: datetime) -> tuple[Reason, datetime] | None:
        """What keeps everybody from starting for some time, and until when; None when nothing does."""
        limit = self.spec.capacity.starts_per_minute
        until = self.starts.full_until(limit, now) if limit is not None else None
        if until is not None:
            return Reason.STARTS_PER_MINUTE, until
        until = self.spending.tokens_until(now)
        return (Reason.TOKENS_PER_MINUTE, until) if until is not None else None

    @property
    def version(self) -> tuple[int, int, int]:
        """Another one whenever anything has changed that decisions depend on, but for the time."""
        return (self.lines.version, self.accounts.version, len(self.pledges))

    @property
    def may_preempt(self) -> bool:
        """Whether somebody of lower priority runs than waits, and has to give way."""
        if self.spec.preemption != "LowerPriority" or self.spec.ordering[0] != Ordering.PRIORITY:
            return False
        return bool(self.lines.groups) and -self.lines.groups[0][0] > self.lowest_running

    @property
    def lowest_running(self) -> float:
        """The lowest priority of all that run."""
        return min((priority for priority, members in self.running.items() if members), default=inf)

    @property
    def patience(self) -> timedelta:
        """How long smaller ones may pass one that does not fit."""
        return timedelta(seconds=self.spec.reserve_after_seconds)

    # housekeeping

    def _queue(self, entry: Entry) -> None:
        """Put a batch where it waits now; one that waits there already keeps its place."""
        shape = self._waits_as(entry)
        if shape is None:
            self._unqueue(entry)
            return
        if entry.group and entry.shape is shape and self._keeps_its_place(entry):
            return
        self._unqueue(entry)
        self.lines.add(entry, shape)
        self._be_patient_from(entry.demand.since)

    def _be_patient_from(self, since: datetime) -> None:
        if since < self.look_for_overdue_at - self.patience:
            self.look_for_overdue_at = since + self.patience

    def _keeps_its_place(self, entry: Entry) -> bool:
        order, demand = self.lines.order, entry.demand
        if entry.group != order.group(demand, entry.shape):
            return False
        return entry.turn == order.turn(demand) or demand.key in self.pledges

    def _waits_as(self, entry: Entry) -> Shape | None:
        """The shape of what a batch waits for; None when it waits for nothing, or in vain."""
        demand, entry.refused = entry.demand, None
        if not demand.wants or entry.giving is not None:
            return None
        if entry.target:
            more = entry.target < demand.pods and self.exists
            return demand.shape.grown if more else None
        if entry.counted:
            return None
        entry.refused = self.refusals.of(demand)
        return demand.shape if entry.refused is None else None

    def _unqueue(self, entry: Entry) -> None:
        entry.preempts = ()
        if not entry.group:
            return
        if self.pledges.pop(entry.demand.key, None) is None:
            self.lines.remove(entry)
        entry.group, entry.shape, entry.turn = (), NO_SHAPE, ()

    def _change(self, entry: Entry, demand: Demand) -> None:
        """What counts has to be taken from where it was counted: a priority changes, and a batch may be made anew under its old name."""
        self.lines.keep_turn(entry)
        before, counted, kept = entry.demand, entry.counted, entry.kept
        moves = (before.priority, before.shape.of_one_pod) != (demand.priority, demand.shape.of_one_pod)
        if moves:
            self.running[before.priority].pop(demand.key, None)
            self.accounts.count(entry, 0, 0)
        entry.demand = demand
        if moves:
            self.accounts.count(entry, counted, kept)

    def _started(self, demand: Demand, now: datetime) -> None:
        limited = self.spec.capacity.starts_per_minute is not None
        if limited and demand.started is not None and demand.started + MINUTE > now:
            self.starts.add(demand.key, demand.started)

    def _stop_spending(self, namespace: str, now: datetime) -> None:
        """Take everything back from those for whom a budget has nothing left."""
        if self.spending.exhausted(namespace, now) is None:
            return
        for entry in [entry for members in self.running.values() for entry in members.values()]:
            cause = self.spending.cause(entry.demand.namespace, now)
            if cause is not None:
                self.take_back(entry, 0, cause)
