"""From the table of operations to the routes of the app, and to the document that tells of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from headrace import __version__
from headrace.core.httpapi.document import document
from headrace.core.httpapi.itself import DOCUMENT
from headrace.core.httpapi.operation import Operation

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Answered:
    """An operation, and what answers it."""

    operation: Operation
    handler: Handler


@dataclass(frozen=True, slots=True)
class Talked:
    """An operation that opens a socket, and what talks on it."""

    operation: Operation
    handler: Callable[[WebSocket], Awaitable[None]]


Served: TypeAlias = Answered | Talked


def routes_of(served: Sequence[Served]) -> list[BaseRoute]:
    """The routes of the app, and one to the document of them all."""
    told = document([DOCUMENT, *(one.operation for one in served)], __version__)

    async def tell(_: Request) -> Response:
        return JSONResponse(told)

    everything = (*served, Answered(DOCUMENT, tell))
    handlers: dict[str, dict[str, Handler]] = {}
    for one in everything:
        if isinstance(one, Answered):
            handlers.setdefault(one.operation.path, {})[one.operation.method] = one.handler
    sockets = [WebSocketRoute(one.operation.path, one.handler) for one in everything if isinstance(one, Talked)]
    return [*(_route(path, methods) for path, methods in handlers.items()), *sockets]


def _route(path: str, handlers: Mapping[str, Handler]) -> Route:
    """One route for all methods of a path: so `Allow` names them all when another is tried."""

    async def answer(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, answer, methods=[*handlers])
