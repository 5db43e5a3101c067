"""A warm pool: windows wait in a queue for workers that keep the model loaded, and requests are answered as these say their lines.

Windows, and what workers have died over, are in the store; what is here can be lost. Whoever comes next is given the windows that are
open, asks which of their requests have no answer, and has those worked on again: at least once, and answered once, for an answer is
written by who has seen the last version of the record. Workers that outlive whoever has started them are found, and go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Never

from headrace.api.asking import ClosedWindow, QueuedRequest, RequestRoute
from headrace.api.targets import WarmPool
from headrace.api.worker import FREE, ExitCode, Partial, parse_partial
from headrace.core.asking.batches import failed, outcome_of
from headrace.core.asking.pool import (
    PoolWorker,
    Trouble,
    after_failed_start,
    after_refused_start,
    expired,
    is_stale,
    scaling,
    standing_in_the_way,
)
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import end_if_cancelled, keep_on
from headrace.gateway.gathering.poolwork import PoolWork, Tenant, Told
from headrace.gateway.gathering.poolworkers import End, NotStarted, Worker, Workers
from headrace.gateway.together import together

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the number of workers is looked at while nothing happens."""
_LOOK_BACK_SECONDS = 0.2


@dataclass(slots=True)
class _Slot:
    """A worker, and the requests that it has not answered."""

    worker: Worker
    ready: bool = False
    stopped: bool = False
    idle_since: int | None = None
    told: dict[str, Told] = field(default_factory=dict)


