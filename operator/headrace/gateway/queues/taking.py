"""Who takes requests out of queues where several gateways share them: the one whose work it is, told by the others what has come.

A call that is lost is no request lost: the one whose work it is also looks by itself, now and then, whether anything waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Never, Protocol, TypeAlias

from nats.aio.client import Client
from nats.aio.msg import Msg

from headrace.core.asking.pressure import Left
from headrace.gateway.clocks import Clock
from headrace.gateway.endless import end_if_cancelled, keep_on
from headrace.gateway.gathering.lanes import Lanes
from headrace.gateway.gathering.windows import RouteWindows
from headrace.gateway.queues.connecting import away
from headrace.gateway.queues.store import Lane, Stores

Work: TypeAlias = Callable[[], Coroutine[Any, Any, Never]]
LOOK_MILLISECONDS = 10_000
"""How often all queues are looked at."""
CALL_MILLISECONDS = 50
"""How long calls wait for others: far less than it takes until the windows of a route rest."""
_SUBJECT = "headrace.calls"


class Owner(Protocol):
    """Decides whose work it is."""

    async def own(self, work: Work) -> Never:
        """Begin the work whenever it becomes this process's, and end it when it is no more, until cancelled."""


class Taking:
    """`Takers` of this process, whether or not it is the one."""

    def __init__(
        self,
        client: Client,
        stores: Stores,
        routes: Collection[str],
        windows: Callable[[Lane], RouteWindows],
        clock: Clock,
    ) -> None:
        """`routes`: names of those that are served."""
        self._client, self._stores, self._routes, self._windows, self._clock = client, stores, routes, windows, clock
        self._lanes: Lanes | None = None
        """Those at work, while it is the one."""
        self._to_call: set[Lane] = set()
        self._something = asyncio.Event()

    def wake(self, lane: Lane) -> None:
        """See to it that the queue is looked at, by whoever does that."""
        if self._lanes is not None:
            self._lanes.wake(lane)
        else:
            self._to_call.add(lane)
            self._something.set()

    def left(self, lane: Lane) -> Sequence[Left]:
        """What has left the queue of late, as far as it is known here."""
        return self._lanes.left(lane) if self._lanes is not None else ()

    async def call(self) -> Never:
        """Tell the one whose work it is what has come, until cancelled."""
        await keep_on("calls", self._call, self._clock)
        raise AssertionError("it has no end")

    async def take(self) -> Never:
        """Be the one, until cancelled."""
        lanes = self._lanes = Lanes(self._windows)
        try:
            await keep_on("queues", self._look, self._clock)
        finally:
            self._lanes = None
            await lanes.close()
        raise AssertionError("it has no end")

    async def _call(self) -> Never:
        while True:
            await self._something.wait()
            self._something.clear()
            called, self._to_call = self._to_call, set()
            with away():
                for lane in called:
                    await self._client.publish(f"{_SUBJECT}.{lane.namespace}.{lane.route}")
            end_if_cancelled()
            await self._clock.rest(CALL_MILLISECONDS)

    async def _look(self) -> Never:
        with away():
            heard = await self._client.subscribe(f"{_SUBJECT}.*.*", cb=self._heard)
        try:
            while True:
                for lane in await self._stores.lanes():
                    self._wake_known(lane)
                end_if_cancelled()
                await self._clock.rest(LOOK_MILLISECONDS)
        finally:
            await heard.unsubscribe()

    async def _heard(self, message: Msg) -> None:
        self._wake_known(Lane(*message.subject.split(".")[-2:]))

    def _wake_known(self, lane: Lane) -> None:
        if lane.route in self._routes and self._lanes is not None:
            self._lanes.wake(lane)
