"""Connections of HTTP whose heads are bounded in time and in size, and not more of them than this process has descriptors for.

The server would wait as long as it takes for the head of a request, and keep all that comes of it. Whoever sends a byte now and then
would hold a connection with that, and some thousands of them all there are.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 30.0
"""How long a client may take for the head of a request, and with the first one on a connection to begin."""
_HEAD_BYTES = 64 * 1024
_KEPT_BACK = 512
"""Descriptors for files, workers and the store."""
_END = b"connection: close\r\ncontent-length: 0\r\n\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\n" + _END
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _END
_MANY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n" + _END


def raise_descriptors() -> None:
    """Let this process have as many descriptors as it may: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """How many connections there may be at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft // 2, soft - _KEPT_BACK)


class Connection(HttpToolsProtocol):
    """One connection, until it becomes a WebSocket."""

    head_seconds = HEAD_SECONDS
    most = 0
    """How many there may be at a time; 0 for as many as there are descriptors for."""
    _late: asyncio.TimerHandle | None = None
    _come = 0
    """Bytes of the head so far."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, unless there are too many who wait."""
        super().connection_made(transport)
        if len(self.connections) > (self.most or most_connections()):
            self._end(_MANY)
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take more of a head, or of what is after it."""
        super().data_received(data)
        if self._late is not None:
            self._come += len(data)
            if self._come > _HEAD_BYTES:
                self._end(_LARGE)

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        if self._late is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """Go on with a request."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._come = 0
        self._late = self.loop.call_later(self.head_seconds, self._end, _LATE)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self, why: bytes) -> None:
        """Say why, unless the answer to an earlier request is under way, and hang up."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(why)
        self.transport.close()
