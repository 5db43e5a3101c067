"""Servers on this machine that speak OpenAI's API, well and badly, for tests of the engine that asks them."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Lock, Thread
from typing import Any

import orjson

from cluster.processes import free_ports

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    body: JsonObject
    key: str | None

    @property
    def text(self) -> str:
        """The text of its first message."""
        return str(self.body["messages"][0]["content"])


Answer = Callable[[BaseHTTPRequestHandler, Asked], None]


def says(body: JsonObject | bytes, status: int = 200, **headers: str) -> Answer:
    """An answer of that body; `retry_after="1"` is the header `retry-after`."""

    def answer(handler: BaseHTTPRequestHandler, _: Asked) -> None:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **named}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI writes it."""
    return says({"error": {"message": message, "type": "error", "code": code}}, status, **headers)


def chat_body(text: str = "hello", model: str = "m", tokens: tuple[int, int] = (7, 3)) -> JsonObject:
    """The answer to a chat."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": choices, "usage": usage}


def echoes(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    """Answers a chat with its own text, as the model that it was asked for."""
    says(chat_body(asked.text, asked.body["model"]))(handler, asked)


def resets(handler: BaseHTTPRequestHandler, _: Asked) -> None:
    """Breaks the connection off with a reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


class Gate:
    """Answers so many chats at once, and the others when it is opened: work that cannot be over before a test lets it be."""

    def __init__(self, free: int = 0) -> None:
        self._free, self._more = free, Condition()

    def let(self, more: int) -> None:
        """Let so many more through."""
        with self._more:
            self._free += more
            self._more.notify_all()

    def open(self) -> None:
        """Let all through from now on."""
        self.let(10**9)

    def answer(self, handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        """What a server answers with. A client that has gone meanwhile takes nothing from the others."""
        with self._more:
            while not self._free:
                if _has_gone(handler.connection):
                    return
                self._more.wait(0.05)
            if _has_gone(handler.connection):
                return
            self._free -= 1
        echoes(handler, asked)


def _has_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed it; a client says nothing more before it is answered."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    with suppress(OSError):
        return not connection.recv(1, socket.MSG_PEEK)
    return True


@dataclass
class EndpointServer:
    """A server, and what it has been asked."""

    port: int
    answer: Answer = echoes
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    over: Event = field(default_factory=Event)
    """Set when the test is over: for answers that wait."""
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def hangs(self, _: BaseHTTPRequestHandler, __: Asked) -> None:
        """Does not answer as long as the test lasts."""
        self.over.wait()


@contextmanager
def endpoint_server(
    answer: Answer = echoes, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[EndpointServer]:
    """A server on the loopback address."""
    lock, at_once = Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            asked = Asked(self.path, orjson.loads(body), key)
            with lock:
                server.asked.append(asked)
                at_once[0] += 1
                server.most_at_once = max(server.most_at_once, at_once[0])
            try:
                server.answer(self, asked)
                self.wfile.flush()
            except (OSError, ValueError):  # the client has gone, or the answer has closed the connection
                self.close_connection = True
            finally:
                with lock:
                    at_once[0] -= 1

        def finish(self) -> None:
            try:
                super().finish()
            except (OSError, ValueError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Listening(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes is its own matter."""

    listening = Listening(("127.0.0.1", port), Handler)
    if tls is not None:
        listening.socket = tls.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    server = EndpointServer(listening.server_port, answer, scheme="https" if tls is not None else "http")
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        listening.shutdown()
        listening.server_close()
        thread.join()


def free_port() -> int:
    """A port on which nobody listens, and which the kernel gives to nobody else meanwhile."""
    return free_ports(1)[0]


def engine_settings(*endpoints: JsonObject | EndpointServer, **settings: Any) -> JsonObject:
    """`spec.engine` with these endpoints; servers are called e0, e1 and so on."""
    listed = [
        {"name": f"e{number}", "url": it.url} if isinstance(it, EndpointServer) else it
        for number, it in enumerate(endpoints)
    ]
    return {"name": "openai", "openai": {"endpoints": listed, **settings}}
