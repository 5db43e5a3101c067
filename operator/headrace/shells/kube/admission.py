"""Admission in the cluster: what is seen goes into the book, looks get their verdicts from it, Bulkheads get their statuses.

No decision is made here. The book is filled once everything has been listed, and anew by whoever leads next. From then on it learns of a
batch by the looks at it and by what they write: one after the other, so it never hears of what is older than what it knows.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Named
from headrace.core.admission.book import Book
from headrace.core.admission.demand import Demand, Surroundings, demand_of, model_breaker
from headrace.core.admission.status import bulkhead_status
from headrace.core.observed import Verdict
from headrace.shells.kube.errors import ApiError, TransientFailure
from headrace.shells.kube.line import Urgency

logger = logging.getLogger(__name__)

TICK_SECONDS = 2.0
"""How often to call `tick`: a minute is over, a budget has something left again, somebody has been passed for too long."""
STATUS_INTERVAL = timedelta(seconds=5)
"""A Bulkhead's status is written at most so often."""

Key = tuple[str, str]
"""Namespace and name of a batch."""


@dataclass
class Admission:
    """The book, and what the shell does with it. All methods are called from the event loop, none waits but `publish`."""

    image: str
    """The image that pods run."""
    changed: Callable[[Key, Urgency], None]
    """Told of every batch that should be looked at because its verdict has changed."""
    write_status: Callable[[Bulkhead, BulkheadStatus], Awaitable[None]]
    book: Book = field(default_factory=Book)
    bulkheads: dict[str, Bulkhead] = field(default_factory=dict)
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """The labels of each namespace."""
    written_at: dict[str, datetime] = field(default_factory=dict)
    statuses: dict[str, BulkheadStatus] = field(default_factory=dict)
    """The newest of each Bulkhead, written or not."""

    def load(
        self,
        batches: Iterable[InferenceBatch],
        bulkheads: Iterable[Bulkhead],
        now: datetime,
        left: Iterable[Demand] = (),
    ) -> None:
        """Begin with all that was listed, and with what is left of batches that are gone."""
        self.book, self.bulkheads = Book(), {bulkhead.name: bulkhead for bulkhead in bulkheads}
        demands = [demand_of(batch, self._around(batch, now)) for batch in batches]
        self.book.load((*demands, *left), self.bulkheads.values(), now)
        self._tell()

    def look(self, batch: InferenceBatch, now: datetime) -> Verdict:
        """The verdict for a look at a batch as it is about to be; nobody else may be writing its status."""
        self._put(batch, now)
        verdict = self.book.look(batch.key, now)
        self._tell()
        return verdict

    def written(self, batch: Named, now: datetime) -> None:
        """What the look has come to is in the status of the batch."""
        if isinstance(batch, InferenceBatch):
            self._put(batch, now)
            self._tell()

    def settled(self, batch: Named, now: datetime) -> None:
        """The look at a batch is over, and what it was told is in its status, or was in it before."""
        if isinstance(batch, InferenceBatch):
            self.book.settle(batch.key, now)
            self._tell()

    def refused(self, key: Key, now: datetime) -> None:
        """What is there now under a batch's name is none that can be acted on. It gets nothing; what it holds it keeps until it is gone."""
        if not self.leaving(key, now):
            self.gone(key, now)

    def leaving(self, key: Key, now: datetime) -> bool:
        """A batch was deleted, and its pods are still there; whether they hold something."""
        holds = self.book.leave("/".join(key), now)
        self._tell()
        return holds

    def gone(self, key: Key, now: datetime) -> None:
        """A batch was deleted, and nothing of it is left."""
        self.book.remove("/".join(key), now)
        self._tell()

    def heard_bulkhead(self, bulkhead: Bulkhead, now: datetime) -> None:
        """A Bulkhead as it is now. News of its status alone changes nothing."""
        known = self.bulkheads.get(bulkhead.name)
        self.bulkheads[bulkhead.name] = bulkhead
        if known is None or known.spec != bulkhead.spec:
            self.book.put_bulkhead(bulkhead, now)
            self._tell()

    def gone_bulkhead(self, name: str, now: datetime) -> None:
        """A Bulkhead was deleted."""
        if self.bulkheads.pop(name, None) is not None:
            self.written_at.pop(name, None)
            self.statuses.pop(name, None)
            self.book.remove_bulkhead(name, now)
            self._tell()

    async def tick(self, now: datetime) -> None:
        """Time has passed: decide anew, and write the statuses that are due. One that cannot be written is written the next time."""
        self.book.tick(now)
        self._tell()
        for bulkhead in list(self.bulkheads.values()):
            try:
                await self.publish(bulkhead, now)
            except (TransientFailure, ApiError) as failure:
                logger.warning("status of Bulkhead %s: %s", bulkhead.name, failure)

    async def publish(self, bulkhead: Bulkhead, now: datetime) -> None:
        """Write the status of a Bulkhead, if it says something new and was not written just now."""
        last = self.written_at.get(bulkhead.name)
        if last is not None and now - last < STATUS_INTERVAL:
            return
        status = bulkhead_status(bulkhead, self.book.compartments[bulkhead.name], now)
        self.statuses[bulkhead.name] = status
        if status != bulkhead.status:
            await self.write_status(bulkhead, status)
            self.written_at[bulkhead.name] = now

    def _put(self, batch: InferenceBatch, now: datetime) -> None:
        self.book.put(demand_of(batch, self._around(batch, now)), now)

    def _around(self, batch: InferenceBatch, now: datetime) -> Surroundings:
        pace = self.book.paces.get(model_breaker(batch))
        paces = {model_breaker(batch): pace} if pace is not None else None
        return Surroundings(now, self.image, paces, self.namespaces.get(batch.metadata.namespace))

    def _tell(self) -> None:
        for keys, urgency in (
            (self.book.take_decided(), Urgency.NOW),
            (self.book.take_changed(), Urgency.WHENEVER),
        ):
            for key in keys:
                namespace, _, name = key.partition("/")
                self.changed((namespace, name), urgency)
