"""Whether a batch would be let in, were it submitted now. The book that decides is asked, with the batch in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.bulkhead import Bulkhead
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import Reason
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Demand, Surroundings, allowed_pods, demand_of, no_pods_allowed
from headrace.core.observed import Verdict
from headrace.core.planning import planned

HOPELESS = (Reason.EXCEEDS_CAPACITY, Reason.UNKNOWN_BULKHEAD, Reason.NAMESPACE_NOT_SELECTED, Reason.NO_PODS_ALLOWED)
"""As things are it would never start, however long it waited."""


@dataclass(frozen=True, slots=True)
class Picture:
    """All that admission looks at."""

    batches: tuple[InferenceBatch, ...]
    bulkheads: tuple[Bulkhead, ...]
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The labels of each namespace, as far as they are known."""

    def demand(self, batch: InferenceBatch, now: datetime) -> Demand:
        """What the batch asks for."""
        return demand_of(batch, Surroundings(now, namespace_labels=self.namespaces.get(batch.metadata.namespace)))


def foresee(batch: InferenceBatch, shards: int, picture: Picture, now: datetime) -> Verdict:
    """What would be said of the batch as soon as its input is found good and cut into so many shards."""
    if not allowed_pods(batch):
        return Verdict(admitted=False, reason=Reason.NO_PODS_ALLOWED, message=no_pods_allowed(batch))
    fresh = batch.model_copy(update={"status": InferenceBatchStatus()})
    others = (picture.demand(other, now) for other in picture.batches if other.key != batch.key)
    book = Book()
    book.load((*others, picture.demand(planned(fresh, shards, now), now)), picture.bulkheads, now)
    return book.look(batch.key, now)
