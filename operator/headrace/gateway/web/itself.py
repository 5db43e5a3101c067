"""What the gateway says of itself: that it is there, whether what it needs is, and what it has counted."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.core.httpapi.itself import HEALTHY, METRICS, READY
from headrace.gateway.clocks import Clock
from headrace.gateway.metrics import Metrics
from headrace.gateway.queues.store import StoreAway, Stores
from headrace.gateway.web.routing import Answered, Served


class Itself:
    """The answers to those who look after it."""

    def __init__(self, metrics: Metrics, clock: Clock, stores: Stores | None) -> None:
        """`stores`: None for a gateway for whole batches alone, which needs none."""
        self._metrics, self._clock, self._stores = metrics, clock, stores

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [Answered(HEALTHY, self.healthy), Answered(READY, self.ready), Answered(METRICS, self.metrics)]

    async def healthy(self, _: Request) -> Response:
        """`GET /healthz`: it need not be started again. A store that is away is no reason for that."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """`GET /readyz`."""
        if self._stores is not None:
            await self._stores.position()
        return JSONResponse({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        """`GET /metrics`."""
        try:
            waiting = await self._stores.waiting() if self._stores is not None else {}
        except StoreAway:  # which is told of, and the rest all the same
            waiting = None
        text = self._metrics.text(waiting, self._clock.now())
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})
