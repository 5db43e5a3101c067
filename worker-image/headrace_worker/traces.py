"""What a worker tells a trace: one span for itself, and one for each record that has failed or is in the sample.

The sums of a batch are in its metrics and its status; a span is for finding out what has happened to one record, and when. So no text
of a record is ever in one: its `custom_id`, how often it was tried, and the codes of its errors.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import NamedTuple

from headrace.api.records import RecordError, Request
from headrace.api.tracing import (
    DEFAULT_RECORD_RATIO,
    RECORD_RATIO,
    TRACEPARENT,
    Span,
    SpanEvent,
    TraceContext,
    is_wanted,
    parse_ratio,
    record_sampled,
)
from headrace.api.worker import BatchIdentity, Failure, Report, Role, ShardReport
from headrace.tracing import Silent, Tracer, open_tracer
from headrace_worker.engines.base import Outcome, Work

MOST_TRIES_TOLD = 20
"""Of one record: a record that is tried for days tells of its last tries."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Begun:
    """A record in hand, as far as its span tells of it."""

    start: float
    end: float = 0.0
    tries: list[tuple[float, str]] = field(default_factory=list)
    """When a try has failed, and with which code."""


class Playing(NamedTuple):
    """What a worker does, and for whom."""

    role: Role
    batch: BatchIdentity


class Traces:
    """The spans of one worker. Without a context nothing is noted and nothing is made."""

    def __init__(
        self,
        tracer: Tracer,
        context: TraceContext | None,
        ratio: float = DEFAULT_RECORD_RATIO,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`context` is that of the object that is worked for; `clock` the one that all moments here are told by."""
        self._tracer, self._above, self._ratio = tracer, context, ratio
        self._begun_at, self._clock = wall() - timedelta(seconds=clock()), clock
        self._start = clock()
        self._own = context._replace(span_id=secrets.token_hex(8)) if context is not None else None
        self._in_hand: dict[int, _Begun] = {}

    def begin(self, batch: Iterable[Work], now: float) -> None:
        """Records go to the engine, for the first time or again."""
        if self._own is not None:
            for work in batch:
                self._in_hand.setdefault(work.position, _Begun(now))

    def came_back(self, outcomes: Iterable[Outcome], now: float) -> None:
        """The engine has handed back records."""
        if not self._in_hand:
            return
        for outcome in outcomes:
            begun = self._in_hand.get(outcome.work.position)
            if begun is not None:
                begun.end = now
                if outcome.error is not None:
                    begun.tries = [*begun.tries[1 - MOST_TRIES_TOLD :], (now, str(outcome.error.code))]

    def finish(self, outcomes: Iterable[Outcome]) -> None:
        """These have their last word."""
        if self._own is None:
            return
        for outcome in outcomes:
            begun = self._in_hand.pop(outcome.work.position, None)
            if begun is not None:
                self._tell(self._own, outcome, begun)

    def refuse(self, refused: Iterable[tuple[int, Request, RecordError]]) -> None:
        """The engine would not take these; position, request and error."""
        if self._own is None:
            return
        now = self._moment(self._clock())
        for position, request, error in refused:
            code = str(error.code)
            attributes = {**_about(request, position, attempts=0), "error.type": code}
            self._tracer.send([Span("record", self._kept(), self._own.span_id, now, now, attributes, code)])

    def step(self, name: str, start: float, end: float) -> None:
        """Something else took this long."""
        if self._own is not None and self._own.sampled:
            span = Span(name, self._kept(), self._own.span_id, self._moment(start), self._moment(end))
            self._tracer.send([span])

    def close(self, playing: Playing | None, report: Report, failure: Failure | None) -> None:
        """The worker is at its end: its own span, and all that waits is sent."""
        failed = failure is not None or (isinstance(report, ShardReport) and report.records.failed > 0)
        if self._own is not None and playing is not None and (self._own.sampled or failed):
            shard = f" {report.shard}" if isinstance(report, ShardReport) else ""
            name, above = f"{playing.role}{shard}", self._above.span_id if self._above is not None else None
            start, end = self._moment(self._start), self._moment(self._clock())
            attributes = {**_names(playing.batch), **_counts(report)}
            own = self._own._replace(sampled=True)
            self._tracer.send([Span(name, own, above, start, end, attributes, failure.reason if failure else "")])
        self._tracer.close()

    def _tell(self, own: TraceContext, outcome: Outcome, begun: _Begun) -> None:
        custom_id = outcome.work.request.custom_id
        if outcome.error is None and not record_sampled(own, custom_id, self._ratio):
            return
        code = str(outcome.error.code) if outcome.error is not None else ""
        attributes = {
            **_about(outcome.work.request, outcome.work.position, outcome.work.attempt),
            "gen_ai.usage.input_tokens": outcome.prompt_tokens,
            "gen_ai.usage.output_tokens": outcome.completion_tokens,
            **({"error.type": code} if code else {}),
        }
        start, end = self._moment(begun.start), self._moment(begun.end)
        self._tracer.send(
            [Span("record", self._kept(), own.span_id, start, end, attributes, code, self._events(outcome, begun))]
        )

    def _events(self, outcome: Outcome, begun: _Begun) -> tuple[SpanEvent, ...]:
        tries = (SpanEvent("try failed", self._moment(at), {"error.type": code}) for at, code in begun.tries)
        first = outcome.first_token
        tokens = (SpanEvent("first token", self._moment(first)),) if first is not None else ()
        return (*tries, *tokens)

    def _kept(self) -> TraceContext:
        """The ids of a new span of this trace."""
        assert self._own is not None
        return TraceContext(self._own.trace_id, secrets.token_hex(8))

    def _moment(self, clock: float) -> datetime:
        return self._begun_at + timedelta(seconds=clock)


def _about(request: Request, position: int, attempts: int) -> dict[str, str | int]:
    return {
        "headrace.custom_id": request.custom_id,
        "headrace.position": position,
        "headrace.attempts": attempts,
    }


def _names(batch: BatchIdentity) -> dict[str, str | int]:
    return {"k8s.namespace.name": batch.namespace, "headrace.name": batch.name, "headrace.uid": batch.uid}


def _counts(report: Report) -> dict[str, str | int]:
    if not isinstance(report, ShardReport):
        return {}
    return {
        "headrace.shard": report.shard,
        "headrace.attempt": report.attempt,
        "headrace.records.succeeded": report.records.succeeded,
        "headrace.records.failed": report.records.failed,
        "gen_ai.usage.input_tokens": report.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": report.usage.completion_tokens,
    }


NOT_TRACED = Traces(Silent(), None)


def open_traces(env: Mapping[str, str]) -> Traces:
    """As the environment says. Whatever is wrong there keeps nobody from working: it is in the log."""
    context = TraceContext.parse(env.get(TRACEPARENT, ""))
    if context is None or not is_wanted(env):
        return NOT_TRACED
    try:
        ratio = parse_ratio(env.get(RECORD_RATIO) or str(DEFAULT_RECORD_RATIO))
    except ValueError as error:
        log.warning("%s %s: %s is taken", RECORD_RATIO, error, DEFAULT_RECORD_RATIO)
        ratio = DEFAULT_RECORD_RATIO
    return Traces(open_tracer("headrace-worker"), context, ratio)
