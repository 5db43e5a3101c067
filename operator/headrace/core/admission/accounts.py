"""What is held in one bulkhead and what may be: counted in every way that decisions ask for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from headrace.api.bulkhead import BulkheadSpec
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Entry
from headrace.core.admission.ledger import NO_CAPS, NOTHING, Caps, Ledger


@dataclass(slots=True)
class Accounts:
    """The ledgers of one bulkhead, with their limits."""

    caps: Caps = NO_CAPS
    namespace_caps: Caps = NO_CAPS
    used: Ledger = field(default_factory=Ledger)
    kept: Ledger = field(default_factory=Ledger)
    """What will be used when all that has to be given back has been."""
    used_by: defaultdict[str, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    kept_at: defaultdict[int, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    """The same by priority."""
    version: int = 0
    """How often something was counted anew."""

    def follow(self, spec: BulkheadSpec) -> None:
        """The limits are others."""
        self.caps, self.namespace_caps = Caps.of(spec.capacity, spec), Caps.of(spec.per_namespace)

    def count(self, entry: Entry, counted: int, kept: int) -> None:
        """A batch stands for so many pods from now on, of which it does not have to give back so many."""
        if (counted, kept) == (entry.counted, entry.kept):
            return
        self.version += 1
        demand = entry.demand
        shape = demand.shape
        if counted != entry.counted:
            pods, batches = counted - entry.counted, (counted > 0) - (entry.counted > 0)
            entry.counted = counted
            self.used.add(shape, pods, batches)
            self.used_by[demand.namespace].add(shape, pods, batches)
        if kept != entry.kept:
            pods, batches = kept - entry.kept, (kept > 0) - (entry.kept > 0)
            entry.kept = kept
            self.kept.add(shape, pods, batches)
            self.kept_at[demand.priority].add(shape, pods, batches)

    def room(self, shape: Shape, used: Ledger, used_by: Ledger) -> int:
        """Pods that there is room for beside so much, in all and of the namespace."""
        room = self.caps.room(used, shape)
        return room if self.namespace_caps is NO_CAPS else min(room, self.namespace_caps.room(used_by, shape))

    def share(self, namespace: str) -> float:
        """The dominant share that a namespace holds."""
        return self.caps.share(self.used_by.get(namespace, NOTHING), self.used)
