"""`/healthz`, `/readyz` and `/metrics`.

Alive means that a restart would not help: keys that wait are taken. Ready means able to act, or to take over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from headrace.api.base import JsonObject

STUCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Health:
    """How the operator is."""

    leading: bool
    ready: bool
    """Whether the cache has been filled; a follower is ready when it can take over."""
    problem: str
    """What keeps it from being ready, and what must change; empty when nothing does."""
    last_event_seconds: float
    """Age of the last watch event."""
    stalled_seconds: float
    """For how long no key has been taken although some wait."""
    queue_seconds: float
    """How long the oldest key has waited."""
    queue_depth: int
    cached: dict[str, int]

    @property
    def alive(self) -> bool:
        """Whether a restart would not help."""
        return self.stalled_seconds < STUCK_SECONDS

    def to_object(self) -> JsonObject:
        """As JSON."""
        return {
            "alive": self.alive,
            "ready": self.ready,
            "leading": self.leading,
            "problem": self.problem,
            "lastEventSeconds": round(self.last_event_seconds, 1),
            "queue": {"depth": self.queue_depth, "oldestSeconds": round(self.queue_seconds, 1)},
            "cached": self.cached,
        }


async def serve(port: int, host: str, health: Callable[[], Health], metrics: Callable[[], bytes]) -> web.AppRunner:
    """Open the port; the caller cleans the runner up."""

    async def healthz(_: web.Request) -> web.Response:
        found = health()
        return web.json_response(found.to_object(), status=200 if found.alive else 500)

    async def readyz(_: web.Request) -> web.Response:
        found = health()
        return web.json_response(found.to_object(), status=200 if found.ready else 503)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
