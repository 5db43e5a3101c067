"""All that a gateway consists of, opened in order and closed in the reverse of it."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headrace.api.asking import RequestRoute
from headrace.gateway.clocks import Clock, WallClock
from headrace.gateway.endless import beside
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.gathering.lanes import Lanes
from headrace.gateway.gathering.pool import Pool
from headrace.gateway.gathering.poollane import PoolLane
from headrace.gateway.gathering.poolnews import PoolNews
from headrace.gateway.gathering.poolworkers import Workers
from headrace.gateway.gathering.targets import ObjectTarget, Target
from headrace.gateway.gathering.windows import RouteWindows
from headrace.gateway.metrics import Metrics
from headrace.gateway.places.place import Places
from headrace.gateway.queues.jetstream import JetStream, connected
from headrace.gateway.queues.natsserver import Address, nats_server
from headrace.gateway.queues.queueing import Takers
from headrace.gateway.queues.store import Lane, Secrets, Stores
from headrace.gateway.queues.taking import Owner, Taking
from headrace.gateway.telling.hookqueue import JetStreamHooks
from headrace.gateway.telling.pushing import Pushes
from headrace.gateway.telling.webhooks import Callers
from headrace.gateway.tenants.identities import Identities
from headrace.gateway.tenants.rooms import Rooms
from headrace.gateway.tenants.staying import Stays
from headrace.gateway.watch import Spans, Watch
from headrace.gateway.web.app import gateway_app
from headrace.gateway.web.deadletters import DeadLetters
from headrace.gateway.web.itself import Itself
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.requests import Requests
from headrace.gateway.web.routes import Routes
from headrace.gateway.web.routing import Served
from headrace.gateway.web.serving import serve
from headrace.gateway.web.statuspages import StatusPage
from headrace.gateway.web.streams import Streams
from headrace.shells.local.converge import Interrupt
from headrace.shells.local.traces import tracer_here, tracing_here


@dataclass(frozen=True, slots=True)
class Door:
    """What is opened, and to where."""

    places: Places
    identities: Identities
    limits: Limits
    listener: socket.socket
    hosts: frozenset[str] | None
    """The only names that requests may call it by; None for any."""
    nats: Address | Path
    """A server that is there; or the folder where one of our own keeps everything."""
    workers: Callable[[RequestRoute, Secrets], Workers]
    """Where the workers of a route with a warm pool are started."""
    owner: Owner | None = None
    """Says whether this process makes batches of requests, where others have the same queues; None where there are none."""


async def keep_open(door: Door, interrupt: Interrupt, opened: Callable[[], None]) -> None:
    """Serve until the interrupt is requested; `opened` is called once requests can come. Raises `NoServer`."""
    async with AsyncExitStack() as stack:
        itself, page = Itself(Metrics(), WallClock(), None), StatusPage(door.places, None, WallClock())
        asking = _Asking([*itself.served, *page.served], lambda: None)
        if door.places.models.routes:  # without any nothing is queued, and no server is needed
            asking = await stack.enter_async_context(_asking(door, interrupt))
        app = gateway_app(door.places, door.limits, door.identities, door.hosts, asking.served)
        opened()
        _keep_for_good()
        await serve(app, door.listener, interrupt, asking.stop)


def _keep_for_good() -> None:
    """What there is by now stays: to look through all of it for garbage, over and over, takes the tenth of a second each time."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True, slots=True)
class _Asking:
    """What is answered beside whole batches, and how that is stopped which would never end by itself."""

    served: Sequence[Served]
    stop: Callable[[], None]


@asynccontextmanager
async def _asking(door: Door, interrupt: Interrupt) -> AsyncIterator[_Asking]:
    """Single requests, while the windows of all routes are at work. Raises `StoreAway` when the store goes right after it was found."""
    models, clock = door.places.models, WallClock()
    async with AsyncExitStack() as stack:
        address = (
            door.nats if isinstance(door.nats, Address) else await stack.enter_async_context(nats_server(door.nats))
        )
        stores = await stack.enter_async_context(connected(address))
        watch = Metrics((route.name for route in models.routes), Spans(tracing_here(), tracer_here()))
        pushes = Pushes(stores, clock, watch)
        await pushes.begin()
        pools = {
            route.name: Pool(route, door.workers(route, stores), clock, pushes.grown)
            for route in models.routes
            if route.target.warm_pool is not None
        }
        news = PoolNews(pools, stores.client, clock)
        windows = partial(_windows, places=door.places, stores=stores, pools=pools, clock=clock, watch=watch)
        takers, work = await _takers(door, stores, windows, stack)
        work += _at_work(door, takers, pools.values(), news, interrupt)
        rooms, stays = Rooms(door.places, stores, takers, clock), Stays(door.identities, clock)
        work += [pushes.run, stays.run]
        if door.identities.may_call:
            work.append(Callers(door.identities.webhooks, JetStreamHooks(stores.js), clock, watch).run)
        tasks = [asyncio.create_task(run()) for run in work]
        requests, letters = Requests(rooms, door.limits, clock, watch), DeadLetters(rooms, clock)
        try:
            streams, shown, itself = Streams(pushes, rooms, stays), Routes(rooms, news.of), Itself(watch, clock, stores)
            page = StatusPage(door.places, rooms, clock, pushes.finished)
            served = [*requests.served, *letters.served, *streams.served, *shown.served, *itself.served, *page.served]
            yield _Asking(served, pushes.stop)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _takers(
    door: Door, stores: JetStream, windows: Callable[[Lane], RouteWindows], stack: AsyncExitStack
) -> tuple[Takers, list[Callable[[], Coroutine[Any, Any, None]]]]:
    """Who takes requests out of queues, and the work that this is besides."""
    names = {route.name for route in door.places.models.routes}
    if door.owner is not None:
        taking = Taking(stores.client, stores, names, windows, WallClock())
        return taking, [taking.call]
    lanes = Lanes(windows)
    stack.push_async_callback(lanes.close)
    for lane in await stores.lanes():
        if lane.route in names:
            lanes.wake(lane)
    return lanes, []


def _at_work(
    door: Door, takers: Takers, pools: Collection[Pool], news: PoolNews, interrupt: Interrupt
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """The pools; where several gateways share the queues, those of the one that takes requests out of them."""
    if door.owner is None or not isinstance(takers, Taking):
        return [partial(one.run, lambda: interrupt.requested > 1) for one in pools]
    workers = [partial(one.run, lambda: True) for one in pools]  # whoever leads next is told what they still say
    return [partial(door.owner.own, partial(beside, takers.take, news.tell, *workers))]


def _windows(
    lane: Lane, places: Places, stores: Stores, pools: Mapping[str, Pool], clock: Clock, watch: Watch
) -> RouteWindows:
    """The windows of a route of a tenant, with all that they become in its namespace. Tenants share a pool, and nothing else."""
    store, place = stores.of(lane.namespace), places.of(lane.namespace)
    route = next(one for one in places.models.routes if one.name == lane.route)
    served, answers = places.models.served(route), Answers(store, place, clock, watch)
    pool = pools.get(lane.route)
    target: Target = (
        ObjectTarget(route, served, place, answers) if pool is None else PoolLane(pool, lane.namespace, store, answers)
    )
    return RouteWindows(route, served, store, target, clock, watch)
