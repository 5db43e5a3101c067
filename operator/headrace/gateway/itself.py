"""What the gateway says of itself: that it is there, and whether what it needs is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.core.httpapi.itself import HEALTHY, READY
from headrace.gateway.routing import Answered, Served


async def nothing_needed() -> None:
    """What a gateway for whole batches alone asks before it says that it is ready."""


class Itself:
    """The answers to those who look after it."""

    def __init__(self, reach_store: Callable[[], Awaitable[object]] = nothing_needed) -> None:
        """`reach_store` asks anything of the store, and raises `StoreAway` when that does not answer."""
        self._reach_store = reach_store

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [Answered(HEALTHY, self.healthy), Answered(READY, self.ready)]

    async def healthy(self, _: Request) -> Response:
        """`GET /healthz`: it need not be started again. A store that is away is no reason for that."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """`GET /readyz`."""
        await self._reach_store()
        return JSONResponse({"status": "ok"})
