"""One bulkhead at work: who holds what, who waits for what, and the numbers that decisions are made by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf

from headrace.api.bulkhead import BudgetScope, Bulkhead, BulkheadSpec, Ordering
from headrace.api.reasons import Reason
from headrace.core.admission.breakers import Breakers
from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import Cause, Entry
from headrace.core.admission.ledger import NO_CAPS, NOTHING, Caps, Ledger
from headrace.core.admission.order import Lane, Lanes, Order
from headrace.core.admission.selector import selects
from headrace.core.admission.spending import MINUTE, Spending, Starts

NEVER_YET = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Compartment:
    """The state of one bulkhead. `put` and `remove` take in what happens, `decide` draws the conclusions."""

    name: str
    breakers: Breakers
    spec: BulkheadSpec = field(default_factory=BulkheadSpec)
    exists: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    """Batches about which something was decided since somebody asked last."""
    lanes: Lanes = field(default_factory=Lanes)
    pledges: dict[str, Lane] = field(default_factory=dict)
    """Batches for which what becomes free is kept, with the lane that they have left for it; the first group at the beginning."""
    running: defaultdict[int, dict[str, Entry]] = field(default_factory=lambda: defaultdict(dict))
    """By priority, those that started last at the end."""
    used: Ledger = field(default_factory=Ledger)
    kept: Ledger = field(default_factory=Ledger)
    """What will be used when all that has to be given back has been."""
    used_by: defaultdict[str, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    kept_by: defaultdict[str, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    kept_at: defaultdict[int, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    """The same by priority."""
    starts: Starts = field(default_factory=Starts)
    spending: Spending = field(default_factory=Spending)
    too_large: dict[Shape, Cause | None] = field(default_factory=dict)
    """What was found out about shapes before."""
    caps: Caps = NO_CAPS
    namespace_caps: Caps = NO_CAPS
    order: Order = field(default_factory=lambda: Order.of(BulkheadSpec().ordering))
    look_for_overdue_at: datetime = NEVER_YET
    """Until when nobody needs to be looked for who has been passed for too long."""
    counts: int = 0
    """How often something was counted anew."""
    decided: object = None
    """The version for which all has been decided."""
    nobody_gives_way: object = None
    """The state in which it was found last that nobody can make room for anybody."""

    def follow(self, bulkhead: Bulkhead | None, now: datetime) -> None:
        """The Bulkhead has been made, changed or (None) deleted. What runs goes on in any case."""
        fresh = not self.exists
        self.exists = bulkhead is not None
        self.spec = bulkhead.spec if bulkhead is not None else BulkheadSpec()
        self.caps = Caps.of(self.spec.capacity, self.spec)
        self.namespace_caps = Caps.of(self.spec.per_namespace)
        self.order = Order.of(self.spec.ordering)
        self.spending.follow(self.spec)
        if bulkhead is not None and fresh:
            self.spending.restore(bulkhead.status.budgets)
        self.too_large.clear()
        for entry in list(self.entries.values()):
            self._unqueue(entry)
            self._queue(entry)
        for namespace in list(self.used_by):
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
        """Many new batches that hold nothing and wait."""
        group, turn, waiting = self.order.group, self.order.turn, []
        for demand in demands:
            refused = self._refusal(demand)
            self.entries[demand.key] = Entry(demand, refused=refused)
            if refused is None:
                lane = self.lanes.lane(group(demand, False), demand.namespace, demand.shape)  # noqa: FBT003
                waiting.append((lane, turn(demand)))
        self.lanes.add_all(waiting)

    def remove(self, key: str) -> None:
        """A batch is gone, and its pods with it."""
        entry = self.entries.pop(key, None)
        if entry is None:
            return
        self._unqueue(entry)
        self.running[entry.demand.priority].pop(key, None)
        self.breakers.release(entry.demand)
        self._count(entry, 0, 0)

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
        """Bring the ledgers and lanes in line with what was decided and what is known of a batch."""
        demand = entry.demand
        self._count(entry, max(entry.target, entry.told, demand.held), entry.target)
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

    def room(self, lane: Lane, used: Ledger, used_by: Ledger) -> int:
        """Pods that there is room for."""
        room = self.caps.room(used, lane.shape)
        return room if self.namespace_caps is NO_CAPS else min(room, self.namespace_caps.room(used_by, lane.shape))

    def share(self, namespace: str) -> float:
        """The share that a namespace holds; nobody's is compared where namespaces do not take turns."""
        if not self.order.fair:
            return 0.0
        return self.caps.share(self.used_by.get(namespace, NOTHING), self.used)

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
        return (self.lanes.version, self.counts, len(self.pledges))

    @property
    def may_preempt(self) -> bool:
        """Whether somebody of lower priority runs than waits, and has to give way."""
        if self.spec.preemption != "LowerPriority" or self.spec.ordering[0] != Ordering.PRIORITY:
            return False
        return bool(self.lanes.groups) and -self.lanes.groups[0][0] > self.lowest_running

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
        demand = entry.demand
        turn, where = self.order.turn(demand), (self.order.group(demand, shape.grows), demand.namespace, shape)
        at, known = self.lanes.of.get(demand.key) or (self.pledges.get(demand.key), turn)
        if at is not None and known == turn and (at.group, at.namespace, at.shape) == where:
            return
        self._unqueue(entry)
        self.lanes.add(self.lanes.lane(*where), turn)

    def _waits_as(self, entry: Entry) -> Shape | None:
        """The shape of what a batch waits for; None when it waits for nothing, or in vain."""
        demand, entry.refused = entry.demand, None
        if not demand.wants or entry.giving is not None:
            return None
        if entry.target:
            more = entry.target < demand.pods and self.exists
            return demand.shape._replace(min_pods=1, grows=True) if more else None
        if entry.counted:
            return None
        entry.refused = self._refusal(demand)
        return demand.shape if entry.refused is None else None

    def _unqueue(self, entry: Entry) -> None:
        entry.preempts = ()
        if not self.lanes.remove(entry.demand.key):
            self.pledges.pop(entry.demand.key, None)

    def _refusal(self, demand: Demand) -> Cause | None:
        """Why the batch can never start as things are."""
        if not self.exists:
            message = f"there is no Bulkhead {self.name}: create it, or make the batch anew with another bulkheadName"
            return Cause(Reason.UNKNOWN_BULKHEAD, message)
        selector = self.spec.namespace_selector
        if selector is not None and not selects(selector, demand.namespace_labels or {}):
            message = f"the namespaceSelector of Bulkhead {self.name} does not take namespace {demand.namespace}"
            return Cause(Reason.NAMESPACE_NOT_SELECTED, message)
        if demand.shape not in self.too_large:
            self.too_large[demand.shape] = self._too_large(demand.shape)
        return self.too_large[demand.shape]

    def _too_large(self, shape: Shape) -> Cause | None:
        for caps, whose in ((self.caps, f"Bulkhead {self.name}"), (self.namespace_caps, "a namespace there")):
            lacks = caps.shortage(NOTHING, shape)
            if lacks:
                needs, has = lacks.removesuffix(" used").split(", 0 of ")
                message = f"{needs}, {whose} may have {has}: ask for less, or have the Bulkhead enlarged"
                return Cause(Reason.EXCEEDS_CAPACITY, message)
        return None

    def _count(self, entry: Entry, counted: int, kept: int) -> None:
        shape, namespace = entry.demand.shape, entry.demand.namespace
        self.counts += (counted, kept) != (entry.counted, entry.kept)
        if counted != entry.counted:
            batches = (counted > 0) - (entry.counted > 0)
            self.used.add(shape, counted - entry.counted, batches)
            self.used_by[namespace].add(shape, counted - entry.counted, batches)
            entry.counted = counted
        if kept != entry.kept:
            batches = (kept > 0) - (entry.kept > 0)
            self.kept.add(shape, kept - entry.kept, batches)
            self.kept_by[namespace].add(shape, kept - entry.kept, batches)
            self.kept_at[entry.demand.priority].add(shape, kept - entry.kept, batches)
            entry.kept = kept

    def _change(self, entry: Entry, demand: Demand) -> None:
        """What counts has to be taken from where it was counted: a priority changes, and a batch may be made anew under its old name."""
        before, counted, kept = entry.demand, entry.counted, entry.kept
        moves = (before.priority, before.shape.of_one_pod) != (demand.priority, demand.shape.of_one_pod)
        if moves:
            self.running[before.priority].pop(demand.key, None)
            self._count(entry, 0, 0)
        entry.demand = demand
        if moves:
            self._count(entry, counted, kept)

    def _started(self, demand: Demand, now: datetime) -> None:
        limited = self.spec.capacity.starts_per_minute is not None
        if limited and demand.started is not None and demand.started + MINUTE > now:
            self.starts.add(demand.key, demand.started)

    def _stop_spending(self, namespace: str, now: datetime) -> None:
        """Take everything back from those for whom a budget has nothing left."""
        if self.spending.exhausted(namespace, now) is None:
            return
        for entry in [entry for members in self.running.values() for entry in members.values()]:
            cause = self.budget_cause(entry.demand.namespace, now)
            if cause is not None:
                self.take_back(entry, 0, cause)

    def budget_cause(self, namespace: str, now: datetime) -> Cause | None:
        """The budget that has nothing left for a namespace, in numbers; None when there is something of each."""
        found = self.spending.exhausted(namespace, now)
        if found is None:
            return None
        budget, window, until = found
        whose = f" by namespace {namespace}" if budget.scope == BudgetScope.NAMESPACE else ""
        used = f"{window.used} of {budget.limit} {budget.resource} used{whose} in {budget.window_seconds} s"
        return Cause(
            Reason.BUDGET_EXHAUSTED, f"budget {budget.name}: {used}, exhausted until {until:%Y-%m-%dT%H:%M:%SZ}"
        )
