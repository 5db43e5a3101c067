"""Putting a request into the queue of its route, or saying when to come again."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.asking import QueuedRequest, RequestRoute
from headrace.core.asking.pressure import retry_after
from headrace.core.openai.errors import too_many
from headrace.gateway.clocks import Clock
from headrace.gateway.store import QueueFull, Store
from headrace.gateway.windows import RouteWindows


class Queue:
    """The queues of all routes."""

    def __init__(self, store: Store, windows: Mapping[str, RouteWindows], clock: Clock) -> None:
        """`windows`: those of each route, by its name."""
        self._store, self._windows, self._clock = store, windows, clock

    async def add(self, route: RequestRoute, asked: QueuedRequest) -> None:
        """Once this returns the request is not lost any more. Raises `ApiError` when there is no room."""
        try:
            await self._store.add(route.name, asked)
        except QueueFull as full:
            seconds = retry_after(route.max_queued, self._windows[route.name].left, self._clock.now())
            message = f"{route.max_queued} requests wait on the route {route.name} already: come again later"
            raise too_many(message, seconds) from full
