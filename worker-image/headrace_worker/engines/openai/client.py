"""HTTP to all endpoints of a batch: one pool of connections, one deadline for each request, no retries and no redirects of its own."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Self

import aiohttp
from aiohttp import ClientTimeout

from headrace.api.addresses import is_of_the_node
from headrace.api.engines import Endpoint
from headrace.api.model import Task
from headrace_worker.engines.openai.replies import Cause, Fault, Reply

MOST_ANSWER_BYTES = 64 * 1024 * 1024
"""Longest answer that is taken."""
CONNECT_SECONDS = 10.0
"""A host that does not take a connection within this time is not there."""
IDLE_SECONDS = 4.0
"""A connection is closed after so long without use: before the usual server does so, which would look like a failure."""
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "headrace-worker",
}


class _Forbidden(OSError):
    """No connection is made to that address, whatever name has led to it."""


def _socket_to(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that a name has just been resolved to, or that stands in the URL itself."""
    family, kind, protocol, _, (host, *_) = address
    if is_of_the_node(host):
        raise _Forbidden("a link-local address or that of a metadata service")
    return socket.socket(family, kind, protocol)


class Client:
    """Sends requests; open it in a running event loop."""

    def __init__(self, session: aiohttp.ClientSession, seconds: int) -> None:
        self._session, self._seconds = session, seconds

    @classmethod
    async def open(cls, seconds: int) -> Self:
        """`seconds`: how long one request may take, from the connection to the last byte of the answer."""
        tls = ssl.create_default_context()
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS, ssl=tls, socket_factory=_socket_to)
        timeout = ClientTimeout(total=seconds, sock_connect=min(CONNECT_SECONDS, seconds))
        jar = aiohttp.DummyCookieJar()
        return cls(aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar), seconds)

    async def post(self, url: str, body: bytes, key: str | None) -> Reply | Fault:
        """The answer of a server, whatever it is, or why there is none."""
        headers = {**_HEADERS, "Authorization": f"Bearer {key}"} if key else _HEADERS
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                data = await _read(response.content)
                if data is None:
                    return Fault(Cause.TOO_LARGE, f"answers with more than {MOST_ANSWER_BYTES >> 20} MiB")
                return Reply(response.status, response.headers, data)
        except aiohttp.ClientSSLError as error:
            return Fault(Cause.NOT_TRUSTED, f"cannot be trusted: {_why(error)}")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if isinstance(error.__cause__, _Forbidden):
                return Fault(Cause.FORBIDDEN, f"has an address that is never asked: {error.__cause__}")
            return Fault(Cause.UNREACHED, f"cannot be reached: {_why(error)}")
        except TimeoutError:
            return Fault(Cause.TIMEOUT, f"has not answered in full within {self._seconds} s (requestTimeoutSeconds)")
        except aiohttp.ClientError as error:
            return Fault(Cause.DISCONNECTED, f"has broken off: {_why(error)}")

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _read(content: aiohttp.StreamReader) -> bytes | None:
    """A whole answer; None when it is too long."""
    pieces: list[bytes] = []
    length = 0
    async for piece in content.iter_any():
        pieces.append(piece)
        length += len(piece)
        if length > MOST_ANSWER_BYTES:
            return None
    return b"".join(pieces)


def _why(error: aiohttp.ClientError) -> str:
    """The cause in few words."""
    return (str(error) or type(error).__name__)[:200]


def url_of(endpoint: Endpoint, task: Task) -> str:
    """Where requests of a task go."""
    return f"{endpoint.url.rstrip('/').removesuffix('/v1')}{task.endpoint}"
