"""Serving the app on a socket until somebody wants an end of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop
from starlette.applications import Starlette

from headrace.gateway.web.heads import Connection, raise_descriptors
from headrace.shells.local.converge import Interrupt
from headrace.shells.local.turns import take_short_turns

_LOOK_SECONDS = 0.2
MAX_MESSAGE_BYTES = 256 * 1024
"""Of what a client says on a socket at a time."""
GRACE_SECONDS = 10
"""How long requests that are under way may go on once the server is told to stop."""


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 means any. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Do all of a gateway's work. A request is many small turns of the loop, and this one takes more than twice as many a second.

    A NATS server that is started here takes short turns too: each request waits for it several times.
    """
    raise_descriptors()
    take_short_turns()
    uvloop.run(work)


async def serve(
    app: Starlette, listener: socket.socket, interrupt: Interrupt, stopping: Callable[[], None] = lambda: None
) -> None:
    """Answer requests until the interrupt is requested: then no new ones, and an end to those that are under way.

    `stopping` is called then, to end those that would never end by themselves.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        http=Connection,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # it would cost memory for each socket, and most of them are idle
    )
    server = _Server(config)
    watching = asyncio.create_task(_stop_when_asked(server, interrupt, stopping))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()


async def _stop_when_asked(server: uvicorn.Server, interrupt: Interrupt, stopping: Callable[[], None]) -> None:
    """Signals are counted in a handler, which wakes nobody."""
    while not server.should_exit:
        await asyncio.sleep(_LOOK_SECONDS)
        server.should_exit = interrupt.requested > 0
    stopping()
    while not server.force_exit:
        await asyncio.sleep(_LOOK_SECONDS)
        server.force_exit = interrupt.requested > 1


class _Server(uvicorn.Server):
    """One that leaves the signals of the process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
