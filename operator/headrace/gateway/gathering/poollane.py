"""The windows of a tenant, as a warm pool is given them."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.asking import ClosedWindow, QueuedRequest
from headrace.core.asking.life import belongs
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.gathering.pool import Pool
from headrace.gateway.queues.store import Store
from headrace.gateway.together import together


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
