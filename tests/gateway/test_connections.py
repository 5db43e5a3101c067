"""Clients that are slow, or many, or send without an end: each is waited for so long and no longer, and all others are served meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.requests import Request

from asking_desk import Desk, at_desk, at_socket, body
from gateway_rig import REPOSITORY, ROUTES, environment, gateway, peak_memory
from headrace.core.openai.errors import ApiError
from headrace.gateway.web.bodies import json_body
from headrace.gateway.web.heads import Connection

HEAD = b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\n"
WHOLE = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOCKETS = 10_000
MOST_MEMORY = 700 * 2**20
"""Of a gateway with so many sockets: 60 KiB for each, and itself."""
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


def said_to(talk: Talk) -> bytes:
    """The last words of a gateway to one client, before it has hung up; it serves others at the same time."""

    async def story(desk: Desk) -> bytes:
        async with at_socket(desk.app) as url, dialled(url) as client, httpx2.AsyncClient(base_url=url) as other:
            talking = asyncio.ensure_future(talk(*client))
            with suppress(httpx2.RemoteProtocolError):  # on a busy machine it may come late itself
                assert (await other.post("/requests", json=body())).status_code in (202, 408)
            return await talking

    return at_desk(story)


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that can say anything."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send single bytes of a head until nobody listens any more."""
    answer = asyncio.ensure_future(reader.read())
    with suppress(ConnectionError):
        while not answer.done():
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([answer], timeout=0.01)
    return await answer


async def status_of(reader: asyncio.StreamReader) -> int:
    """That of one answer, which is read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
    return int(head[9:12])


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for for long."""
    monkeypatch.setattr(Connection, "head_seconds", 0.5)


@pytest.mark.usefixtures("hasty")
def test_head_that_comes_byte_by_byte_is_given_up() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(HEAD + b"X-Slow: ")
        return await dribble(reader, writer)

    assert said_to(talk).startswith(b"HTTP/1.1 408 ")


def test_head_of_a_second_request_is_not_waited_for_longer_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(WHOLE)
        assert await status_of(reader) == 200
        monkeypatch.setattr(Connection, "head_seconds", 0.5)
        writer.write(HEAD + b"X-Slow: ")
        return await dribble(reader, writer)

    assert said_to(talk).startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("hasty")
def test_client_that_says_nothing_is_not_waited_for() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        return await reader.read()

    assert said_to(talk).startswith(b"HTTP/1.1 408 ")


def test_head_without_an_end_is_cut_off() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        answer = asyncio.ensure_future(reader.read())
        with suppress(ConnectionError):
            writer.write(HEAD + b"X-Long: ")
            while not answer.done():
                writer.write(b"x" * 4096)
                await writer.drain()
        with suppress(ConnectionError):  # what was sent on top makes the end of it a reset
            assert (await answer)[:13] in (b"HTTP/1.1 431 ", b"")
        return b""

    assert said_to(talk) == b""


def test_body_that_comes_byte_by_byte_is_given_up() -> None:
    async def byte_by_byte() -> dict[str, object]:
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b" ", "more_body": True}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(ApiError, match="less than 16384 bytes") as caught:
        asyncio.run(json_body(Request(scope, byte_by_byte), 0.1))
    assert (caught.value.status, caught.value.retry_helps) == (408, True)


def test_connections_that_are_too_many_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "most", 2)

    async def story(desk: Desk) -> None:
        async with at_socket(desk.app) as url, dialled(url) as first:
            async with dialled(url) as second:
                for reader, writer in (first, second):
                    writer.write(WHOLE)
                    assert await status_of(reader) == 200
                async with dialled(url) as (reader, _):
                    refused = await reader.read()
                assert refused.startswith(b"HTTP/1.1 503 ")
                assert b"retry-after: 1\r\n" in refused
            answer = b""
            while not answer.startswith(b"HTTP/1.1 200 "):  # the gateway may not have heard yet that one has gone
                async with dialled(url) as (reader, writer):
                    writer.write(WHOLE)
                    answer = await reader.read(4096)

    at_desk(story)


@pytest.mark.slow
def test_gateway_with_ten_thousand_idle_sockets_serves_others(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < SOCKETS + 1000:
        pytest.skip(f"no process here may have more than {most} descriptors")
    client = [sys.executable, str(REPOSITORY / "tests/bench/gateway_sockets.py")]
    with gateway(tmp_path, uuid.uuid4().hex, routes=ROUTES) as served:
        words = [*client, *map(str, served.address), str(SOCKETS)]
        with subprocess.Popen(
            words, env=environment(served.mark), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sockets:
            try:
                assert sockets.stdin is not None
                assert sockets.stdout is not None
                assert sockets.stdout.readline() == "open\n"
                asked = {"model": "slow", "messages": [{"role": "user", "content": "hello"}]}
                ids = [served.post("/v1/requests", asked).json["id"] for _ in range(4)]
                sockets.stdin.write(json.dumps(ids) + "\n")
                sockets.stdin.flush()
                assert sockets.stdout.readline() == "waiting\n"
                assert set(json.loads(sockets.stdout.readline())) == {*ids}, "each is told on a socket of its own"
            finally:
                sockets.kill()
        assert peak_memory(served) < MOST_MEMORY
        assert served.ask("GET", "/v1/models").status == 200
