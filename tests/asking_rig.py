"""A store and a place in memory, and a process between them that can die at any of its calls, before or after the call is done."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from builders import NOON
from headrace.api.asking import ClosedWindow, KnownKey, QueuedRequest, RequestRecord, RequestRoute
from headrace.api.batchstatus import InferenceBatchStatus, OutputStatus, RecordCounts
from headrace.api.gateway import ServedModels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.tenancy import Tenant
from headrace.core.asking.life import has_ended
from headrace.core.asking.pressure import Left
from headrace.core.openai.ids import Part
from headrace.gateway.queues.store import Change, Changes, Delivery, InQueue, Kept, Lane, Position, QueueFull, Waiting

SMALL = ServedModels.parse({"models": [{"model": {"name": "small"}, "engine": {"name": "mock"}}]})


class Died(BaseException):
    """The process is no more; nothing of it catches that."""


@dataclass
class FakeClock:
    """Time that passes when somebody waits."""

    milliseconds: int = 1_000_000

    def now(self) -> int:
        return self.milliseconds

    async def rest(self, milliseconds: int) -> None:
        self.milliseconds += milliseconds
        await asyncio.sleep(0)


@dataclass
class MemoryStore:
    """A `Store` that outlives processes."""

    clock: FakeClock
    queues: dict[str, list[QueuedRequest]] = field(default_factory=dict)
    routes: dict[str, RequestRoute] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    """All ids that were ever put into a queue."""
    records: dict[str, Kept] = field(default_factory=dict)
    closed: dict[str, ClosedWindow] = field(default_factory=dict)
    keys: dict[str, KnownKey] = field(default_factory=dict)
    dead: dict[str, None] = field(default_factory=dict)
    revisions: Iterator[int] = field(default_factory=lambda: count(1))
    """Of records that are written next: the same for all tenants."""
    last_words: list[str] = field(default_factory=list)
    """The id of a request each time its end was written down."""

    async def open_route(self, route: RequestRoute) -> None:
        self.routes[route.name] = route
        self.delivered -= {request.id for request in self.queues.setdefault(route.name, [])}

    async def add(self, route: RequestRoute, request: QueuedRequest) -> None:
        queue = self.queues.setdefault(route.name, [])
        if request.id in self.seen:
            return
        if len(queue) >= route.max_queued:
            raise QueueFull
        self.seen.add(request.id)
        queue.append(request)

    async def find(self, route: str, request_id: str) -> InQueue | None:
        found = [(at, one) for at, one in enumerate(self.queues.get(route, []), 1) if one.id == request_id]
        return InQueue(found[0][1], found[0][0]) if found else None

    async def depth(self, route: str) -> int:
        return len(self.queues.get(route, []))

    async def take(self, route: str, most: int, milliseconds: int) -> Sequence[Delivery]:
        found = [one for one in self.queues[route] if one.id not in self.delivered][:most]
        if not found:
            await self.clock.rest(milliseconds)
        self.delivered |= {one.id for one in found}
        return [Delivery(one, one.id) for one in found]

    async def forget(self, delivery: Delivery) -> None:
        for queue in self.queues.values():
            queue[:] = [one for one in queue if one.id != delivery.token]

    async def record(self, request_id: str) -> Kept | None:
        return self.records.get(request_id)

    async def write_record(self, record: RequestRecord, revision: int) -> bool:
        known = self.records.get(record.id)
        if revision != (known.revision if known is not None else 0):
            return False
        self.records[record.id] = Kept(record, next(self.revisions))
        if has_ended(record):
            self.last_words.append(record.id)
        return True

    async def windows(self, route: str) -> Sequence[ClosedWindow]:
        return [window for window in self.closed.values() if window.route == route]

    async def window(self, batch: str) -> ClosedWindow | None:
        return self.closed.get(batch)

    async def write_window(self, window: ClosedWindow) -> None:
        self.closed[window.batch] = window

    async def drop_window(self, batch: str) -> None:
        self.closed.pop(batch, None)

    async def add_letter(self, request_id: str) -> None:
        self.dead.setdefault(request_id)

    async def letters(self) -> Sequence[str]:
        return [*self.dead]

    async def drop_letter(self, request_id: str) -> None:
        self.dead.pop(request_id, None)

    async def remember_key(self, name: str, key: KnownKey) -> KnownKey:
        return self.keys.setdefault(name, key)


class NoTakers:
    """`Takers` who leave queues alone."""

    def wake(self, _: Lane) -> None:
        pass

    def left(self, _: Lane) -> Sequence[Left]:
        return ()


@dataclass
class MemoryStores:
    """`Stores`."""

    clock: FakeClock
    known: dict[str, MemoryStore] = field(default_factory=dict)
    revisions: Iterator[int] = field(default_factory=lambda: count(1))

    def of(self, namespace: str) -> MemoryStore:
        return self.known.setdefault(namespace, MemoryStore(self.clock, revisions=self.revisions))

    async def lanes(self) -> set[Lane]:
        queued = {
            Lane(name, route) for name, store in self.known.items() for route, queue in store.queues.items() if queue
        }
        return queued | {Lane(name, one.route) for name, store in self.known.items() for one in store.closed.values()}

    async def waiting(self) -> dict[Lane, Waiting]:
        return {
            Lane(name, route): Waiting(len(queue), queue[0].accepted)
            for name, store in self.known.items()
            for route, queue in store.queues.items()
            if queue
        }

    async def position(self) -> Position:
        return Position("m", max([0, *(kept.revision for _, kept in self._records())]))

    async def changes(self, after: int, milliseconds: int) -> Changes:
        found = sorted(
            (Change(name, kept) for name, kept in self._records() if kept.revision > after),
            key=lambda change: change.kept.revision,
        )
        if not found:
            await self.clock.rest(milliseconds)
        return Changes(found, max([after, *(change.kept.revision for change in found)]))

    def _records(self) -> list[tuple[str, Kept]]:
        return [(name, kept) for name, store in self.known.items() for kept in store.records.values()]


EVERYBODY = Tenant(name="everybody", namespace="default")


@dataclass
class MemoryPlaces:
    """As much of `Places` as single requests need."""

    only: MemoryPlace

    @property
    def models(self) -> ServedModels:
        return self.only.models

    def of(self, namespace: str) -> MemoryPlace:
        assert namespace == self.only.namespace
        return self.only


@dataclass
class MemoryPlace:
    """As much of a `Place` as windows need."""

    namespace: str = "default"
    models: ServedModels = SMALL
    objects: dict[str, InferenceBatch] = field(default_factory=dict)
    lines: dict[tuple[str, Part], bytes] = field(default_factory=dict)

    async def create_window(self, batch: OurObject) -> None:
        assert isinstance(batch, InferenceBatch)
        self.objects.setdefault(batch.metadata.name, batch)

    async def find_work(self, name: str) -> InferenceBatch | None:
        return self.objects.get(name)

    async def cancel_work(self, name: str) -> InferenceBatch:
        spec = self.objects[name].spec.model_copy(update={"cancel": True})
        self.objects[name] = self.objects[name].model_copy(update={"spec": spec})
        return self.objects[name]

    async def results(self, batch: OurObject, part: Part) -> AsyncGenerator[bytes, None]:
        return _pieces(self.lines[batch.metadata.name, part])

    def ids(self, name: str) -> list[str]:
        """The requests in a batch."""
        return [record["custom_id"] for record in self.objects[name].spec.input.inline or ()]

    def finish(self, name: str, failing: frozenset[str] = frozenset()) -> None:
        """End a batch, each of whose records has a line."""
        ids, batch = self.ids(name), self.objects[name]
        if batch.status.finished:
            return
        good = [one for one in ids if one not in failing]
        bad = [one for one in ids if one in failing]
        self.lines[name, Part.OUTPUT] = b"".join(
            _line(one, response={"status_code": 200, "body": {"n": one}}) for one in good
        )
        self.lines[name, Part.ERRORS] = b"".join(
            _line(one, error={"code": "mock_error", "message": "no"}) for one in bad
        )
        self._end(name, len(good), len(bad), ConditionType.COMPLETE, Reason.RECORDS_PROCESSED)

    def _end(self, name: str, good: int, bad: int, kind: ConditionType, reason: Reason) -> None:
        condition = Condition(
            type=kind, status=ConditionStatus.TRUE, reason=reason, message="it is over", last_transition_time=NOON
        )
        status = InferenceBatchStatus(
            conditions=(condition,),
            records=RecordCounts(total=good + bad, succeeded=good, failed=bad),
            output=OutputStatus(uri=f"file:///out/{name}"),
        )
        self.objects[name] = self.objects[name].model_copy(update={"status": status})


def _line(name: str, **said: Any) -> bytes:
    return json.dumps({"custom_id": name, "response": None, "error": None, **said}).encode() + b"\n"


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 50):
        yield data[start : start + 50]


@dataclass
class Life:
    """How many calls a process makes before one fails, and whether that one is done all the same."""

    calls: int | None = None
    is_done: bool = False
    failure: type[BaseException] = Died
    """After `Died` no call is answered any more; after anything else the next ones are."""

    def mortal(self, outlives: Any) -> Any:
        """The same thing, as a process has it whose calls may fail."""
        return _Mortal(self, outlives)

    def count(self) -> bool:
        """Whether this is the call that fails. Raises `Died` when no call is answered any more."""
        if self.calls is None:
            return False
        self.calls -= 1
        if self.calls < 0 and self.failure is Died:
            raise Died
        return self.calls == 0


class _Mortal:
    def __init__(self, life: Life, outlives: Any) -> None:
        self._life, self._outlives = life, outlives

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._outlives, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*given: Any) -> Any:
            fails = self._life.count()
            if fails and not self._life.is_done:
                raise self._life.failure
            result = await found(*given)
            if fails:
                raise self._life.failure
            return result

        return call
