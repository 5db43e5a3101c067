"""Fetching from the web, made so that a URL in a record cannot be used to reach what is not public.

The check is made where the connection is made: a name is resolved once, and the connection goes to an address that has just been
checked. So neither a redirect nor a name that resolves otherwise the next time (DNS rebinding) leads past it. No proxy is used, for a
proxy would resolve the name again. Each fetch has a connection of its own and one deadline, whatever the server does within it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore2
from httpcore2 import ConnectionPool, NetworkStream, Response

from headrace.api.media import Media
from headrace_worker.media.addresses import AddressPolicy
from headrace_worker.media.errors import invalid, not_allowed, too_large, unreachable

MOST_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_HEADERS: dict[bytes | str, bytes | str] = {
    "User-Agent": "headrace-worker",
    "Accept": "image/*, audio/*",
    "Accept-Encoding": "identity",
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_CHARACTERS = "/?&=%:@!$'()*+,;~[]"
"""What is left as it is in a path and a query; `%` too, for what is quoted must not be quoted twice."""
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})

Resolver = Callable[[str, int], Iterable[str]]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which they should be tried. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Web:
    """Fetches over HTTP and HTTPS; may be used by several threads at once."""

    def __init__(self, media: Media, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None) -> None:
        self._policy, self._resolver = AddressPolicy(media), resolver
        self._most, self._seconds = media.max_bytes, media.timeout_seconds
        self._tls = tls or httpcore2.default_ssl_context()

    def fetch(self, url: str) -> bytes:
        """The bytes at a URL. Raises `MediaError`."""
        deadline = monotonic() + self._seconds
        for _ in range(MOST_REDIRECTS + 1):
            try:
                answer = self._ask(url, deadline)
            except httpcore2.TimeoutException as error:
                message = (
                    f"{_host(url)} has not answered in full within {self._seconds} seconds (input.media.timeoutSeconds)"
                )
                raise unreachable(message, retriable=True) from error
            except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError) as error:
                raise unreachable(f"{_host(url)} cannot be read: {error}", retriable=True) from error
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise unreachable(f"{_host(url)} redirects more than {MOST_REDIRECTS} times", retriable=False)

    def _ask(self, url: str, deadline: float) -> bytes | str:
        """One request: the bytes, or the URL of a redirect."""
        target = self._target(url)
        backend = _CheckedBackend(self._policy, self._resolver, deadline)
        with (
            ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream("GET", target, headers=_HEADERS) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in headers:
                return headers[b"location"].decode("latin-1")
            return self._read(response, headers.get(b"content-length", b""), _host(url))

    def _target(self, url: str) -> httpcore2.URL:
        """The URL in its parts, so that nobody parses it a second time and comes to another host."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").encode("idna"), parts.port
        except ValueError as error:
            raise invalid(f"leads to what is no URL: {error}") from error
        if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
            raise not_allowed("leads to what is no http:// or https:// URL of a host")
        if not self._policy.allows_host(host.decode()):
            raise not_allowed(f"leads to {host.decode()}, which input.media.allowedHosts does not name")
        target = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe=_URL_CHARACTERS)
        return httpcore2.URL(scheme=parts.scheme.encode(), host=host, port=port, target=target.encode())

    def _read(self, response: Response, length: bytes, host: str) -> bytes:
        if response.status != 200:
            raise unreachable(f"{host} answers {response.status}", retriable=response.status in _MAY_PASS)
        if length.isdigit() and int(length) > self._most:
            raise too_large(str(int(length)), self._most)
        data = bytearray()
        for piece in response.iter_stream():
            data += piece
            if len(data) > self._most:
                raise too_large(f"more than {self._most}", self._most)
        return bytes(data)


class _CheckedBackend(httpcore2.NetworkBackend):
    """Connects to addresses that the policy allows, and to no others."""

    def __init__(self, policy: AddressPolicy, resolver: Resolver, deadline: float) -> None:
        self._policy, self._resolver, self._deadline = policy, resolver, deadline
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - there is one deadline for all
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        def connect(address: str) -> NetworkStream:
            left = _left(self._deadline)
            stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
            return _TimedStream(stream, self._deadline)

        *others, last = self._allowed(host, port)
        for address in others:
            with suppress(httpcore2.ConnectError):
                return connect(address)
        return connect(last)

    def _allowed(self, host: str, port: int) -> list[str]:
        try:
            found = list(self._resolver(host, port))
        except OSError as error:
            raise unreachable(f"leads to {host}, which has no address: {error}", retriable=True) from error
        allowed = [address for address in found if self._policy.allows_address(address)]
        if not allowed:
            listed = ", ".join(found[:3]) or "none"
            raise not_allowed(
                f"leads to {host}, whose address ({listed}) is not a public one: input.media.allowedNetworks names those "
                "that may be reached all the same"
            )
        return allowed


class _TimedStream(NetworkStream):
    """A connection that gives up at a moment, however slowly bytes come until then."""

    def __init__(self, stream: NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the deadline is over")
    return left


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the host"
