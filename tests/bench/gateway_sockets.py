"""So many WebSockets to `/v1/stream` in a process of their own, which notes when each request is said to be completed.

    python tests/bench/gateway_sockets.py HOST PORT COUNT

It says `open` once all are open. Then each line that it reads is a JSON list of ids, which it has the sockets wait for in turn; it says
`waiting` once the gateway has told something of each of them, and, when all are completed, when each was: seconds since the epoch, by id.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

from headrace.shells.local.turns import take_short_turns

OPENED_AT_ONCE = 100
_TEXT = 0x81
_MASKED = 0x80
_LONG = 126
_HEAD_END = b"\r\n\r\n"


@dataclass(slots=True)
class Told:
    """What all sockets have heard of the requests that are waited for."""

    waiting: set[str] = field(default_factory=set)
    completed: dict[str, float] = field(default_factory=dict)
    something: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, message: bytes) -> None:
        """Take one message."""
        now, said = time.time(), json.loads(message)
        name, status = said["request"]["id"], said["request"]["status"]
        self.waiting.add(name)
        if status == "completed":
            self.completed[name] = now
        self.something.set()


class Socket(asyncio.Protocol):
    """One WebSocket, for as much of RFC 6455 as the gateway speaks to one that sends little."""

    def __init__(self, told: Told, host: str) -> None:
        self._told, self._host, self._got = told, host, b""
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = cast("asyncio.Transport", transport)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /v1/stream HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._transport.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        self._got += data
        if not self.opened.done():
            head, end, rest = self._got.partition(_HEAD_END)
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise SystemExit(head.decode())
            self._got = rest
            self.opened.set_result(None)
        while (frame := self._frame()) is not None:
            kind, payload = frame
            if kind == _TEXT:
                self._told.note(payload)
            else:  # a ping, which is answered with the same words
                self._send(0x8A, payload)

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody may hang up."""
        raise SystemExit(f"a socket was closed: {error}")

    def ask(self, **message: object) -> None:
        """Say something."""
        self._send(_TEXT, json.dumps(message).encode())

    def _frame(self) -> tuple[int, bytes] | None:
        got = self._got
        if len(got) < 4:
            return None
        length, begin = (got[1], 2) if got[1] < _LONG else (int.from_bytes(got[2:4], "big"), 4)
        if len(got) < begin + length:
            return None
        self._got = got[begin + length :]
        return got[0], got[begin : begin + length]

    def _send(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([_MASKED | size]) if size < _LONG else bytes([_MASKED | _LONG]) + size.to_bytes(2, "big")
        self._transport.write(bytes([kind]) + length + bytes(4) + payload)  # a mask of zeros changes nothing


async def main(host: str, port: int, count: int) -> None:
    """Serve standard input."""
    loop, told, sockets = asyncio.get_running_loop(), Told(), list[Socket]()
    for _ in range(0, count, OPENED_AT_ONCE):
        connecting = [
            loop.create_connection(lambda: Socket(told, f"{host}:{port}"), host, port) for _ in range(OPENED_AT_ONCE)
        ]
        new = [socket for _, socket in await asyncio.gather(*connecting)]
        await asyncio.gather(*(socket.opened for socket in new))
        sockets += new
    print("open", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await _serve(json.loads(line), sockets, told)


async def _serve(ids: Sequence[str], sockets: Sequence[Socket], told: Told) -> None:
    """Wait for these requests, and say when each was completed."""
    told.waiting, told.completed = set(), {}
    for number, name in enumerate(ids):
        sockets[number * 997 % len(sockets)].ask(subscribe={name: None})
    await _until(told, lambda: len(told.waiting) == len(ids))
    print("waiting", flush=True)
    await _until(told, lambda: len(told.completed) == len(ids))
    print(json.dumps(told.completed), flush=True)


async def _until(told: Told, is_so: Callable[[], bool]) -> None:
    while not is_so():
        told.something.clear()
        await told.something.wait()


if __name__ == "__main__":
    take_short_turns()  # clients are elsewhere, and wait for no core of the server's machine
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
