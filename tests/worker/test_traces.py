"""Spans of a worker: one for itself, and one for each record that has failed or is in the sample. A dead collector changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.api.batchstatus import RecordCounts
from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.tracing import Span, TraceContext, record_sampled
from headrace.api.worker import BatchIdentity, ExitCode, Failure, PlanReport, Role, ShardReport
from headrace_worker.engines.base import Outcome, Work
from headrace_worker.traces import MOST_TRIES_TOLD, NOT_TRACED, Playing, Traces, open_traces
from otlp_receiver import PATIENT, receiving, tree
from worker_rig import Folder, WorkerProcess, chat_line

CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
UNSAMPLED = CONTEXT._replace(sampled=False)
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
PLAYING = Playing(Role.RUN, BatchIdentity(namespace="default", name="reviews", uid="uid-reviews"))


@dataclass
class Kept:
    """A tracer that keeps what it is given."""

    spans: list[Span] = field(default_factory=list)
    closed: int = 0

    def send(self, spans: Iterable[Span]) -> None:
        self.spans += spans

    def close(self) -> None:
        self.closed += 1


def traces(kept: Kept, context: TraceContext = CONTEXT, ratio: float = 0.0) -> Traces:
    """At noon the monotonic clock shows 100 seconds."""
    return Traces(kept, context, ratio, clock=lambda: 100.0, wall=lambda: NOON)


def a_work(position: int = 0, attempt: int = 1) -> Work:
    return Work(
        position, Request(f"r{position}", {"messages": [{"role": "user", "content": "canary"}]}), 3, attempt=attempt
    )


def answered(work: Work) -> Outcome:
    return Outcome(work, {"said": "canary"}, prompt_tokens=3, completion_tokens=2, first_token=102.0)


def failed(work: Work) -> Outcome:
    return Outcome(work, error=RecordError(ErrorCode.ENGINE_ERROR, "it said: canary"))


def do(told: Traces, outcome: Outcome, began: float = 101.0, ended: float = 103.0) -> None:
    told.begin([outcome.work], began)
    told.came_back([outcome], ended)
    told.finish([outcome])


def test_a_record_that_has_failed_has_a_span_whatever_the_sample_is() -> None:
    for context in (CONTEXT, UNSAMPLED):
        kept = Kept()
        do(traces(kept, context), failed(a_work()))
        (span,) = kept.spans
        assert (span.error, span.attributes["headrace.custom_id"]) == (ErrorCode.ENGINE_ERROR, "r0")
        assert (span.start, span.end) == (NOON + timedelta(seconds=1), NOON + timedelta(seconds=3))
        assert span.context.sampled


def test_records_that_have_an_answer_have_a_span_where_the_sample_says_so() -> None:
    kept = Kept()
    told = traces(kept, ratio=0.5)
    for position in range(200):
        do(told, answered(a_work(position)))
    expected = [f"r{n}" for n in range(200) if record_sampled(CONTEXT, f"r{n}", 0.5)]
    assert [span.attributes["headrace.custom_id"] for span in kept.spans] == expected
    assert 50 < len(expected) < 150


def test_no_text_of_a_record_is_in_a_span() -> None:
    kept = Kept()
    told = traces(kept, ratio=1.0)
    do(told, answered(a_work()))
    do(told, failed(a_work(1)))
    told.refuse([(2, a_work(2).request, RecordError(ErrorCode.INVALID_REQUEST, "canary"))])
    told.close(PLAYING, ShardReport(shard=0), None)
    assert len(kept.spans) == 4
    assert "canary" not in repr(kept.spans)


def test_a_record_that_is_tried_again_has_one_span_with_its_tries() -> None:
    kept = Kept()
    told = traces(kept)
    for attempt in range(1, 4):
        told.begin([a_work(attempt=attempt)], 100.0 + attempt)
        told.came_back([failed(a_work(attempt=attempt))], 100.5 + attempt)
    told.finish([failed(a_work(attempt=3))])
    (span,) = kept.spans
    assert span.start == NOON + timedelta(seconds=1)
    assert [(event.name, event.time - NOON) for event in span.events] == [
        ("try failed", timedelta(seconds=0.5 + attempt)) for attempt in range(1, 4)
    ]
    assert span.attributes["headrace.attempts"] == 3


def test_a_record_that_is_tried_for_days_tells_of_its_last_tries() -> None:
    kept = Kept()
    told = traces(kept)
    for attempt in range(100):
        told.begin([a_work()], 100.0 + attempt)
        told.came_back([failed(a_work())], 100.0 + attempt)
    told.finish([failed(a_work())])
    events = kept.spans[0].events
    assert (len(events), events[-1].time) == (MOST_TRIES_TOLD, NOON + timedelta(seconds=99))


def test_records_are_below_the_worker_and_the_worker_below_its_object() -> None:
    kept = Kept()
    told = traces(kept)
    do(told, failed(a_work()))
    told.step("load", 100.0, 104.0)
    told.close(PLAYING, ShardReport(shard=7, records=RecordCounts(total=1, failed=1)), None)
    record, load, worker = kept.spans
    assert (worker.name, worker.parent_id) == ("run 7", CONTEXT.span_id)
    assert record.parent_id == load.parent_id == worker.context.span_id
    assert {span.context.trace_id for span in kept.spans} == {CONTEXT.trace_id}
    assert kept.closed == 1


@pytest.mark.parametrize(
    ("report", "failure", "there"),
    [
        pytest.param(ShardReport(shard=0), None, False, id="all is well"),
        pytest.param(
            ShardReport(shard=0, records=RecordCounts(total=1, failed=1)), None, True, id="a record has failed"
        ),
        pytest.param(PlanReport(), Failure(reason="ModelNotFound", message="canary"), True, id="it could not go on"),
    ],
)
def test_a_worker_in_a_trace_that_is_not_sampled_has_a_span_when_something_has_failed(
    report: ShardReport | PlanReport, failure: Failure | None, *, there: bool
) -> None:
    kept = Kept()
    told = traces(kept, UNSAMPLED)
    told.step("load", 100.0, 104.0)
    told.close(PLAYING, report, failure)
    assert [span.error for span in kept.spans] == ([failure.reason if failure else ""] if there else [])


def test_without_a_context_nothing_is_noted() -> None:
    do(NOT_TRACED, failed(a_work()))
    assert open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is NOT_TRACED
    assert open_traces({"TRACEPARENT": str(CONTEXT)}) is NOT_TRACED


# real processes


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Ten records, of which a seeded few fail."""
    folder = Folder(
        tmp_path, {"engine": {"name": "mock", "mock": {"seed": 1, "errorPercent": 30}}, "retries": {"limit": 0}}
    )
    folder.write_input(*(chat_line(number) for number in range(10)))
    return folder


