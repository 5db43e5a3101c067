"""`/v1/requests`: single requests, which are answered once their batch is."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.api.asking import KnownKey, QueuedRequest, RequestRecord, RequestRoute
from headrace.core.asking.hooks import target
from headrace.core.asking.keys import digest, key_name, same_request
from headrace.core.asking.life import cancelled, has_ended
from headrace.core.asking.requests import (
    queued_object,
    queued_request,
    record_object,
    request_id,
    route_of,
)
from headrace.core.httpapi.single import CANCEL_REQUEST, CREATE_REQUEST, RETRIEVE_REQUEST
from headrace.core.openai.errors import ApiError
from headrace.core.tenancy.bounds import bounded
from headrace.gateway.clocks import Clock
from headrace.gateway.queues.store import InQueue, Kept, StoreAway
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.rooms import Room, Rooms
from headrace.gateway.watch import UNWATCHED, Watch
from headrace.gateway.web.bodies import json_body, traceparent_of
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.replies import accepted
from headrace.gateway.web.routing import Answered, Served

_DIGITS = 24


@dataclass(slots=True)
class _Found:
    """What is known of a request that may yet be refused."""

    route: str | None = None


class Requests:
    """The answers to requests about requests."""

    def __init__(self, rooms: Rooms, limits: Limits, clock: Clock, watch: Watch = UNWATCHED) -> None:
        self._rooms, self._limits, self._clock, self._watch = rooms, limits, clock, watch

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [
            Answered(CREATE_REQUEST, self.create),
            Answered(RETRIEVE_REQUEST, self.retrieve),
            Answered(CANCEL_REQUEST, self.cancel),
        ]

    async def create(self, request: Request) -> Response:
        """`POST /v1/requests`."""
        began, found = perf_counter(), _Found()
        try:
            answer = await self._accept(request, found)
        except ApiError as error:
            self._watch.refused(found.route, error.status, error.code)
            raise
        except StoreAway:
            self._watch.refused(found.route, 503, None)
            raise
        if answer.status_code == 202:  # else it was accepted before
            self._watch.accepted(found.route or "", perf_counter() - began)
        return answer

    async def _accept(self, request: Request, found: _Found) -> Response:
        body = await json_body(request, self._limits.patience_seconds)
        models, room = self._rooms.models, self._room(request)
        route = route_of(body, models.routes, request.query_params.get("route"))
        found.route = route.name
        name = request_id(route.name, secrets.token_hex(_DIGITS // 2))
        asked = queued_request(name, body, models.served(route), self._clock.now())
        webhook = target(request.headers.get("headrace-webhook"), tenant_of(request).webhooks)
        asked = asked.model_copy(update={"webhook": webhook, "traceparent": traceparent_of(request)})
        key = request.headers.get("idempotency-key")
        if key is not None:
            asked = await _remembered(room, key, asked, route)
            if asked.id != name and (known := await room.known.look(asked.id)) is not None:
                return accepted(await room.known.shown(known), 200)
        await room.queue.add(bounded(route, tenant_of(request).limits), asked)
        return accepted(queued_object(asked), 202)

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/requests/{request_id}`."""
        known = self._room(request).known
        return JSONResponse(await known.shown(await known.find(request.path_params["request_id"])))

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/requests/{request_id}`: its caller wants no answer any more."""
        wanted, room = request.path_params["request_id"], self._room(request)
        while True:
            found = await room.known.find(wanted)
            known = found if isinstance(found, Kept) else None
            accepted = found.request.accepted if isinstance(found, InQueue) else found.record.accepted
            record = cancelled(known.record if known else None, wanted, accepted, self._clock.now())
            if record is None:
                return JSONResponse(await room.known.shown(found))
            if await room.store.write_record(record, known.revision if known else 0):
                self._watch.ended(record)
                break
        await _end_if_unwanted(room, record)
        return JSONResponse(record_object(record))

    def _room(self, request: Request) -> Room:
        return self._rooms.of(tenant_of(request).namespace)


async def _remembered(room: Room, key: str, asked: QueuedRequest, route: RequestRoute) -> QueuedRequest:
    """The request that the key stands for: this one, or an earlier one of the same words."""
    new = KnownKey(id=asked.id, digest=digest(route.name, asked.body, asked.webhook), accepted=asked.accepted)
    known = same_request(await room.store.remember_key(key_name(key), new), new)
    return asked.model_copy(update={"id": known.id, "accepted": known.accepted})


async def _end_if_unwanted(room: Room, record: RequestRecord) -> None:
    """Cancel the batch of a request that was cancelled, when nobody waits for any other in it."""
    window = await room.store.window(record.batch) if record.batch is not None else None
    if window is None:
        return
    for member in window.members:
        kept = await room.store.record(member.id)
        if kept is None or not has_ended(kept.record):
            return
    if await room.place.find_work(window.batch) is not None:
        with suppress(ApiError):  # it has ended meanwhile
            await room.place.cancel_work(window.batch)
