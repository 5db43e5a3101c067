"""What a warm pool has to do: the windows that were taken up, their requests that wait for a worker, and the answers to them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.api.asking import ClosedWindow, QueuedRequest, RequestRoute
from headrace.api.targets import WarmPool
from headrace.api.worker import MicroBatch, ToldRequest
from headrace.core.asking.life import Outcome
from headrace.core.asking.pool import Chunk, after_loss, chunks, given_up
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import AFTER_FAILURE_MILLISECONDS
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.queues.store import Store, StoreAway
from headrace.gateway.together import together

logger = logging.getLogger(__name__)


class Tenant(Protocol):
    """Whose window it is."""

    namespace: str
    store: Store
    answers: Answers


@dataclass(slots=True)
class _Window:
    """A window that was taken up, and its requests that have no answer."""

    tenant: Tenant
    window: ClosedWindow
    waiting: dict[str, QueuedRequest]


class Told(NamedTuple):
    """A request that a worker has been told of."""

    window: str
    request: QueuedRequest
    deadline: int


class PoolWork:
    """All of it, of all tenants: their windows wait in one line, and each may have so many in it."""

    def __init__(self, route: RequestRoute, clock: Clock) -> None:
        self._route, self._clock = route, clock
        self._windows: dict[str, _Window] = {}
        self._todo: deque[Chunk] = deque()

    def __bool__(self) -> bool:
        """Whether any request waits for a worker."""
        return bool(self._todo)

    @property
    def waiting(self) -> int:
        """Requests that no worker has been told of."""
        return sum(len(chunk.members) for chunk in self._todo)

    def waiting_of(self, namespace: str) -> int:
        """Those of a tenant."""
        return sum(len(chunk.members) for chunk in self._todo if self._tenant(chunk.window).namespace == namespace)

    def windows_of(self, namespace: str) -> int:
        """Windows of a tenant with such requests."""
        return len({one.window for one in self._todo if self._tenant(one.window).namespace == namespace})

    @property
    def stores(self) -> Collection[Store]:
        """Those of tenants who have a window here."""
        return {known.tenant.namespace: known.tenant.store for known in self._windows.values()}.values()

    def knows(self, window: ClosedWindow) -> bool:
        """Whether it was taken up."""
        return window.batch in self._windows

    def add(self, tenant: Tenant, window: ClosedWindow, waiting: Sequence[QueuedRequest]) -> None:
        """Let these requests of a window wait for a worker."""
        self._windows[window.batch] = _Window(tenant, window, {member.id: member for member in waiting})
        self._todo += chunks(window, waiting, self._route)

    def is_answered(self, window: ClosedWindow) -> bool:
        """Whether all of a window are; then nothing more is known of it. Of one that was forgotten nobody can tell."""
        if window.batch not in self._windows or self._windows[window.batch].waiting:
            return False
        del self._windows[window.batch]
        return True

    def forget(self) -> None:
        """Whoever comes next takes up all windows anew."""
        self._windows.clear()
        self._todo.clear()

    def next(self) -> tuple[MicroBatch, Sequence[Told]]:
        """What a worker is to be told next."""
        chunk = self._todo.popleft()
        lost = self._windows[chunk.window].window.lost
        requests = (
            ToldRequest(custom_id=one.id, body=one.body, attempt=1 + lost.get(one.id, 0)) for one in chunk.members
        )
        often = self._pool.partial_milliseconds or None
        return MicroBatch(requests=tuple(requests), partial_milliseconds=often), _told(chunk)

    def namespace_of(self, told: Told) -> str:
        """Of the tenant who has asked it."""
        return self._tenant(told.window).namespace

    def late(self, now: int) -> list[Told]:
        """Those whose time is over: they wait no longer."""
        late = [chunk for chunk in self._todo if chunk.deadline <= now]
        for chunk in late:
            self._todo.remove(chunk)
        return [one for chunk in late for one in _told(chunk)]

    def all_waiting(self) -> list[Told]:
        """All: they wait no longer."""
        found = [one for chunk in self._todo for one in _told(chunk)]
        self._todo.clear()
        return found

    def put_back(self, told: Iterable[Told]) -> None:
        """Let them wait again, before all others."""
        for name in {one.window: None for one in told}:
            again = [one.request for one in told if one.window == name]
            self._todo.extendleft(reversed(chunks(self._windows[name].window, again, self._route)))

    async def try_again(self, told: Sequence[Told]) -> None:
        """A worker has died over them: that counts, before anybody is told of them once more. Those with too many deaths are answered."""
        await self._count_loss(told)
        self.put_back(await self._not_given_up(told))

    async def answer(self, told: Told, outcome: Outcome) -> None:
        """Write an answer down, however long that takes: nobody else has it."""
        while True:
            try:
                await self._tenant(told.window).answers.answer(told.request.id, outcome, told.request.body)
            except StoreAway as error:
                logger.warning("pool %s: %s; it is tried again", self._route.name, error)
            except Exception:
                logger.exception("pool %s: this should not have happened; it is tried again", self._route.name)
            else:
                self._windows[told.window].waiting.pop(told.request.id, None)
                return
            await self._clock.rest(AFTER_FAILURE_MILLISECONDS)

    async def answer_all(self, told: Iterable[Told], outcome: Outcome) -> None:
        """The same to all of them."""
        await together(self.answer(one, outcome) for one in told)

    @property
    def _pool(self) -> WarmPool:
        assert self._route.target.warm_pool is not None, "that is what this is for"
        return self._route.target.warm_pool

    def _tenant(self, window: str) -> Tenant:
        return self._windows[window].tenant

    async def _count_loss(self, told: Sequence[Told]) -> None:
        for name in {one.window for one in told}:
            known = self._windows[name]
            known.window = after_loss(known.window, [one.request for one in told if one.window == name])
            with suppress(StoreAway):  # counted here all the same: a store that is away forgets one death at most
                await known.tenant.store.write_window(known.window)

    async def _not_given_up(self, told: Sequence[Told]) -> list[Told]:
        """Answer those over which too many workers have died; gives the others."""
        left = []
        for one in told:
            outcome = given_up(self._windows[one.window].window, one.request, self._pool)
            if outcome is None:
                left.append(one)
            else:
                await self.answer(one, outcome)
        return left


def _told(chunk: Chunk) -> list[Told]:
    return [Told(chunk.window, one, chunk.deadline) for one in chunk.members]
