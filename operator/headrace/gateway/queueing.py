"""Putting a request into the queue of its route, or saying when to come again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from headrace.api.asking import QueuedRequest, RequestRoute
from headrace.core.asking.pressure import Left, retry_after
from headrace.core.openai.errors import too_many
from headrace.gateway.clocks import Clock
from headrace.gateway.store import QueueFull, Store


class RouteQueue(Protocol):
    """What is known of the queue of one route by who takes requests out of it."""

    @property
    def left(self) -> Sequence[Left]:
        """What has left it of late."""


class Queue:
    """The queues of all routes."""

    def __init__(self, store: Store, queues: Mapping[str, RouteQueue], clock: Clock) -> None:
        """`queues`: each by the name of its route."""
        self._store, self._queues, self._clock = store, queues, clock

    async def add(self, route: RequestRoute, asked: QueuedRequest) -> None:
        """Once this returns the request is not lost any more. Raises `ApiError` when there is no room."""
        try:
            await self._store.add(route.name, asked)
        except QueueFull as full:
            seconds = retry_after(route.max_queued, self._queues[route.name].left, self._clock.now())
            message = f"{route.max_queued} requests wait on the route {route.name} already: come again later"
            raise too_many(message, seconds) from full
