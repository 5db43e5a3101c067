"""A small web server on this machine, for tests of what is fetched: pages by path, redirects, and servers that behave badly."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

Answer = Callable[[BaseHTTPRequestHandler], None]


def page(data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with these bytes; `headers` may say another length."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def redirect(url: str, status: int = 302) -> Answer:
    """An answer that sends on to a URL."""
    return page(b"", status, {"Location": url})


@dataclass
class WebServer:
    """Answers by path; what is asked for is written down."""

    port: int
    pages: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Host header and path of each request."""

    def url(self, path: str, host: str = "media.example") -> str:
        """The URL of a path, by whatever name for this machine."""
        return f"http://{host}:{self.port}{path}"


@contextmanager
def web_server(tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """A server on a free port of the loopback address; with `tls` for https:// URLs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked.append((self.headers["Host"], self.path))
            server.pages.get(self.path, page(b"", 404))(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    if tls is not None:
        # The handshake is made by the thread of the connection, so that one that fails is that connection's own matter.
        listening.socket = tls.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    server = WebServer(listening.server_port)
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


@contextmanager
def dripping_server(piece: bytes) -> Iterator[int]:
    """A server that sends a little every few milliseconds, and never ends its headers. Yields its port."""
    over = Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            try:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not over.wait(0.02):
                        connection.sendall(piece)
            except OSError:  # the client has gone, or the test is over
                return

        Thread(target=drip, daemon=True).start()
        yield listening.getsockname()[1]
        over.set()
