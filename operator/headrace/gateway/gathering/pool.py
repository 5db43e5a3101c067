"""A warm pool: windows wait in a queue for workers that keep the model loaded, and requests are answered as these say their lines.

Windows, and what workers have died over, are in the store; what is here can be lost. Whoever comes next is given the windows that are
open, asks which of their requests have no answer, and has those worked on again: at least once, and answered once, for an answer is
written by who has seen the last version of the record.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Never

from headrace.api.asking import ClosedWindow, QueuedRequest, RequestRoute
from headrace.api.targets import WarmPool
from headrace.api.worker import FREE, ExitCode, MicroBatch, Partial, ToldRequest, parse_partial
from headrace.core.asking.batches import failed, outcome_of
from headrace.core.asking.life import Outcome, belongs
from headrace.core.asking.pool import (
    Chunk,
    PoolWorker,
    Trouble,
    after_failed_start,
    after_loss,
    chunks,
    expired,
    given_up,
    is_stale,
    scaling,
)
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import AFTER_FAILURE_MILLISECONDS, end_if_cancelled, keep_on
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.gathering.poolworkers import End, Worker, Workers
from headrace.gateway.queues.store import Store, StoreAway
from headrace.gateway.together import together

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the number of workers is looked at while nothing happens."""
_LOOK_BACK_SECONDS = 0.2


@dataclass(slots=True)
class _Window:
    """A window that was taken up, and its requests that have no answer."""

    lane: PoolLane
    window: ClosedWindow
    waiting: dict[str, QueuedRequest]


class _Told(NamedTuple):
    """A request that a worker has been told of."""

    window: str
    request: QueuedRequest
    deadline: int


@dataclass(slots=True)
class _Slot:
    """A worker, and the requests that it has not answered."""

    worker: Worker
    since: int
    ready: bool = False
    stopped: bool = False
    idle_since: int | None = None
    told: dict[str, _Told] = field(default_factory=dict)


