"""`/v1/routes`: which routes there are, how many requests wait on each, and how the workers of their pools are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.api.asking import RequestRoute
from headrace.api.base import JsonObject
from headrace.core.asking.requests import route_object
from headrace.core.httpapi.single import LIST_ROUTES
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.rooms import Room, Rooms
from headrace.gateway.web.routing import Answered, Served

PoolOf: TypeAlias = Callable[[str, str], Awaitable[JsonObject | None]]
"""How the pool of a route is, by its name and the namespace of a tenant; None where it has none, or where that is not known."""


class Routes:
    """The answers to requests about routes."""

    def __init__(self, rooms: Rooms, pool: PoolOf) -> None:
        self._rooms, self._pool = rooms, pool

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [Answered(LIST_ROUTES, self.list_all)]

    async def list_all(self, request: Request) -> Response:
        """`GET /v1/routes`: all of them, in the order of the file, with the requests of whoever asks."""
        room = self._rooms.of(tenant_of(request).namespace)
        shown = [await self._shown(route, room) for route in self._rooms.models.routes]
        return JSONResponse({"object": "list", "data": shown})

    async def _shown(self, route: RequestRoute, room: Room) -> JsonObject:
        state = await self._pool(route.name, room.namespace)
        return route_object(route, await room.store.depth(route.name), state)