def work(folder: Folder, endpoint: str, **more: str) -> WorkerProcess:
    """Plan and run with spans going there; the worker that has run."""
    env = {"TRACEPARENT": str(CONTEXT), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **more}
    for role in (Role.PLAN, Role.RUN):
        worker = WorkerProcess(folder, role, env=env)
        assert worker.wait() == ExitCode.DONE, worker.log
    return worker


def test_a_worker_sends_its_spans_before_it_ends(folder: Folder) -> None:
    with receiving() as receiver:
        work(folder, receiver.url, HEADRACE_TRACE_RECORD_RATIO="0", **PATIENT)
    failing = sorted(line["custom_id"] for line in folder.lines("errors"))
    assert 0 < len(failing) < 10
    records = "\n".join(f"  record {name} ! mock_error" for name in failing)
    assert tree(receiver.spans) == f"plan\nrun 0\n  load\n{records}"
    assert {span.service for span in receiver.spans} == {"headrace-worker"}


@contextmanager
def nobody_answers() -> Iterator[str]:
    """A collector that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def nobody_is_there() -> Iterator[str]:
    """No collector: nobody is given that port."""
    yield "http://127.0.0.1:1"


@contextmanager
def it_refuses() -> Iterator[str]:
    """A collector that has no room for anybody."""
    with receiving() as receiver:
        receiver.status = 503
        yield receiver.url


@pytest.mark.parametrize("collector", [nobody_is_there, nobody_answers, it_refuses], ids=lambda it: it.__name__)
def test_a_dead_collector_changes_nothing_but_the_log(folder: Folder, collector: object) -> None:
    assert callable(collector)
    with collector() as endpoint:
        worker = work(folder, endpoint, OTEL_BSP_MAX_QUEUE_SIZE="4", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2")
    report = worker.report
    assert isinstance(report, ShardReport)
    assert report.committed
    assert len(folder.lines("results")) + len(folder.lines("errors")) == 10
    assert "spans did not reach the collector" in worker.log
    assert "Traceback" not in worker.log


def test_nonsense_in_the_environment_keeps_nobody_from_working(folder: Folder) -> None:
    with receiving() as receiver:
        worker = work(
            folder, receiver.url, HEADRACE_TRACE_RECORD_RATIO="many", OTEL_EXPORTER_OTLP_COMPRESSION="nonsense"
        )
    assert "HEADRACE_TRACE_RECORD_RATIO must be a number from 0 to 1" in worker.log
