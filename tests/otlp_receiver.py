"""What stands behind a collector in the tests: OTLP over HTTP, its protobuf read with OpenTelemetry's own definitions."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PATIENCE_SECONDS = 180.0
"""A test that waits for longer has failed."""
PATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "180", "OTEL_BSP_EXPORT_TIMEOUT": "180000"}
_UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}


@dataclass(frozen=True)
class Arrived:
    """A span as a collector sees it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first of a trace."""
    start: int
    """Nanoseconds since the epoch."""
    end: int
    attributes: dict[str, str | int]
    error: str | None
    """None where the span has not failed."""
    events: tuple[str, ...] = ()


@dataclass
class Receiver:
    """Keeps what it is sent."""

    url: str = ""
    spans: list[Arrived] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """The requests as they were on the wire, unpacked."""
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    """What it answers with."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self.changed:
            self.bodies.append(body)
            self.headers.append(headers)
            self.spans += _spans(request) if self.status == 200 else []
            self.changed.notify_all()

    def wait(self, done: Callable[[list[Arrived]], bool]) -> list[Arrived]:
        """The spans, once there are those that are waited for."""
        with self.changed:
            assert self.changed.wait_for(lambda: done(self.spans), PATIENCE_SECONDS), [it.name for it in self.spans]
            return [*self.spans]


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started from here wait for the collector: a machine that is busy loses no spans."""
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)


def tree(spans: list[Arrived]) -> str:
    """A trace as text: each span below the one that it belongs to, in the order of their names; `!` marks what has failed."""
    children: dict[str, list[Arrived]] = {}
    for span in sorted(spans, key=lambda it: (it.name, str(it.attributes.get("headrace.custom_id", "")))):
        children.setdefault(span.parent_id, []).append(span)

    def lines(above: str, depth: int) -> Iterator[str]:
        for span in children.get(above, ()):
            record = f" {span.attributes['headrace.custom_id']}" if "headrace.custom_id" in span.attributes else ""
            failed = f" ! {span.error}" if span.error is not None else ""
            yield f"{'  ' * depth}{span.name}{record}{failed}"
            yield from lines(span.span_id, depth + 1)

    known = {span.span_id for span in spans}
    return "\n".join(line for above in children if above not in known for line in lines(above, 0))


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port of this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            packed = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.take(_UNPACK[self.headers.get("Content-Encoding", "")](packed), dict(self.headers))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _spans(request: ExportTraceServiceRequest) -> list[Arrived]:
    return [
        Arrived(
            service=str(_attributes(group.resource.attributes).get("service.name")),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            attributes=_attributes(span.attributes),
            error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
            events=tuple(event.name for event in span.events),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: list[KeyValue]) -> dict[str, str | int]:
    return {it.key: it.value.int_value if it.value.HasField("int_value") else it.value.string_value for it in pairs}
