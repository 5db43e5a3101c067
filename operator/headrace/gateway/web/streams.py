"""`/v1/stream`: what becomes of requests, pushed over a WebSocket or as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from headrace.core.asking.push import refused, server_sent, stream_message
from headrace.core.httpapi.operation import EVENTS
from headrace.core.httpapi.single import STREAM_EVENTS, STREAM_SOCKET
from headrace.core.openai.errors import ApiError, bad_request, no_such
from headrace.core.tenancy.keys import PROTOCOL
from headrace.gateway.queues.store import StoreAway
from headrace.gateway.telling.listening import Listener
from headrace.gateway.telling.pushing import Pushes
from headrace.gateway.tenants.entrance import tenant_of
from headrace.gateway.tenants.rooms import Rooms
from headrace.gateway.tenants.staying import Stays
from headrace.gateway.web.replies import refusal, store_away
from headrace.gateway.web.routing import Answered, Served, Talked
from headrace.gateway.web.streamed import Streamed

STILL_HERE_SECONDS = 15.0
"""How often a stream says that it is there while it has nothing to tell: a proxy may end one that is silent for long."""
_SERVICE_RESTART, _TRY_AGAIN_LATER, _POLICY_VIOLATION = 1012, 1013, 1008
_BEGIN = b"retry: 1000\n\n"
_STILL_HERE = b": still here\n\n"


class Streams:
    """The connections of those who wait."""

    def __init__(self, pushes: Pushes, rooms: Rooms, stays: Stays) -> None:
        self._pushes, self._rooms, self._stays = pushes, rooms, stays

    @property
    def served(self) -> Sequence[Served]:
        """What is answered here."""
        return [Answered(STREAM_EVENTS, self.events), Talked(STREAM_SOCKET, self.socket)]

    async def events(self, request: Request) -> Response:
        """`GET /v1/stream?id=…`: Server-Sent Events, until all of the requests have ended."""
        ids = request.query_params.getlist("id")
        if not ids:
            raise bad_request("id must be the id of a request, once or more often", "id", "missing_required_parameter")
        token = request.headers.get("last-event-id") or request.query_params.get("after")
        listener = self._listen(request)
        try:
            if unknown := await listener.add(dict.fromkeys(ids, token)):
                raise no_such("Request", unknown[0][:80])
            if not listener.waits:  # with this a browser stops asking
                listener.close()
                return Response(status_code=204)
            events = self._events(request, listener)
            await anext(events)  # from here on it closes the listener
        except BaseException:
            listener.close()
            raise
        return Streamed(events, headers={"cache-control": "no-store"}, media_type=EVENTS)

    async def socket(self, socket: WebSocket) -> None:
        """`WS /v1/stream`: any number of requests, which the client says and takes back as it likes."""
        try:
            listener = self._listen(socket)
        except ApiError as error:
            await socket.send_denial_response(refusal(error))
            return
        try:
            ids = dict.fromkeys(socket.query_params.getlist("id"), socket.query_params.get("after"))
            for name in await listener.add(ids):
                listener.say_unknown(name)
            await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
            self._pushes.watch.connected("socket", 1)
            try:
                with self._stays.stay(socket, listener.send_away):
                    code = await _talk(socket, listener)
            finally:
                self._pushes.watch.connected("socket", -1)
        except ApiError as error:
            await socket.send_denial_response(refusal(error))
            return
        except StoreAway:
            await socket.send_denial_response(refusal(store_away()))
            return
        finally:
            listener.close()
        if code is not None:
            await socket.close(code)

    async def _events(self, request: Request, listener: Listener) -> AsyncGenerator[bytes, None]:
        """Nothing at first, and then what there is to tell, until all has ended. Closes the listener."""
        watch = self._pushes.watch
        watch.connected("events", 1)
        with ExitStack() as stack:
            stack.callback(listener.close)
            stack.callback(watch.connected, "events", -1)
            stack.enter_context(self._stays.stay(request, listener.send_away))
            yield b""
            yield _BEGIN
            while not listener.has_ended:
                if (event := await listener.take()) is not None:
                    yield server_sent(event)
                elif not listener.waits:
                    return
                else:
                    try:
                        async with asyncio.timeout(STILL_HERE_SECONDS):
                            await listener.ready()
                    except TimeoutError:
                        yield _STILL_HERE
            if listener.sent_away is not None:
                yield server_sent(refused(listener.sent_away))

    def _listen(self, connection: HTTPConnection) -> Listener:
        tenant = tenant_of(connection)
        return self._pushes.listen(self._rooms.of(tenant.namespace), tenant.limits)


async def _talk(socket: WebSocket, listener: Listener) -> int | None:
    """Hear and tell until one of the two ends; returns the code to close with, None when the client has closed."""
    tasks = [asyncio.create_task(_hear(socket, listener)), asyncio.create_task(_tell(socket, listener))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    try:
        for task in done:
            task.result()
    except WebSocketDisconnect:
        return None
    except StoreAway:
        return _TRY_AGAIN_LATER
    if listener.sent_away is not None:
        return _POLICY_VIOLATION if listener.sent_away.status < 500 else _TRY_AGAIN_LATER
    return _SERVICE_RESTART


async def _hear(socket: WebSocket, listener: Listener) -> None:
    """Do what the client says, until it goes."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        try:
            said = stream_message((message.get("text") or "").encode() or message.get("bytes") or b"")
            listener.drop(said.unsubscribe)
            for name in await listener.add(said.subscribe):
                listener.say_unknown(name)
        except ApiError as error:
            listener.say(refused(error))
        await listener.all_said()


async def _tell(socket: WebSocket, listener: Listener) -> None:
    """Send what there is to tell, until nothing more comes."""
    while not listener.has_ended:
        if (event := await listener.take()) is not None:
            await socket.send_text(orjson.dumps(event).decode())
        else:
            await listener.ready()
    if listener.sent_away is not None:
        await socket.send_text(orjson.dumps(refused(listener.sent_away)).decode())
