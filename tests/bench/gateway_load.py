"""Callers of a gateway in a process of their own, as light as they can be: they share the machine with what they measure.

    python tests/bench/gateway_load.py '{"host": "127.0.0.1", "port": 8080, "seconds": 10, "rate": 500}'

With a rate, calls are due at moments that are drawn beforehand (independent callers: exponential gaps, the same ones each time), and the
time of a call counts from the moment in which it was due, whether or not a connection was free for it: a server that stalls does not
make its callers wait with asking. Without one, each of so many connections calls again as soon as it is answered. Told are the
milliseconds of all calls, how often each status has come, and how much later than due the load itself was ready to make its calls, which
is none of the server's doing. Callers are elsewhere, and do not wait for a core of the server's machine: they take short turns too.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

from headrace.shells.local.turns import take_short_turns

CONNECTIONS = 64
MODEL = "quick"
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One measurement."""

    host: str
    port: int
    seconds: float
    rate: float | None = None
    """Calls a second; None for as many as are answered."""
    connections: int = CONNECTIONS
    model: str = MODEL
    path: str = "/v1/requests"


@dataclass(slots=True)
class Load:
    """All connections, and what has come of their calls."""

    message: bytes
    idle: deque[Caller] = field(default_factory=deque)
    due: deque[float] = field(default_factory=deque)
    """Moments of calls for which no connection is free."""
    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    until: float | None = None
    """When those that call as fast as they can stop; None where calls have their moments."""
    calls: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False

    def call(self, due: float) -> None:
        """Make a call that was due then, as soon as there is a connection."""
        if self.idle:
            self.idle.popleft().call(due)
        else:
            self.due.append(due)

    def answered(self, caller: Caller, due: float, status: int) -> None:
        """A call has its answer."""
        now = time.perf_counter()
        self.milliseconds.append(1000 * (now - due))
        self.statuses[status] += 1
        if self.until is not None and now < self.until:
            caller.call(now)
        elif self.due:
            caller.call(self.due.popleft())
        else:
            self.idle.append(caller)
        self.ended.set()


class Caller(asyncio.Protocol):
    """One connection, with one call under way at most."""

    def __init__(self, load: Load) -> None:
        self._load, self._got, self._due = load, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first call."""
        self._transport = cast("asyncio.Transport", transport)

    def call(self, due: float) -> None:
        """Make one."""
        self._due = due
        self._load.calls += 1
        self._transport.write(self._load.message)

    def data_received(self, data: bytes) -> None:
        """Take the answer."""
        self._got += data
        head, end, body = self._got.partition(_HEAD_END)
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self._got = b""
            self._load.answered(self, self._due, int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody may hang up before the end."""
        if not self._load.closing:
            raise SystemExit(f"a connection was closed: {error}")


def message(asked: Asked) -> bytes:
    """The call."""
    words = [{"role": "user", "content": "Summarise this review in one sentence: it came late, but the cat loves it."}]
    body = json.dumps({"model": asked.model, "messages": words}).encode()
    head = f"POST {asked.path} HTTP/1.1\r\nHost: {asked.host}:{asked.port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def measured(asked: Asked) -> dict[str, Any]:
    """All calls, until the last has its answer."""
    loop, load, late = asyncio.get_running_loop(), Load(message(asked)), list[float]()
    callers = [
        (await loop.create_connection(lambda: Caller(load), asked.host, asked.port))[1]
        for _ in range(asked.connections)
    ]
    load.idle.extend(callers)
    began = time.perf_counter()
    if asked.rate is None:
        load.until = began + asked.seconds
        while load.idle:
            load.call(time.perf_counter())
        await asyncio.sleep(asked.seconds)
    else:
        chance, due = random.Random(7), began
        while (due := due + chance.expovariate(asked.rate)) < began + asked.seconds:
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            late.append(round(1000 * (time.perf_counter() - due), 3))
            load.call(due)
    while len(load.idle) < len(callers):
        load.ended.clear()
        await load.ended.wait()
    took = time.perf_counter() - began
    load.closing = True
    return {
        "seconds": took,
        "statuses": dict(load.statuses),
        "milliseconds": [round(one, 3) for one in load.milliseconds],
        "late": late,
    }


if __name__ == "__main__":
    take_short_turns()
    print(json.dumps(uvloop.run(measured(Asked(**json.loads(sys.argv[1]))))))
