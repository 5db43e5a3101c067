"""The windows of all routes of all tenants. Those that have anything to do are at work; the others cost nothing.

A route of a tenant begins with the first request for it, or with what an earlier process has left, and rests when nothing has come for a
while. So a tenant that floods a route has its own queue, its own windows and its own batches, and nobody else waits in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headrace.core.asking.pressure import Left
from headrace.gateway.gathering.windows import RouteWindows
from headrace.gateway.queues.store import Lane


class _AtWork(NamedTuple):
    windows: RouteWindows
    task: asyncio.Task[None]


class Lanes:
    """Who takes requests out of queues."""

    def __init__(self, windows: Callable[[Lane], RouteWindows]) -> None:
        self._windows = windows
        self._at_work: dict[Lane, _AtWork] = {}

    def wake(self, lane: Lane) -> None:
        """See to it that the queue is looked at from now on."""
        if (known := self._at_work.get(lane)) is not None:
            known.windows.stay()
        else:
            windows = self._windows(lane)
            self._at_work[lane] = _AtWork(windows, asyncio.create_task(self._work(lane, windows)))

    def left(self, lane: Lane) -> Sequence[Left]:
        """What has left the queue of late."""
        known = self._at_work.get(lane)
        return known.windows.left if known is not None else ()

    async def close(self) -> None:
        """Stop all of them where they are."""
        tasks = [one.task for one in self._at_work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, lane: Lane, windows: RouteWindows) -> None:
        try:
            await windows.run()
        finally:  # nothing is awaited between the last look of the windows and this, so no wish to stay is lost
            del self._at_work[lane]
