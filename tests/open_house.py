"""A whole gateway in this process, at a real socket: files and batches in a folder, requests in memory, and nothing ever runs a batch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from asking_rig import EVERYBODY, FakeClock, MemoryStore, MemoryStores, NoTakers
from builders import BatchBuilder
from gateway_rig import MODELS, ROUTES
from headrace.api.asking import RequestError, RequestRecord, RequestState
from headrace.api.gateway import ServedModels
from headrace.core.openai.ids import NAME_DIGITS
from headrace.gateway.clocks import WallClock
from headrace.gateway.metrics import Metrics
from headrace.gateway.places.here import Heres
from headrace.gateway.queues.store import Kept
from headrace.gateway.telling.pushing import Pushes
from headrace.gateway.tenants.identities import Everybody, Identities
from headrace.gateway.tenants.rooms import Rooms
from headrace.gateway.tenants.staying import Stays
from headrace.gateway.web.app import gateway_app
from headrace.gateway.web.deadletters import DeadLetters
from headrace.gateway.web.itself import Itself
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.requests import Requests
from headrace.gateway.web.routes import Routes
from headrace.gateway.web.serving import listening, serve
from headrace.gateway.web.statuspages import StatusPage
from headrace.gateway.web.streams import Streams
from headrace.shells.local.state import StateDir

SERVED = ServedModels.parse({"models": MODELS, "routes": ROUTES})
FILE_BYTES = 64 * 1024
"""Of the largest file that is taken."""


class RealTime(FakeClock):
    """For a store that others share: waiting is only letting them work."""

    async def rest(self, milliseconds: int) -> None:
        await asyncio.sleep(min(milliseconds, 5) / 1000)


@dataclass
class House:
    """A gateway whose doors are open."""

    url: str
    stores: MemoryStores
    app: Starlette
    folder: Path
    stays: Stays
    loop: asyncio.AbstractEventLoop

    @property
    def store(self) -> MemoryStore:
        """Of everybody."""
        return self.stores.of(EVERYBODY.namespace)

    @property
    def methods(self) -> dict[str, set[str]]:
        """The methods of each path that it answers."""
        found: dict[str, set[str]] = {}
        for route in self.app.routes:
            assert isinstance(route, Route | WebSocketRoute)
            methods = route.methods or set() if isinstance(route, Route) else {"WEBSOCKET"}
            found.setdefault(route.path, set()).update(methods - {"HEAD"})
        return found

    def look_who_stays(self) -> None:
        """Those with open streams whose keys are good no more are sent away."""
        asyncio.run_coroutine_threadsafe(self.stays.step(), self.loop).result()

    def batch(self, made: BatchBuilder, namespace: str = EVERYBODY.namespace) -> None:
        """There is such a batch."""
        batch, folder = made.build(), StateDir(self.folder).batch(namespace, made.build().metadata.name)
        folder.write_object(batch)
        folder.write_status(batch.status)

    def ended(
        self,
        state: RequestState,
        number: int,
        route: str = "quick",
        why: str = "the model said no",
        namespace: str = EVERYBODY.namespace,
    ) -> str:
        """A request that has ended like this; returns its id."""
        name = f"req_{route}_{number:0{NAME_DIGITS}x}"
        is_dead = state in (RequestState.FAILED, RequestState.EXPIRED)
        record = RequestRecord(
            id=name,
            accepted=1_700_000_000_000 + number * 1000,
            state=state,
            ended=1_700_000_100_000,
            response={"status_code": 200, "body": {"of": name}} if state == RequestState.COMPLETED else None,
            error=RequestError(code="mock_error", message=why) if is_dead else None,
            body={"model": route, "messages": [{"role": "user", "content": "hello"}]} if is_dead else None,
        )
        store = self.stores.of(namespace)
        store.records[name] = Kept(record, next(self.stores.revisions))
        if is_dead:
            store.dead.setdefault(name)
        return name


async def no_pool(route: str, namespace: str) -> None:
    """No route has one."""


@contextmanager
def open_house(
    folder: Path, models: ServedModels = SERVED, identities: Identities = Everybody(EVERYBODY)
) -> Iterator[House]:
    """Such a gateway, in a thread of its own, while the block lasts."""
    stores, nobody = MemoryStores(RealTime()), SimpleNamespace(take_up=lambda _: None)
    places = Heres(StateDir(folder), models, nobody)  # type: ignore[arg-type]
    limits, clock = Limits(FILE_BYTES), WallClock()
    metrics = Metrics(route.name for route in models.routes)
    pushes, rooms = Pushes(stores, clock, metrics), Rooms(places, stores, NoTakers(), clock)
    stays = Stays(identities, clock)
    asking = [
        *Requests(rooms, limits, clock, metrics).served,
        *DeadLetters(rooms, clock).served,
        *Streams(pushes, rooms, stays).served,
        *Routes(rooms, no_pool).served,
    ]
    itself = Itself(metrics, clock, stores if models.routes else None)
    page = StatusPage(places, rooms if models.routes else None, clock, pushes.finished)
    app = gateway_app(
        places, limits, identities, None, [*itself.served, *page.served, *(asking if models.routes else ())]
    )
    listener, stop = listening("127.0.0.1", 0), SimpleNamespace(requested=0)

    async def live() -> None:
        await pushes.begin()
        following = asyncio.create_task(pushes.run())
        await serve(app, listener, stop, pushes.stop)
        following.cancel()

    def serve_until_stopped() -> None:
        with runner:
            runner.run(live())

    runner = asyncio.Runner()
    loop = runner.get_loop()
    serving = threading.Thread(target=serve_until_stopped, name="gateway")
    serving.start()
    try:
        yield House(f"http://127.0.0.1:{listener.getsockname()[1]}", stores, app, folder, stays, loop)
    finally:
        stop.requested = 2
        serving.join()
        listener.close()
