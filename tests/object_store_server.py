"""An S3 server on a free port of the loopback address, which it prints: moto, run by the Python of moto's own environment.

What moto lacks is added here. It looks whether an object is there and then writes it, which two requests at once could both do: so
one request at a time. And some buckets refuse, as servers do: see `REFUSALS`. In the buckets `LOSING`, the first PUT of every key
is carried out, and then answered with an error, or the connection is cut, or there is no answer until the client gives up. In the
bucket `SLOW` every answer takes its time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REFUSALS = {
    "forbidden": ("403 Forbidden", "AccessDenied"),
    "unknown-key": ("403 Forbidden", "InvalidAccessKeyId"),
    "wrong-secret": ("403 Forbidden", "SignatureDoesNotMatch"),
    "expired": ("400 Bad Request", "ExpiredToken"),
    "elsewhere": ("400 Bad Request", "AuthorizationHeaderMalformed"),
    "overloaded": ("503 Slow Down", "SlowDown"),
    "full": ("507 Insufficient Storage", "XMinioStorageFull"),
    "strange": ("418 I am a teapot", "Teapot"),
}
"""Buckets that answer every request so: status and code."""

LOSING = ("failing", "cutting", "stalling")
SLOW = "slow"
SLOW_SECONDS = 0.05


class Server:
    """One request at a time, and the refusals."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._turn = threading.Lock()
        self._lost: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        bucket, _, key = path.removeprefix("/").partition("/")
        if bucket in REFUSALS:
            return _refuse(*REFUSALS[bucket], environ, start_response)
        if bucket == SLOW and key:
            time.sleep(SLOW_SECONDS)
        with self._turn:
            answer = list(self._moto(environ, start_response))
            loses = bucket in LOSING and key and environ["REQUEST_METHOD"] == "PUT" and path not in self._lost
            if loses:
                self._lost.add(path)
        if not loses:
            return answer
        connection: socket.socket = environ["werkzeug.socket"]
        if bucket == "stalling":
            connection.recv(1)
        if bucket != "failing":
            connection.shutdown(socket.SHUT_RDWR)
        return _answer("500 Internal Server Error", "InternalError", environ, start_response)


def _refuse(status: str, code: str, environ: dict[str, Any], start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return _answer(status, code, environ, start_response)


def _answer(status: str, code: str, environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # keeps connections, as real stores do
    server = make_server("127.0.0.1", 0, Server(), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()
