"""Lanes begin when something comes and rest when nothing does, and nothing that comes meanwhile is left lying."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from asking_desk import MODELS
from asking_rig import FakeClock, MemoryStores
from headrace.api.asking import ClosedWindow, QueuedRequest
from headrace.gateway.gathering.lanes import Lanes
from headrace.gateway.gathering.windows import RESTS_AFTER_MILLISECONDS, RouteWindows
from headrace.gateway.queues.queueing import Queue
from headrace.gateway.queues.store import Lane
from laptop import PATIENCE_SECONDS

ROUTE = MODELS.routes[0]


class AtOnce:
    """A `Target` that has answered each window as soon as it is asked."""

    def has_room(self, _: int) -> bool:
        return True

    async def create(self, window: ClosedWindow) -> None:
        pass

    async def take_up(self, window: ClosedWindow, *, again: bool) -> None:
        pass

    async def collect(self, _: ClosedWindow) -> bool:
        return True


def lanes(stores: MemoryStores) -> Lanes:
    def windows(lane: Lane) -> RouteWindows:
        return RouteWindows(ROUTE, MODELS.models[0], stores.of(lane.namespace), AtOnce(), stores.clock)

    return Lanes(windows)


def queued(number: int, clock: FakeClock) -> QueuedRequest:
    return QueuedRequest(id=f"req_chat_{number:024x}", accepted=clock.now(), tokens=1, body={})


def within_patience(story: Coroutine[Any, Any, None]) -> None:
    async def tell() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await story

    asyncio.run(tell())


@dataclass
class LastMoment(FakeClock):
    """Something comes while a lane waits for the last time before it rests: it has looked at its queue already."""

    come: Callable[[], Awaitable[None]] | None = None

    async def rest(self, milliseconds: int) -> None:
        await super().rest(milliseconds)
        if self.come is not None and self.now() >= FakeClock().now() + RESTS_AFTER_MILLISECONDS:
            come, self.come = self.come, None
            await come()


def test_request_that_comes_in_the_last_moment_is_taken() -> None:
    async def story() -> None:
        clock = LastMoment()
        stores = MemoryStores(clock)
        working = lanes(stores)
        queue = Queue("red", stores.of("red"), working, clock)
        clock.come = lambda: queue.add(ROUTE, queued(1, clock))
        working.wake(Lane("red", ROUTE.name))
        while not stores.of("red").records or await stores.lanes():
            await asyncio.sleep(0)
        assert clock.come is None
        await working.close()

    within_patience(story())


def test_request_that_comes_after_a_rest_is_taken() -> None:
    async def story() -> None:
        clock = FakeClock()
        stores = MemoryStores(clock)
        working = lanes(stores)
        for number in range(20):
            namespace = "red" if number % 3 else "blue"
            await Queue(namespace, stores.of(namespace), working, clock).add(ROUTE, queued(number, clock))
            for _ in range(10 * number):
                await asyncio.sleep(0)
            clock.milliseconds += RESTS_AFTER_MILLISECONDS
        while await stores.lanes():
            await asyncio.sleep(0)
        assert sum(len(store.records) for store in stores.known.values()) == 20
        await working.close()

    within_patience(story())


def test_lane_rests_and_what_is_at_rest_costs_nothing() -> None:
    async def story() -> None:
        clock = FakeClock()
        working, lane = lanes(MemoryStores(clock)), Lane("red", ROUTE.name)
        working.wake(lane)
        assert len(asyncio.all_tasks()) == 2
        while len(asyncio.all_tasks()) == 2:
            await asyncio.sleep(0)
        assert clock.now() >= FakeClock().now() + RESTS_AFTER_MILLISECONDS
        assert working.left(lane) == ()

    within_patience(story())


def test_lanes_that_are_closed_stop() -> None:
    async def story() -> None:
        working = lanes(MemoryStores(FakeClock()))
        working.wake(Lane("red", ROUTE.name))
        await asyncio.sleep(0)
        await working.close()
        assert len(asyncio.all_tasks()) == 1

    within_patience(story())
