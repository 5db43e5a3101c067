"""Putting a request into the queue of its route, or saying when to come again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.api.asking import QueuedRequest, RequestRoute
from headrace.core.asking.pressure import Left, retry_after
from headrace.core.openai.errors import too_many
from headrace.gateway.clocks import Clock
from headrace.gateway.queues.store import Lane, QueueFull, Store


class Takers(Protocol):
    """Who takes requests out of queues."""

    def wake(self, lane: Lane) -> None:
        """See to it that the queue is looked at from now on."""

    def left(self, lane: Lane) -> Sequence[Left]:
        """What has left the queue of late."""


class Queue:
    """The queues of one tenant."""

    def __init__(self, namespace: str, store: Store, takers: Takers, clock: Clock) -> None:
        self._namespace, self._store, self._takers, self._clock = namespace, store, takers, clock

    async def add(self, route: RequestRoute, asked: QueuedRequest) -> None:
        """Once this returns the request is not lost any more. Raises `ApiError` when there is no room."""
        lane = Lane(self._namespace, route.name)
        try:
            await self._store.add(route, asked)
        except QueueFull as full:
            seconds = retry_after(route.max_queued, self._takers.left(lane), self._clock.now())
            message = f"{route.max_queued} requests wait on the route {route.name} already: come again later"
            raise too_many(message, seconds) from full
        finally:  # also when nobody knows whether it is there
            self._takers.wake(lane)