class Pool:
    """The pool of one route, for all tenants."""

    def __init__(
        self,
        route: RequestRoute,
        workers: Workers,
        clock: Clock,
        grown: Callable[[str, Partial], None] = lambda _namespace, _partial: None,
    ) -> None:
        """`grown` is told how far answers have come, each with the namespace of its tenant."""
        self._route, self._workers, self._clock, self._grown = route, workers, clock, grown
        self._work = PoolWork(route, clock)
        self._slots: dict[str, _Slot] = {}
        self._tending: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._trouble: Trouble | None = None
        self.is_at_work = False
        """Whether its workers are told of requests here; of several gateways one does."""

    @property
    def trouble(self) -> Trouble | None:
        """Why no worker is ready: the last one has ended before it was, or something stands in the way of those that start."""
        obstacles = [slot.worker.obstacle for slot in self._slots.values() if not slot.ready]
        return self._trouble or standing_in_the_way([*self.workers], obstacles)

    @property
    def workers(self) -> Collection[PoolWorker]:
        """Those that have not ended."""
        live = (it for it in self._slots.values() if not it.stopped)
        return [PoolWorker(it.worker.name, it.idle_since, it.ready, it.worker.since) for it in live]

    def waiting(self, namespace: str) -> int:
        """Requests of a tenant in windows that no worker has been told of."""
        return self._work.waiting_of(namespace)

    def has_room(self, namespace: str) -> bool:
        """Whether another window of a tenant may close: so many may wait as there can be workers, and they are the fuller for it."""
        return self._work.windows_of(namespace) < self._pool.max

    def knows(self, window: ClosedWindow) -> bool:
        """Whether it has taken up the window."""
        return self._work.knows(window)

    def add(self, tenant: Tenant, window: ClosedWindow, waiting: Sequence[QueuedRequest]) -> None:
        """Let these requests of a window wait for a worker."""
        self._work.add(tenant, window, waiting)
        self._changed.set()

    def is_answered(self, window: ClosedWindow) -> bool:
        """Whether all of a window are; then nothing more is known of it."""
        return self._work.is_answered(window)

    async def run(self, hurry: Callable[[], bool] = lambda: False) -> Never:
        """Have windows worked on until cancelled; then all workers are left, and with `hurry` nobody waits for what they still say."""
        self.is_at_work = True
        try:
            await keep_on(f"pool {self._route.name}", self._workers.begin, self._clock)
            await keep_on(f"pool {self._route.name}", self._go_on, self._clock)
        finally:
            await self._leave_all(hurry)
            await self._workers.close()
            self._work.forget()
            self._trouble, self.is_at_work = None, False
        raise AssertionError("it has no end")

    async def step(self) -> None:
        """Do what there is to do now."""
        now = self._clock.now()
        await self._expire(now)
        for worker in self._workers.found():
            self._take_in(worker)
        self._hand_out()
        await self._scale(now)
        await self._tell_of_trouble()

    async def _go_on(self) -> Never:
        while True:
            self._changed.clear()
            await self.step()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
            end_if_cancelled()

    async def _scale(self, now: int) -> None:
        """Those of whom the next windows are made count too, of tenants who have one here already."""
        queued = await together(store.depth(self._route.name) for store in self._work.stores)
        waiting = self._work.waiting + sum(queued)
        wanted = scaling(self._pool, [*self.workers], waiting, now, self._trouble)
        for name in wanted.stop:
            self._slots[name].stopped = True
            self._slots[name].worker.stop()
        for _ in range(wanted.start):
            try:
                self._take_in(await self._workers.start())
            except NotStarted as error:
                self._trouble = after_refused_start(self._trouble, error.failure, now)
                logger.warning("pool %s: no worker can be started: %s", self._route.name, error)
                return

    @property
    def _pool(self) -> WarmPool:
        assert self._route.target.warm_pool is not None, "that is what this is for"
        return self._route.target.warm_pool

    def _take_in(self, worker: Worker) -> None:
        slot = self._slots[worker.name] = _Slot(worker)
        task = asyncio.create_task(self._tend(slot))
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    def _hand_out(self) -> None:
        """Tell each worker that has nothing to do of the next micro-batch."""
        for slot in self._slots.values():
            is_leaving = slot.stopped or is_stale(self._pool, slot.worker.since, self._clock.now())
            if self._work and slot.idle_since is not None and not is_leaving:
                batch, told = self._work.next()
                slot.idle_since = None
                slot.told |= {one.request.id: one for one in told}
                slot.worker.tell(batch.line())

    async def _tend(self, slot: _Slot) -> None:
        """Listen to a worker until its end, and see to what it has left undone."""
        async with asyncio.TaskGroup() as answering:
            try:
                async for line in slot.worker.lines():
                    self._hear(slot, line, answering)
            except (ValueError, KeyError):  # no line of ours: whatever it is, it is nobody who can be worked with
                logger.exception("pool %s: %s says what nobody understands", self._route.name, slot.worker.name)
                slot.worker.kill()
        end = await slot.worker.end()
        del self._slots[slot.worker.name]
        await self._mourn(slot, end)
        self._changed.set()

    def _hear(self, slot: _Slot, line: bytes, answering: asyncio.TaskGroup) -> None:
        if line == FREE:
            slot.ready, slot.idle_since, self._trouble = True, self._clock.now(), None
            self._changed.set()
            return
        if (partial := parse_partial(line)) is not None:
            if (told := slot.told.get(partial.custom_id)) is not None:
                self._grown(self._work.namespace_of(told), partial)
            return
        name, outcome = outcome_of(line)
        if (told := slot.told.pop(name, None)) is not None:
            answering.create_task(self._work.answer(told, outcome))

    async def _mourn(self, slot: _Slot, end: End) -> None:
        """A worker has ended: what it has not answered waits again, or is answered for it."""
        told, slot.told = [*slot.told.values()], {}
        if end.exit_code == ExitCode.DRAINED:
            self._work.put_back(told)
            return
        if not slot.ready and not slot.stopped:
            self._note_trouble(end)
        if end.exit_code == ExitCode.JOB_FAILED and end.failure is not None:
            await self._work.answer_all(told, failed(end.failure.reason, end.failure.message))
        elif told:
            named = self._route.name, slot.worker.name, end.exit_code, len(told)
            logger.warning("pool %s: %s has ended with %d over %d requests", *named)
            await self._work.try_again(told)

    def _note_trouble(self, end: End) -> None:
        found = self._trouble = after_failed_start(self._trouble, end.exit_code, end.failure, self._clock.now())
        logger.error("pool %s: no worker is ready: %s: %s", self._route.name, found.reason, found.message)

    async def _tell_of_trouble(self) -> None:
        """Who waits is told that there is no worker and why, until another one is tried."""
        if self._trouble is not None and self._trouble.final and not self._slots:
            await self._work.answer_all(self._work.all_waiting(), self._trouble.outcome)

    async def _expire(self, now: int) -> None:
        """Those whose time is over have expired; a worker that has not answered them by then hangs, and is killed."""
        over = self._work.late(now)
        for slot in self._slots.values():
            hanging = [name for name, one in slot.told.items() if one.deadline <= now]
            over += [slot.told.pop(name) for name in hanging]
            if hanging:
                slot.worker.kill()
        await self._work.answer_all(over, expired(self._route))

    async def _leave_all(self, hurry: Callable[[], bool]) -> None:
        """Leave all workers, and hear what they still have to say."""
        for slot in self._slots.values():
            slot.stopped = True
            slot.worker.leave()
        while self._slots:
            await asyncio.wait(self._tending, timeout=_LOOK_BACK_SECONDS)
            for slot in self._slots.values() if hurry() else ():
                slot.worker.kill()
            if hurry():
                break
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        self._slots.clear()
