"""What reaches a collector, byte for byte, and what becomes of spans that nobody takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from headrace.api.tracing import Span, SpanEvent, TraceContext
from headrace.tracing import Silent, open_tracer
from headrace.tracing.otlp import OtlpTracer
from otlp_receiver import PATIENCE_SECONDS, Receiver, be_patient, receiving

NOON = datetime(2026, 1, 15, 12, 0, 0, 123457, tzinfo=UTC)
CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


def a_span(number: int = 0, **fields: object) -> Span:
    usual = {
        "name": f"span {number}",
        "context": CONTEXT._replace(span_id=f"{number + 1:016x}"),
        "parent_id": CONTEXT.span_id,
        "start": NOON,
        "end": NOON + timedelta(microseconds=1),
    }
    return Span(**{**usual, **fields})  # type: ignore[arg-type]


def sent(monkeypatch: pytest.MonkeyPatch, *spans: Span, **env: str) -> Receiver:
    """A receiver that these spans have been sent to."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        be_patient(monkeypatch)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        tracer = open_tracer("headrace-test")
        tracer.send(spans)
        tracer.close()
    return receiver


def test_a_span_arrives_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    event = SpanEvent("try failed", NOON, {"error.type": "rate_limited"})
    told = a_span(attributes={"headrace.custom_id": "ü", "headrace.attempts": 3}, error="rate_limited", events=(event,))
    (arrived,) = sent(monkeypatch, told).spans
    assert (arrived.trace_id, arrived.span_id, arrived.parent_id) == (CONTEXT.trace_id, f"{1:016x}", CONTEXT.span_id)
    assert arrived.attributes == {"headrace.custom_id": "ü", "headrace.attempts": 3}
    assert (arrived.error, arrived.events, arrived.service) == ("rate_limited", ("try failed",), "headrace-test")
    assert arrived.start == int(NOON.timestamp()) * 1_000_000_000 + 123_457_000, "to the microsecond"
    assert arrived.end - arrived.start == 1000


def test_a_span_with_nothing_above_begins_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    (arrived,) = sent(monkeypatch, a_span(parent_id=None)).spans
    assert (arrived.parent_id, arrived.trace_id, arrived.error) == ("", CONTEXT.trace_id, None)


def test_service_is_called_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (arrived,) = sent(monkeypatch, a_span(), OTEL_SERVICE_NAME="mine").spans
    assert arrived.service == "mine"


def test_headers_and_compression_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    receiver = sent(monkeypatch, a_span(), **settings)
    assert len(receiver.spans) == 1
    assert receiver.headers[0]["x-tenant"] == "blue"
    assert receiver.headers[0]["Content-Encoding"] == "gzip"


def test_spans_of_many_threads_keep_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        be_patient(monkeypatch)
        tracer = open_tracer("headrace-test")
        numbers = [range(first, first + 50) for first in range(0, 400, 50)]
        threads = [threading.Thread(target=lambda part=part: tracer.send(map(a_span, part))) for part in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tracer.close()
    assert {(span.name, span.span_id) for span in receiver.spans} == {
        (f"span {n}", f"{n + 1:016x}") for n in range(400)
    }


class Stuck(SpanExporter):
    """A collector that holds on to the first request until it is let go."""

    def __init__(self, result: SpanExportResult = SpanExportResult.FAILURE) -> None:
        self._result = result
        self.entered, self.let_go = threading.Event(), threading.Event()

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.let_go.wait()
        return self._result


def test_a_full_queue_loses_spans_and_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Were any of this to wait for the collector, it would wait for ever: it is let go only afterwards."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    stuck = Stuck()
    tracer = OtlpTracer("headrace-test", stuck)
    tracer.send(map(a_span, range(4)))
    assert stuck.entered.wait(PATIENCE_SECONDS)
    with caplog.at_level(logging.WARNING):
        tracer.send(map(a_span, range(1000)))
        tracer.close()
    stuck.let_go.set()
    assert "1004 of 1004 spans did not reach the collector" in caplog.text


def test_the_end_waits_for_a_slow_collector_as_long_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By default it would not wait at all here."""
    monkeypatch.setattr("headrace.tracing.otlp.CLOSE_SECONDS", 0.0)
    monkeypatch.setenv("OTEL_BSP_EXPORT_TIMEOUT", "180000")
    slow = Stuck(SpanExportResult.SUCCESS)
    tracer = OtlpTracer("headrace-test", slow)
    tracer.send([a_span()])
    threading.Timer(0.1, slow.let_go.set).start()
    with caplog.at_level(logging.WARNING):
        tracer.close()
    assert "did not reach" not in caplog.text


def test_open_tracer_without_the_sdk_is_silent_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "headrace.tracing.otlp", None)
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    tracer = open_tracer("headrace-test")
    assert isinstance(tracer, Silent)
    assert "pip install 'headrace[tracing]'" in caplog.text
    tracer.send([a_span()])
    tracer.close()


def test_open_tracer_with_a_setting_that_is_wrong_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    assert isinstance(open_tracer("headrace-test"), Silent)
    assert "no traces" in caplog.text
