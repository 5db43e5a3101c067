"""Single requests in traces: a batch of many is in the trace of one of them, and each request tells of its end in its own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from headrace.api.asking import QueuedRequest, RequestRecord
from headrace.api.tracing import Span, TraceContext, span_id_of
from headrace.core.asking.life import is_dead
from headrace.core.tracing.settings import Tracing


def window_context(members: Iterable[QueuedRequest]) -> TraceContext | None:
    """The context of what a window becomes: that of the oldest request in it whose trace is kept, else of the oldest with one."""
    given = [found for one in members if (found := TraceContext.parse(one.traceparent or "")) is not None]
    return next((context for context in given if context.sampled), given[0] if given else None)


def request_span(record: RequestRecord, tracing: Tracing | None) -> Span | None:
    """The span of a request that has ended; None where nobody has handed on a context, or nobody keeps the trace and nothing is wrong."""
    given = TraceContext.parse(record.traceparent or "")
    if tracing is None or given is None or record.ended is None:
        return None
    if not is_dead(record.state) and not tracing.sampler.samples(given.trace_id, given):
        return None
    said: dict[str, str | int] = {"headrace.request": record.id}
    if record.batch is not None:
        said["headrace.name"] = record.batch
    ids = TraceContext(given.trace_id, span_id_of(record.id))
    error = record.error.code if record.error is not None else ""
    return Span("request", ids, given.span_id, _moment(record.accepted), _moment(record.ended), said, error)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
