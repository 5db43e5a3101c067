"""The app of a gateway for callers of `/v1/requests`, over a store in memory, and all that is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from starlette.applications import Starlette

from asking_rig import EVERYBODY, FakeClock, MemoryPlace, MemoryPlaces, MemoryStore, MemoryStores
from headrace.api.answers import RequestObject
from headrace.api.gateway import ServedModels
from headrace.api.tenancy import Tenant
from headrace.core.asking.pressure import Left
from headrace.gateway.gathering.answers import Answers
from headrace.gateway.gathering.targets import ObjectTarget
from headrace.gateway.gathering.windows import RouteWindows
from headrace.gateway.metrics import Metrics
from headrace.gateway.places.place import Places
from headrace.gateway.queues.store import Lane
from headrace.gateway.tenants.identities import Everybody
from headrace.gateway.tenants.rooms import Rooms
from headrace.gateway.web.app import gateway_app
from headrace.gateway.web.deadletters import DeadLetters
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.requests import Requests
from headrace.gateway.web.serving import listening, serve

MODELS = ServedModels.parse(
    {
        "models": [{"model": {"name": "small"}, "engine": {"name": "mock"}}],
        "routes": [{"name": "chat", "model": "small", "window": {"maxBatchSize": 3}, "maxQueued": 5}],
    }
)
Told = TypeVar("Told")


def body(text: str = "hello") -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": text}]}


@dataclass
class HandTakers:
    """`Takers` of one route, who are driven by hand."""

    windows: RouteWindows

    def wake(self, _: Lane) -> None:
        pass

    def left(self, _: Lane) -> Sequence[Left]:
        return self.windows.left


@dataclass
class Desk:
    """The app, and all that is behind it."""

    client: httpx2.AsyncClient
    store: MemoryStore
    place: MemoryPlace
    windows: RouteWindows
    app: Starlette
    metrics: Metrics

    async def accept(self, text: str = "hello", **headers: str) -> Any:
        """The object of a request that is accepted."""
        answer = await self.client.post("/v1/requests", json=body(text), headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def show(self, name: str) -> Any:
        """The object of a request."""
        answer = await self.client.get(f"/v1/requests/{name}")
        assert answer.status_code == 200, answer.text
        RequestObject.model_validate_json(answer.content)
        return answer.json()

    async def batch(self) -> None:
        """Windows close, and become batches."""
        for _ in range(4):
            await self.windows.step()

    async def finish(self, *failing: str) -> None:
        """Batches end, and requests are answered; some fail."""
        await self.batch()
        for name in self.place.objects:
            self.place.finish(name, frozenset(failing))
        await self.windows.step()


@dataclass
class _Stop:
    requested: int = 0


@asynccontextmanager
async def at_socket(app: Starlette) -> AsyncIterator[str]:
    """The app at a real socket; gives the base URL."""
    listener, stop = listening("127.0.0.1", 0), _Stop()
    serving = asyncio.create_task(serve(app, listener, stop))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        stop.requested = 2
        await serving
        listener.close()


def at_desk(story: Callable[[Desk], Awaitable[Told]], tenant: Tenant = EVERYBODY) -> Told:
    """Tell a story of callers."""
    clock, place = FakeClock(), MemoryPlace(models=MODELS)
    stores, metrics = MemoryStores(clock), Metrics(["chat"])
    store = stores.of("default")

    async def tell() -> Told:
        target = ObjectTarget(MODELS.routes[0], MODELS.models[0], place, Answers(store, place, clock, metrics))
        windows = RouteWindows(MODELS.routes[0], MODELS.models[0], store, target, clock, metrics)
        await windows.begin()
        places: Places = MemoryPlaces(place)  # type: ignore[assignment]
        rooms = Rooms(places, stores, HandTakers(windows), clock)
        served = [*Requests(rooms, Limits(), clock, metrics).served, *DeadLetters(rooms, clock).served]
        app = gateway_app(places, Limits(), Everybody(tenant), None, served)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://here") as client:
            return await story(Desk(client, store, place, windows, app, metrics))

    return asyncio.run(tell())
