"""Spans to OpenTelemetry's SDK, and by it to a collector: OTLP over HTTP, in batches, by a thread of its own.

The SDK would make ids and decide about sampling. Both is done before a span comes here, so it is told the ids and keeps everything.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from headrace import __version__
from headrace.api.tracing import Span

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0
"""How long the end of a process may wait for a collector, unless `OTEL_BSP_EXPORT_TIMEOUT` (milliseconds) says it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpTracer:
    """A `Tracer` that sends. One a process; any thread may use it."""

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        """`exporter`: by default the one that `OTEL_EXPORTER_OTLP_*` describe."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say ourselves what was lost, once
        self._ids, self._lock = _GivenIds(), threading.Lock()
        self._sent = 0
        self._exporter = _Counting(exporter or OTLPSpanExporter())
        self._processor = BatchSpanProcessor(self._exporter)
        self._close_seconds = _close_seconds()
        named = os.environ.get("OTEL_SERVICE_NAME") or service
        resource = Resource.create({"service.name": named, "service.version": __version__})
        provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("headrace", __version__)

    def send(self, spans: Iterable[Span]) -> None:
        """Put them into the queue of the SDK."""
        for span in spans:
            with self._lock:
                self._ids.next = span
                self._put(span)
                self._sent += 1

    def close(self) -> None:
        """The SDK would wait half a minute for a collector that is dead."""
        closing = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        closing.start()
        closing.join(self._close_seconds)
        lost = self._sent - self._exporter.arrived
        if lost:
            logger.warning("%d of %d spans did not reach the collector%s", lost, self._sent, self._exporter.why)

    def _put(self, span: Span) -> None:
        made = self._tracer.start_span(
            span.name, _parent(span), attributes=dict(span.attributes), start_time=_nanoseconds(span.start)
        )
        for event in span.events:
            made.add_event(event.name, dict(event.attributes), _nanoseconds(event.time))
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(_nanoseconds(span.end))


class _GivenIds(IdGenerator):
    """Gives a span the ids that it has."""

    next: Span

    def generate_span_id(self) -> int:
        return int(self.next.context.span_id, 16)

    def generate_trace_id(self) -> int:
        return int(self.next.context.trace_id, 16)


class _Counting(SpanExporter):
    """Counts what has arrived, and says once in the log that a collector does not take anything."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter, self._told = exporter, False
        self.arrived = 0
        self.why = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        with suppress(Exception):  # whatever it is, it is a failure to export, and only that
            result = self._exporter.export(spans)
        if result == SpanExportResult.SUCCESS:
            self.arrived += len(spans)
        elif not self._told:
            self._told = True
            self.why = ": look at OTEL_EXPORTER_OTLP_ENDPOINT"
            logger.warning("the collector does not take spans; the work goes on without them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _close_seconds() -> float:
    """Raises `ValueError` when the variable is no number."""
    told = os.environ.get("OTEL_BSP_EXPORT_TIMEOUT")
    return float(told) / 1000 if told else CLOSE_SECONDS


def _parent(span: Span) -> Context:
    if span.parent_id is None:
        return Context()
    ids = SpanContext(int(span.context.trace_id, 16), int(span.parent_id, 16), is_remote=True, trace_flags=_SAMPLED)
    return set_span_in_context(NonRecordingSpan(ids), Context())


def _nanoseconds(moment: datetime) -> int:
    """Since the epoch, exactly: a float would be off by a hundred nanoseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