class Pool:
    """The pool of one route, for all tenants: their windows wait in one line, and each may have so many in it."""

    def __init__(
        self,
        route: RequestRoute,
        workers: Workers,
        clock: Clock,
        grown: Callable[[str, Partial], None] = lambda _namespace, _partial: None,
    ) -> None:
        """`grown` is told how far answers have come, each with the namespace of its tenant."""
        self._route, self._workers, self._clock, self._grown = route, workers, clock, grown
        self._windows: dict[str, _Window] = {}
        self._todo: deque[Chunk] = deque()
        self._slots: dict[str, _Slot] = {}
        self._tending: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._trouble: Trouble | None = None

    @property
    def trouble(self) -> Trouble | None:
        """Why no worker is ready, when the last one that was started has ended before it was."""
        return self._trouble

    @property
    def workers(self) -> Collection[PoolWorker]:
        """Those that have not ended."""
        live = (slot for slot in self._slots.values() if not slot.stopped)
        return [PoolWorker(slot.worker.name, slot.idle_since, slot.ready, slot.since) for slot in live]

    def waiting(self, namespace: str) -> int:
        """Requests of a tenant in windows that no worker has been told of."""
        return sum(len(chunk.members) for chunk in self._todo if self._namespace(chunk) == namespace)

    def has_room(self, namespace: str) -> bool:
        """Whether another window of a tenant may close: so many may wait as there can be workers, and they are the fuller for it."""
        mine = {chunk.window for chunk in self._todo if self._namespace(chunk) == namespace}
        return len(mine) < self._pool.max

    def knows(self, window: ClosedWindow) -> bool:
        """Whether it has taken up the window."""
        return window.batch in self._windows

    def add(self, lane: PoolLane, window: ClosedWindow, waiting: Sequence[QueuedRequest]) -> None:
        """Let these requests of a window wait for a worker."""
        self._windows[window.batch] = _Window(lane, window, {member.id: member for member in waiting})
        self._todo += chunks(window, waiting, self._route)
        self._changed.set()

    def is_answered(self, window: ClosedWindow) -> bool:
        """Whether all of a window are; then nothing more is known of it."""
        if self._windows[window.batch].waiting:
            return False
        del self._windows[window.batch]
        return True

    async def run(self, hurry: Callable[[], bool] = lambda: False) -> Never:
        """Have windows worked on until cancelled; then all workers are stopped, and with `hurry` killed."""
        try:
            await keep_on(f"pool {self._route.name}", self._work, self._clock)
        finally:
            await self._stop_all(hurry)

    async def step(self) -> None:
        """Do what there is to do now."""
        now = self._clock.now()
        await self._expire(now)
        self._hand_out()
        await self._scale(now)
        await self._tell_of_trouble()

    async def _work(self) -> Never:
        while True:
            self._changed.clear()
            await self.step()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
            end_if_cancelled()

    async def _scale(self, now: int) -> None:
        """Those of whom the next windows are made count too, of tenants who have one here already."""
        stores = {known.lane.namespace: known.lane.store for known in self._windows.values()}
        queued = await together(store.depth(self._route.name) for store in stores.values())
        waiting = sum(len(chunk.members) for chunk in self._todo) + sum(queued)
        wanted = scaling(self._pool, [*self.workers], waiting, now, self._trouble)
        for name in wanted.stop:
            self._slots[name].stopped = True
            self._slots[name].worker.stop()
        for _ in range(wanted.start):
            await self._start()

    def _namespace(self, chunk: Chunk) -> str:
        return self._windows[chunk.window].lane.namespace

    @property
    def _pool(self) -> WarmPool:
        assert self._route.target.warm_pool is not None, "that is what this is for"
        return self._route.target.warm_pool

    async def _start(self) -> None:
        slot = _Slot(await self._workers.start(), self._clock.now())
        self._slots[slot.worker.name] = slot
        task = asyncio.create_task(self._tend(slot))
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    def _hand_out(self) -> None:
        """Tell each worker that has nothing to do of the next micro-batch."""
        for slot in self._slots.values():
            is_leaving = slot.stopped or is_stale(self._pool, slot.since, self._clock.now())
            if self._todo and slot.idle_since is not None and not is_leaving:
                chunk, slot.idle_since = self._todo.popleft(), None
                slot.told |= {one.id: _Told(chunk.window, one, chunk.deadline) for one in chunk.members}
                slot.worker.tell(self._micro_batch(chunk).line())

    def _micro_batch(self, chunk: Chunk) -> MicroBatch:
        lost = self._windows[chunk.window].window.lost
        return MicroBatch(
            requests=tuple(
                ToldRequest(custom_id=one.id, body=one.body, attempt=1 + lost.get(one.id, 0)) for one in chunk.members
            ),
            partial_milliseconds=self._pool.partial_milliseconds or None,
        )

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
                self._grown(self._windows[told.window].lane.namespace, partial)
            return
        name, outcome = outcome_of(line)
        if (told := slot.told.pop(name, None)) is not None:
            answering.create_task(self._answer(told, outcome))

    async def _answer(self, told: _Told, outcome: Outcome) -> None:
        """Write an answer down, however long that takes: nobody else has it."""
        while True:
            try:
                await self._windows[told.window].lane.answers.answer(told.request.id, outcome, told.request.body)
            except StoreAway as error:
                logger.warning("pool %s: %s; it is tried again", self._route.name, error)
            except Exception:
                logger.exception("pool %s: this should not have happened; it is tried again", self._route.name)
            else:
                self._windows[told.window].waiting.pop(told.request.id, None)
                return
            await self._clock.rest(AFTER_FAILURE_MILLISECONDS)

    async def _mourn(self, slot: _Slot, end: End) -> None:
        """A worker has ended: what it has not answered waits again, or is answered for it."""
        told, slot.told = [*slot.told.values()], {}
        if not slot.ready and not slot.stopped:
            self._note_trouble(end)
        if end.exit_code == ExitCode.DRAINED:
            self._put_back(told)
        elif end.exit_code == ExitCode.JOB_FAILED and end.failure is not None:
            outcome = failed(end.failure.reason, end.failure.message)
            await together(self._answer(one, outcome) for one in told)
        elif told:
            logger.warning("pool %s: %s has ended with %d over %d requests", *self._named(slot, end), len(told))
            await self._count_loss(told)
            self._put_back(await self._not_given_up(told))

    def _named(self, slot: _Slot, end: End) -> tuple[str, str, int]:
        return self._route.name, slot.worker.name, end.exit_code

    def _note_trouble(self, end: End) -> None:
        found = self._trouble = after_failed_start(self._trouble, end.exit_code, end.failure, self._clock.now())
        logger.error("pool %s: no worker is ready: %s: %s", self._route.name, found.reason, found.message)

    async def _tell_of_trouble(self) -> None:
        """Who waits is told that there is no worker and why, until another one is tried."""
        if self._trouble is not None and self._trouble.final and not self._slots:
            waiting = [one for chunk in self._todo for one in self._told(chunk)]
            self._todo.clear()
            outcome = self._trouble.outcome
            await together(self._answer(one, outcome) for one in waiting)

    @staticmethod
    def _told(chunk: Chunk) -> list[_Told]:
        return [_Told(chunk.window, one, chunk.deadline) for one in chunk.members]

    async def _count_loss(self, told: Iterable[_Told]) -> None:
        """Write down over which requests a worker has died, before anybody is told of them once more."""
        for name in {one.window for one in told}:
            known = self._windows[name]
            known.window = after_loss(known.window, [one.request for one in told if one.window == name])
            with suppress(StoreAway):  # counted here all the same: a store that is away forgets one death at most
                await known.lane.store.write_window(known.window)

    async def _not_given_up(self, told: Iterable[_Told]) -> list[_Told]:
        """Answer those over which too many workers have died; gives the others."""
        left = []
        for one in told:
            outcome = given_up(self._windows[one.window].window, one.request, self._pool)
            if outcome is None:
                left.append(one)
            else:
                await self._answer(one, outcome)
        return left

    def _put_back(self, told: Iterable[_Told]) -> None:
        """Let them wait again, before all others."""
        for name in {one.window: None for one in told}:
            again = [one.request for one in told if one.window == name]
            self._todo.extendleft(reversed(chunks(self._windows[name].window, again, self._route)))

    async def _expire(self, now: int) -> None:
        """Those whose time is over have expired; a worker that has not answered them by then hangs, and is killed."""
        late = [chunk for chunk in self._todo if chunk.deadline <= now]
        over = [one for chunk in late for one in self._told(chunk)]
        for chunk in late:
            self._todo.remove(chunk)
        for slot in self._slots.values():
            hanging = [name for name, one in slot.told.items() if one.deadline <= now]
            over += [slot.told.pop(name) for name in hanging]
            if hanging:
                slot.worker.kill()
        await together(self._answer(one, expired(self._route)) for one in over)

    async def _stop_all(self, hurry: Callable[[], bool]) -> None:
        """Stop all workers, and hear what they still have to say."""
        for slot in self._slots.values():
            slot.stopped = True
            slot.worker.stop()
        while self._slots:
            await asyncio.wait(self._tending, timeout=_LOOK_BACK_SECONDS)
            for slot in self._slots.values() if hurry() else ():
                slot.worker.kill()
            if hurry():
                break
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)


class PoolLane:
    """A `Target`: the pool of a route, as the windows of one tenant know it."""

    def __init__(self, pool: Pool, namespace: str, store: Store, answers: Answers) -> None:
        self._pool, self.namespace, self.store, self.answers = pool, namespace, store, answers

    def has_room(self, open_windows: int) -> bool:  # noqa: ARG002 - one with a request that is being tried again may be open for long
        """As the pool says."""
        return self._pool.has_room(self.namespace)

    async def create(self, window: ClosedWindow) -> None:
        """Nothing: the window itself is all there is."""

    async def take_up(self, window: ClosedWindow, *, again: bool) -> None:
        """Let its requests wait for a worker; when it was taken up before, those that have no answer."""
        if self._pool.knows(window):
            return
        waiting: Sequence[QueuedRequest] = window.members
        if again:
            kept = await together(self.store.record(member.id) for member in waiting)
            pairs = zip(waiting, kept, strict=True)
            waiting = [member for member, one in pairs if one is not None and belongs(one.record, window.batch)]
        self._pool.add(self, window, waiting)

    async def collect(self, window: ClosedWindow) -> bool:
        """Whether all are answered; that is done as soon as a worker says a line."""
        return self._pool.is_answered(window)
