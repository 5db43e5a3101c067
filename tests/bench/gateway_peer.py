"""What the gateway is measured beside: the same server and framework in one process, which publishes each body and does nothing else.

    python tests/bench/gateway_peer.py FOLDER

Its NATS server is one of its own, which writes to the disk before it answers, as the gateway's does.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import uvloop
from nats.js.api import StorageType
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headrace.gateway.queues.connecting import connection
from headrace.gateway.queues.natsserver import nats_server
from headrace.gateway.web.serving import listening, serve
from headrace.shells.local.turns import take_short_turns


class Never:
    """Nobody asks for the end: the process is killed."""

    requested = 0


async def main(folder: Path) -> None:
    """Serve, and say where."""
    async with nats_server(folder) as address, connection(address) as client:
        js = client.jetstream()
        await js.add_stream(name="bodies", subjects=["bodies"], storage=StorageType.FILE)

        async def publish(request: Request) -> Response:
            await js.publish("bodies", await request.body())
            return JSONResponse({"id": secrets.token_hex(12)}, status_code=202)

        listener = listening("127.0.0.1", 0)
        print("listening:", listener.getsockname()[1], flush=True)
        await serve(Starlette(routes=[Route("/v1/requests", publish, methods=["POST"])]), listener, Never())


if __name__ == "__main__":
    take_short_turns()  # as the gateway does
    uvloop.run(main(Path(sys.argv[1])))
