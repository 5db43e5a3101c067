"""`/`: how things stand, for people. It is read-only, whole without scripts, and shows nobody anything of another tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from headrace.api.asking import RequestRecord
from headrace.core.asking.life import is_dead
from headrace.core.httpapi.itself import STATUS_PAGE, STYLESHEET
from headrace.core.statuspage import MOST_ROWS, Seen, moment, tables
from headrace.gateway.clocks import Clock
from headrace.gateway.places.place import Places
from headrace.gateway.queues.store import StoreAway
from headrace.gateway.telling.finished import FinishedRequests
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.rooms import Room, Rooms
from headrace.gateway.together import together
from headrace.gateway.web.routing import Answered, Served

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_FOLDER = files("headrace.gateway.web")
_PAGE = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
    _FOLDER.joinpath("status.html").read_text()
)
_STYLE = _FOLDER.joinpath("status.css").read_text()


class StatusPage:
    """The answers to browsers."""

    def __init__(
        self, places: Places, rooms: Rooms | None, clock: Clock, finished: FinishedRequests | None = None
    ) -> None:
        """`rooms`: None for a gateway for whole batches alone, of which no requests end either."""
        self._places, self._rooms, self._clock = places, rooms, clock
        self._finished = finished or FinishedRequests()

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [Answered(STATUS_PAGE, self.page), Answered(STYLESHEET, self.style)]

    async def page(self, request: Request) -> Response:
        """`GET /`. Where the store is away it says so, and shows the rest."""
        tenant, now = tenant_of(request), self._clock.now()
        batches, away = await self._places.of(tenant.namespace).batches(), False
        finished = self._finished.of(tenant.namespace)
        seen = Seen(routes=self._places.models.routes, batches=batches, finished=finished)
        if self._rooms is not None:
            try:
                seen = await self._look(self._rooms.of(tenant.namespace), seen)
            except StoreAway:
                away = True
        text = _PAGE.render(tenant=tenant.name, now=moment(now), away=away, tables=tables(seen, now))
        return HTMLResponse(text, headers=_HEADERS)

    async def style(self, _: Request) -> Response:
        """`GET /status.css`."""
        return Response(_STYLE, media_type="text/css", headers={"x-content-type-options": "nosniff"})

    async def _look(self, room: Room, seen: Seen) -> Seen:
        names = [route.name for route in seen.routes]
        depths = dict(zip(names, await together(room.store.depth(name) for name in names), strict=True))
        windows = [one for found in await together(room.store.windows(name) for name in names) for one in found]
        letters = [*await room.store.letters()]
        shown = await together(_dead(room, name) for name in letters[::-1][:MOST_ROWS])
        found = [record for record in shown if record is not None]
        return replace(seen, depths=depths, windows=windows, letters=found, dead=len(letters))


async def _dead(room: Room, name: str) -> RequestRecord | None:
    kept = await room.store.record(name)
    return kept.record if kept is not None and is_dead(kept.record.state) else None
