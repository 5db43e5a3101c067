"""The ASGI app: which request is answered where, and what becomes of what goes wrong."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, HTTPExceptionHandler, Receive, Scope, Send

from headrace.api.gateway import ServedModels
from headrace.core.httpapi.batchwise import LIST_MODELS
from headrace.core.openai.errors import ApiError, nothing_at, wrong_method
from headrace.core.openai.models import model_objects
from headrace.gateway.clocks import Clock, WallClock
from headrace.gateway.places.place import PlaceAway, Places
from headrace.gateway.queues.store import StoreAway, StoreFull
from headrace.gateway.tenants.entrance import Entrance
from headrace.gateway.tenants.identities import Identities
from headrace.gateway.web.batches import Batches
from headrace.gateway.web.files import Files
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.replies import place_away, refusal, store_away, store_full
from headrace.gateway.web.routing import Answered, Served, routes_of
from headrace.shells.local.state import StateError

logger = logging.getLogger(__name__)

Failure = TypeVar("Failure", bound=Exception)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def gateway_app(
    places: Places,
    limits: Limits,
    identities: Identities,
    hosts: frozenset[str] | None = None,
    more: Sequence[Served] = (),
    clock: Clock | None = None,
) -> Starlette:
    """The gateway to places. `hosts`: the only names that requests may call it by, where it is for one machine alone.

    `more`: what else is answered, such as single requests, and about the gateway itself.
    """
    served = [
        Answered(LIST_MODELS, _models(places.models)),
        *Files(places, limits).served,
        *Batches(places, limits).served,
        *more,
    ]
    handlers = dict(
        (
            _handler(ApiError, _refused),
            _handler(StoreAway, _away),
            _handler(PlaceAway, _place_away),
            _handler(HTTPException, _not_here),
            _handler(StateError, _unreadable),
            _handler(OSError, _no_room),
            _handler(Exception, _bug),
        )
    )
    middleware = [
        Middleware(Guard, hosts=hosts),
        Middleware(Entrance, identities=identities, clock=clock or WallClock()),
    ]
    return Starlette(routes=routes_of(served), exception_handlers=handlers, middleware=middleware)


class Guard:
    """Refuses what a page of another site lets a browser send or open: its user has not asked for it."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        """`hosts`: what this server may be called; None for anything. A name that a page's owner points here is none of them."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on everything else."""
        if (error := self._error(HTTPConnection(scope))) is not None:
            await refusal(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _error(self, request: HTTPConnection) -> ApiError | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if origin is not None and _place(origin) != host:
            return ApiError(403, "requests from pages of other sites are not taken", "Origin")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            named = ", ".join(sorted(self._hosts))
            return ApiError(403, f"this gateway is for its own machine: it goes by {named}, not {host[:80]}", "Host")
        return None


def _place(origin: str) -> str | None:
    """Host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _hostname(host: str) -> str | None:
    """The name in the header `Host`; None for what is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _handler(
    kind: type[Failure], answer: Callable[[Request, Failure], Awaitable[Response]]
) -> tuple[type[Exception], HTTPExceptionHandler]:
    """A failure, and what answers it: the app calls that with any exception, and means one of this kind."""

    async def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, kind)
        return await answer(request, error)

    return kind, handle


def _models(served: ServedModels) -> Callable[[Request], Awaitable[Response]]:
    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": model_objects(served)})

    return models


async def _refused(_: Request, error: ApiError) -> Response:
    return refusal(error)


async def _away(request: Request, error: StoreAway) -> Response:
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return refusal(store_full() if isinstance(error, StoreFull) else store_away())


async def _place_away(request: Request, error: PlaceAway) -> Response:
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return refusal(place_away(error.retry_after))


async def _not_here(request: Request, error: HTTPException) -> Response:
    method, path, headers = request.method, request.scope["path"], error.headers or {}
    if error.status_code == 404:
        return refusal(nothing_at(method, path))
    allowed = headers.get("Allow")
    refused = wrong_method(method, path, allowed) if allowed else ApiError(error.status_code, str(error.detail))
    response = refusal(refused)
    response.headers.update(headers)
    return response


async def _unreadable(request: Request, error: StateError) -> Response:
    logger.error("%s %s: %s", request.method, request.url.path, error.message)
    return refusal(ApiError(500, error.message, None, error.reason))


async def _no_room(request: Request, error: OSError) -> Response:
    if error.errno not in _FULL:
        raise error
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return refusal(ApiError(507, f"there is no room for it: {error.strerror}. Delete files", None, "no_room"))


async def _bug(_: Request, __: Exception) -> Response:
    return refusal(ApiError(500, "this should not have happened; the log of the gateway has more", None, "internal"))
