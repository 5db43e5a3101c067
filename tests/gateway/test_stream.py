"""`/v1/stream` over real sockets: many requests on one of them, cut and come again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asking_desk import MODELS
from asking_rig import EVERYBODY, FakeClock, MemoryPlace, MemoryPlaces, MemoryStore, MemoryStores, NoTakers
from headrace.api.answers import PartialEvent
from headrace.api.asking import QueuedRequest, RequestRecord, RequestState
from headrace.api.worker import Partial
from headrace.gateway.metrics import Metrics
from headrace.gateway.queues.store import StoreAway
from headrace.gateway.telling.pushing import Pushes
from headrace.gateway.tenants.identities import Everybody
from headrace.gateway.tenants.rooms import Rooms
from headrace.gateway.tenants.staying import Stays
from headrace.gateway.web.app import gateway_app
from headrace.gateway.web.limits import Limits
from headrace.gateway.web.serving import listening, serve
from headrace.gateway.web.streams import Streams
from laptop import PATIENCE_SECONDS

NOBODY = f"req_chat_{'f' * 24}"


def request_id(number: int) -> str:
    return f"req_chat_{number:024x}"


@dataclass
class Stop:
    """Asks the server to stop."""

    requested: int = 0


@dataclass
class Desk:
    """A gateway that listens, over a store in memory."""

    port: int
    store: MemoryStore
    pushes: Pushes
    stop: Stop = field(default_factory=Stop)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}/v1/stream"

    def socket(self, query: str = "", **headers: str) -> connect:
        return connect(
            f"ws://{self.url}{query}",
            additional_headers=headers,
            open_timeout=PATIENCE_SECONDS,
            close_timeout=PATIENCE_SECONDS,
            ping_timeout=None,
        )

    async def queue(self, count: int) -> list[str]:
        """So many requests wait."""
        names = [request_id(number) for number in range(count)]
        self.store.queues["chat"] = [QueuedRequest(id=name, accepted=1, tokens=1, body={}) for name in names]
        return names

    async def end(self, name: str) -> None:
        """A request begins, and is answered."""
        begun = RequestRecord(id=name, accepted=1, state=RequestState.IN_PROGRESS, batch="b")
        assert await self.store.write_record(begun, 0)
        response = {"status_code": 200, "body": {"of": name}}
        done = begun.model_copy(update={"state": RequestState.COMPLETED, "response": response})
        assert await self.store.write_record(done, self.store.records[name].revision)
        self.store.queues["chat"] = [one for one in self.store.queues["chat"] if one.id != name]


class _RealClock(FakeClock):
    """A store that has nothing lets others work."""

    async def rest(self, milliseconds: int) -> None:
        await asyncio.sleep(min(milliseconds, 5) / 1000)


@asynccontextmanager
async def opened() -> AsyncIterator[Desk]:
    stores, places, stop = MemoryStores(_RealClock()), MemoryPlaces(MemoryPlace(models=MODELS)), Stop()
    pushes = Pushes(stores, stores.clock, Metrics())
    rooms = Rooms(places, stores, NoTakers(), stores.clock)  # type: ignore[arg-type]
    everybody = Everybody(EVERYBODY)
    streams = Streams(pushes, rooms, Stays(everybody, stores.clock))
    app = gateway_app(places, Limits(), everybody, None, streams.served)  # type: ignore[arg-type]
    listener: socket.socket = listening("127.0.0.1", 0)
    await pushes.begin()
    tasks = [asyncio.create_task(serve(app, listener, stop, pushes.stop)), asyncio.create_task(pushes.run())]
    try:
        yield Desk(listener.getsockname()[1], stores.of("default"), pushes, stop)
    finally:
        stop.requested = 2
        await tasks[0]
        tasks[1].cancel()
        listener.close()


def at_desk(story: Callable[[Desk], Awaitable[None]]) -> None:
    async def tell() -> None:
        async with opened() as desk:
            await asyncio.wait_for(story(desk), 2 * PATIENCE_SECONDS)

    asyncio.run(tell())


async def said(connection: ClientConnection) -> Any:
    return json.loads(await connection.recv())


async def ask(connection: ClientConnection, **message: Any) -> None:
    await connection.send(json.dumps(message))


def test_socket_tells_of_many_requests_and_of_those_alone() -> None:
    async def story(desk: Desk) -> None:
        names = await desk.queue(5)
        async with desk.socket(f"?id={names[0]}") as connection:
            first = await said(connection)
            assert (first["request"]["status"], first["request"]["position"]) == ("queued", 1)
            await ask(connection, subscribe={names[1]: None, names[2]: None, NOBODY: None})
            told = [await said(connection) for _ in range(3)]
            assert [one["request"]["id"] for one in told[:2]] == names[1:3]
            assert (told[2]["id"], told[2]["error"]["code"]) == (NOBODY, "not_found")
            await ask(connection, unsubscribe=[names[1]], subscribe={NOBODY: None})
            assert (await said(connection))["id"] == NOBODY
            for name in names[1:]:
                await desk.end(name)
            done = await said(connection)
            while done["request"]["status"] != "completed":
                done = await said(connection)
            assert done["request"]["id"] == names[2]
            assert done["request"]["response"]["body"] == {"of": names[2]}

    at_desk(story)


def test_socket_that_is_cut_a_hundred_times_gets_every_result_once() -> None:
    async def story(desk: Desk) -> None:
        names = await desk.queue(100)
        tokens: dict[str, str | None] = dict.fromkeys(names)
        results: list[str] = []
        for number in range(100):
            async with desk.socket() as connection:
                await ask(connection, subscribe=tokens)
                await desk.end(names[number])
                while len(results) <= number:
                    event = await said(connection)
                    if event["token"] is not None:
                        tokens[event["request"]["id"]] = event["token"]
                    if event["request"]["status"] == "completed":
                        results.append(event["request"]["id"])
                        del tokens[event["request"]["id"]]
                connection.transport.abort()
        assert sorted(results) == sorted(names)

    at_desk(story)


def test_socket_is_told_what_it_says_wrongly_and_stays_open() -> None:
    async def story(desk: Desk) -> None:
        (name,) = await desk.queue(1)
        async with desk.socket() as connection:
            for message in (b"\xff\xfe", "[]", '{"subscribe": {"x": "no token"}}', json.dumps({"after": 1})):
                await connection.send(message)
                assert (await said(connection))["type"] == "error"
            await ask(connection, subscribe={name: None})
            assert (await said(connection))["request"]["id"] == name

    at_desk(story)


def test_socket_from_the_page_of_another_site_is_refused() -> None:
    async def story(desk: Desk) -> None:
        with pytest.raises(InvalidStatus) as caught:
            await desk.socket(Origin="http://evil.example").__aenter__()
        assert caught.value.response.status_code == 403

    at_desk(story)


@pytest.mark.parametrize(("query", "status"), [("?id=x&after=rubbish", 400), (f"?id={request_id(0)}", 503)])
def test_socket_that_cannot_begin(query: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StoreAway("no answer")

    async def story(desk: Desk) -> None:
        monkeypatch.setattr(desk.store, "record", away)
        with pytest.raises(InvalidStatus) as caught:
            await desk.socket(query).__aenter__()
        assert caught.value.response.status_code == status

    at_desk(story)


def test_streams_end_when_the_gateway_stops() -> None:
    async def story(desk: Desk) -> None:
        (name,) = await desk.queue(1)
        async with (
            desk.socket(f"?id={name}") as connection,
            httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client,
            client.stream("GET", f"http://{desk.url}?id={name}") as stream,
        ):
            await said(connection)
            desk.stop.requested = 1
            with pytest.raises(ConnectionClosed) as caught:
                await said(connection)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1012
            assert b"queued" in await stream.aread()

    at_desk(story)


async def events(desk: Desk, query: str, headers: Mapping[str, str] | None = None) -> tuple[int, list[Any], str | None]:
    """The status, the events, and the last token of a stream that ends."""
    async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        answer = await client.get(f"http://{desk.url}{query}", headers=dict(headers or {}))
    lines = answer.text.splitlines()
    tokens = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return answer.status_code, found, tokens[-1] if tokens else None


def test_partial_answers_are_told_on_both_kinds_of_streams_and_move_no_token() -> None:
    async def story(desk: Desk) -> None:
        (name,) = await desk.queue(1)
        grown = Partial(custom_id=name, text="Once upon", tokens=2)
        async with desk.socket(f"?id={name}") as connection, httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            assert (await said(connection))["request"]["status"] == "queued"
            async with client.stream("GET", f"http://{desk.url}?id={name}") as stream:
                lines = stream.aiter_lines()
                await _until_line(lines, "event: request")
                desk.pushes.grown("default", grown)
                told = {"type": "partial", "token": None, "id": name, "text": "Once upon", "tokens": 2}
                assert await said(connection) == told
                PartialEvent.model_validate(told)
                before = await _until_line(lines, "event: partial")
                assert not [line for line in before if line.startswith("id:")], "a browser would come again with it"
                assert json.loads((await anext(lines)).removeprefix("data: ")) == told
                await desk.end(name)
                assert (await said(connection))["request"]["status"] in ("in_progress", "completed")
                await _until_line(lines, "event: request")

    at_desk(story)


async def _until_line(lines: AsyncIterator[str], wanted: str) -> list[str]:
    """The lines up to one."""
    before = list[str]()
    async for line in lines:
        if line == wanted:
            return before
        before.append(line)
    raise AssertionError(f"{wanted} has not come: {before}")


def test_events_end_with_the_last_request_and_go_on_after_the_last_that_was_heard() -> None:
    async def story(desk: Desk) -> None:
        names = await desk.queue(2)
        query = f"?id={names[0]}&id={names[1]}"
        for name in names:
            await desk.end(name)
        await desk.pushes.step()
        status, found, token = await events(desk, query)
        assert (status, [one["request"]["id"] for one in found]) == (200, names)
        first = found[0]["token"]
        assert token == found[1]["token"]
        _, rest, _ = await events(desk, query, {"Last-Event-ID": first})
        assert [one["request"]["id"] for one in rest] == names[1:]
        assert await events(desk, f"{query}&after={token}") == (204, [], None)

    at_desk(story)


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), (f"?id={NOBODY}", 404), (f"?id={request_id(0)}&after=rubbish", 400)]
)
def test_events_that_cannot_begin(query: str, status: int) -> None:
    async def story(desk: Desk) -> None:
        await desk.queue(1)
        assert (await events(desk, query))[0] == status

    at_desk(story)


def test_events_whose_reader_has_gone_leave_no_listener() -> None:
    async def story(desk: Desk) -> None:
        (name,) = await desk.queue(1)
        async with (
            httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client,
            client.stream("GET", f"http://{desk.url}?id={name}") as stream,
        ):
            assert stream.status_code == 200
            assert len(desk.pushes._all) == 1
        while desk.pushes._all:
            await asyncio.sleep(0.01)

    at_desk(story)


def test_socket_that_is_cut_at_any_byte_leaves_no_listener() -> None:
    """A client dies in the middle of the handshake, of a frame, or right after it; the others go on."""
    message = json.dumps({"subscribe": {request_id(0): None}}).encode()
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    head = (
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert len(message) < 126

    async def story(desk: Desk) -> None:
        (name,) = await desk.queue(1)
        async with desk.socket() as other:
            for end in [*range(1, len(head), 16), *range(len(head), len(head) + len(frame) + 1)]:
                reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
                writer.write(head[:end])
                if end >= len(head):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(frame[: end - len(head)])
                await writer.drain()
                writer.transport.abort()
            await ask(other, subscribe={name: None})
            assert (await said(other))["request"]["status"] == "queued"
            await desk.end(name)
            while (await said(other))["request"]["status"] != "completed":
                pass
        while desk.pushes._all:
            await asyncio.sleep(0.01)

    at_desk(story)


def test_connections_and_pushes_are_counted() -> None:
    async def story(desk: Desk) -> None:
        metrics = desk.pushes.watch
        assert isinstance(metrics, Metrics)

        def value(name: str, **labels: str) -> float | None:
            return metrics.registry.get_sample_value(f"headrace_gateway_{name}", labels)

        (name,) = await desk.queue(1)
        async with desk.socket(f"?id={name}") as connection:
            await said(connection)
            assert value("connections", kind="socket") == 1
            await desk.end(name)
            while (await said(connection))["request"]["status"] != "completed":
                pass
        assert value("push_seconds_count") == 1
        while value("connections", kind="socket"):
            await asyncio.sleep(0.01)
        async with httpx2.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            assert "completed" in (await client.get(f"http://{desk.url}?id={name}")).text
        assert value("connections", kind="events") == 0

    at_desk(story)
