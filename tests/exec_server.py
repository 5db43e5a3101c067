"""An API server that keeps one pod and lets commands be run in it, over the real wire protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio import client

STDOUT, STDERR, ERROR = b"\x01", b"\x02", b"\x03"
SUCCESS = {"metadata": {}, "status": "Success"}
RUNNING = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}

Play = Callable[[web.WebSocketResponse], Awaitable[None]]


def exit_status(code: int) -> dict[str, Any]:
    """What an API server says of a command that has failed."""
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"status": "Failure", "reason": "NonZeroExitCode", "message": "it failed", "details": {"causes": causes}}


@dataclass
class FakeServer:
    """What it has been asked, and how it answers."""

    play: Play
    protocols: tuple[str, ...] = ("v5.channel.k8s.io",)
    statuses: list[dict[str, Any]] = field(default_factory=lambda: [RUNNING])
    """Of the pod, one a look; the last one stays."""
    events: list[dict[str, Any]] = field(default_factory=list)
    refuse: int = 0
    """Status of the answer to an exec, in place of a websocket."""
    made: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def _create(self, request: web.Request) -> web.Response:
        self.made.append(await request.json())
        return web.json_response(self.made[-1])

    async def _get(self, _: web.Request) -> web.Response:
        status = self.statuses[0] if len(self.statuses) == 1 else self.statuses.pop(0)
        return web.json_response({**self.made[-1], "status": status})

    async def _delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["name"])
        return web.json_response({"status": "Success"})

    async def _list_events(self, _: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.events})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        self.commands.append(request.query.getall("command"))
        self.headers.append(dict(request.headers))
        if self.refuse:
            return web.json_response({"kind": "Status", "message": "no"}, status=self.refuse)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        await self.play(socket)
        await socket.close()
        return socket

    @asynccontextmanager
    async def running(self) -> AsyncIterator[client.ApiClient]:
        """A client of it."""
        app = web.Application()
        pods = "/api/v1/namespaces/default/pods"
        app.add_routes(
            [
                web.post(pods, self._create),
                web.get(f"{pods}/{{name}}", self._get),
                web.delete(f"{pods}/{{name}}", self._delete),
                web.get(f"{pods}/{{name}}/exec", self._exec),
                web.get("/api/v1/namespaces/default/events", self._list_events),
            ]
        )
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
        configuration.api_key = {"BearerToken": "Bearer secret"}
        try:
            async with client.ApiClient(configuration) as api_client:
                yield api_client
        finally:
            await runner.cleanup()


def saying(*messages: bytes, status: dict[str, Any] | None = None) -> Play:
    """Send these messages, and then what the command came to."""

    async def play(socket: web.WebSocketResponse) -> None:
        for message in messages:
            await socket.send_bytes(message)
        if status is not None:
            await socket.send_bytes(ERROR + json.dumps(status).encode())

    return play
