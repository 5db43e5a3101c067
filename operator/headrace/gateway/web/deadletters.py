"""`/v1/dead_letters`: requests that have ended without an answer, why, and asking them again."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headrace.api.asking import RequestRecord
from headrace.core.asking.life import is_dead
from headrace.core.asking.requests import queued_object, queued_request, record_object, replay_id, route_name
from headrace.core.httpapi.single import LETTERS_LISTED, LIST_LETTERS, MOST_LETTERS, REPLAY_LETTER
from headrace.core.openai.errors import conflict, no_such
from headrace.core.openai.pages import page, page_object, window
from headrace.core.tenancy.bounds import bounded
from headrace.gateway.clocks import Clock
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.rooms import Room, Rooms
from headrace.gateway.together import together
from headrace.gateway.web.bodies import traceparent_of
from headrace.gateway.web.replies import accepted
from headrace.gateway.web.routing import Answered, Served


class DeadLetters:
    """The answers to requests about requests that have died."""

    def __init__(self, rooms: Rooms, clock: Clock) -> None:
        self._rooms, self._clock = rooms, clock

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [Answered(LIST_LETTERS, self.list_page), Answered(REPLAY_LETTER, self.replay)]

    async def list_page(self, request: Request) -> Response:
        """`GET /v1/dead_letters`: those of all routes, or of `?route=NAME`, in pages; a page may have fewer than `limit`."""
        asked = window(request.query_params, most=MOST_LETTERS, default=LETTERS_LISTED)
        wanted = request.query_params.get("route")
        room = self._room(request)
        names = [name for name in await room.store.letters() if wanted in (None, route_name(name))]
        found = page(names[::-1], asked, str)
        records = await together(_dead(room, name) for name in found.items)
        shown = [record_object(record) for record in records if record is not None]
        last = found.items[-1] if found.items else None  # it may not be among those that are shown
        return JSONResponse({**page_object(shown, has_more=found.has_more), "next": last})

    async def replay(self, request: Request) -> Response:
        """`POST /v1/dead_letters/{request_id}/replay`: a new request in the same words, made once however often this is sent."""
        wanted, room = request.path_params["request_id"], self._room(request)
        record, name = await _dead(room, wanted), route_name(wanted)
        route = next((one for one in self._rooms.models.routes if one.name == name), None)
        if record is None or route is None:
            raise no_such("Dead letter", wanted[:80])
        if record.body is None:
            raise conflict(f"what {wanted} has asked is not known any more", "id", "body_gone")
        asked = queued_request(replay_id(wanted), record.body, self._rooms.models.served(route), self._clock.now())
        asked = asked.model_copy(update={"webhook": record.webhook, "traceparent": traceparent_of(request)})
        known = await room.known.look(asked.id)
        if known is None:
            await room.queue.add(bounded(route, tenant_of(request).limits), asked)
        await room.store.drop_letter(wanted)
        return accepted(queued_object(asked) if known is None else await room.known.shown(known), 202)

    def _room(self, request: Request) -> Room:
        return self._rooms.of(tenant_of(request).namespace)


async def _dead(room: Room, request_id: str) -> RequestRecord | None:
    """The record of a request that is dead; None for one that has ended otherwise, or not yet."""
    name = route_name(request_id)
    kept = await room.store.record(request_id) if name in room.known.routes else None
    return kept.record if kept is not None and is_dead(kept.record.state) else None
