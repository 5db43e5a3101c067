"""The words of the command line, without the command line."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from builders import NOON, a_batch
from headrace.api.batchstatus import OutputStatus, RecordCounts, Summary, Usage
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.cli.exits import wants_json
from headrace.cli.outcome import exit_code, outcome_text
from headrace.cli.reading import by_lines
from headrace.cli.results import summary_of
from headrace.cli.target import Manner
from headrace.cli.text import duration, number, plain, plural, table
from headrace.cli.watch import Bar, Lines
from headrace.core.plan import Event

HERE = Manner({}, "default", stopping="", start_over="the same command with --replace", immutable="")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (45, "45s"), (200, "3m20s"), (7500, "2h5m"), (10_805, "3h"), (273_600, "3d4h"), (-5, "0s")],
)
def test_duration(seconds: int, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.2"), (5, "5"), (9.94, "9.9"), (12.3, "12"), (12345.6, "12,346")]
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_plural() -> None:
    assert [plural(count, "record") for count in (0, 1, 2000)] == ["0 records", "1 record", "2,000 records"]


def test_table_aligns_columns() -> None:
    assert table([("NAME", "STATE"), ("a", ""), ("long-name", "x")]) == "NAME        STATE\na\nlong-name   x"


def test_plain_lets_nothing_through_that_steers_a_terminal() -> None:
    assert plain("a\x1b[31mb\nc", 20) == "a [31mb c"
    assert plain("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["get", "-o", "json"], True),
        (["get", "-ojson"], True),
        (["get", "--output=json"], True),
        (["get", "--output", "json", "x"], True),
        (["get", "-o", "yaml"], False),
        (["get", "json"], False),
        (["get", "-o", "jsonl"], False),
        ([], False),
    ],
)
def test_wants_json(arguments: list[str], expected: bool) -> None:
    assert wants_json(arguments) is expected


def a_finished_batch(kind: ConditionType, reason: Reason, **status: Any) -> InferenceBatch:
    """A batch that took ten seconds."""
    known = a_batch().validated().with_condition(kind, ConditionStatus.TRUE, reason)
    ended = {"start_time": NOON, "completion_time": NOON + timedelta(seconds=10)}
    output = OutputStatus(uri="file:///my%20out/reviews/")
    return known.with_status(**ended, output=output, **status).build()


def test_outcome_text_of_a_complete_batch() -> None:
    batch = a_finished_batch(
        ConditionType.COMPLETE,
        Reason.RECORDS_PROCESSED_WITH_ERRORS,
        records=RecordCounts(total=2000, succeeded=1990, failed=10),
        usage=Usage(prompt_tokens=9000, completion_tokens=1000),
        batch_fill_percent=97,
    )
    assert exit_code(batch) == 0
    assert outcome_text(batch, HERE) == "\n".join(
        [
            "reviews is complete: 1,990 of 2,000 records succeeded, 10 failed",
            "  took 10s · 200 records/s · 1,000 tokens/s · batches 97% full · 9,000 prompt + 1,000 completion tokens",
            "  output: /my out/reviews/",
            "  results: headrace results reviews",
            "  failed records: headrace results reviews --errors",
        ]
    )


@pytest.mark.parametrize(
    ("kind", "status", "reason", "line"),
    [
        pytest.param(ConditionType.EVALUATED, True, Reason.ANSWERS_EVALUATED, "evaluated: so it is", id="scores"),
        pytest.param(
            ConditionType.EVALUATED, False, Reason.EVALUATION_FAILED, "not evaluated: so it is", id="no scores"
        ),
        pytest.param(ConditionType.DATA_DRIFT, True, Reason.DISTRIBUTION_CHANGED, "data drift: so it is", id="drift"),
        pytest.param(
            ConditionType.DATA_DRIFT, False, Reason.DISTRIBUTION_UNCHANGED, "no data drift: so it is", id="none"
        ),
        pytest.param(ConditionType.DATA_DRIFT, None, Reason.NOT_COMPARED, "not compared: so it is", id="nobody knows"),
    ],
)
def test_outcome_text_says_what_an_evaluation_has_found(
    kind: ConditionType, status: bool | None, reason: Reason, line: str
) -> None:
    word = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[status]
    done = a_batch().with_condition(ConditionType.COMPLETE, ConditionStatus.TRUE, Reason.RECORDS_PROCESSED)
    batch = done.with_condition(kind, word, reason).build()
    told = [one.model_copy(update={"message": "so it is"}) for one in batch.status.conditions]
    status_ = batch.status.model_copy(update={"conditions": tuple(told)})
    assert f"  {line}" in outcome_text(batch.model_copy(update={"status": status_}), HERE).splitlines()


def test_outcome_text_of_a_batch_that_waits_for_mending() -> None:
    records = RecordCounts(total=10, succeeded=5, pending=5)
    batch = a_finished_batch(ConditionType.FAILED, Reason.WORKER_FAILED, records=records)
    text = outcome_text(batch, HERE, log="/state/pods/x/log")
    assert exit_code(batch) == 1
    assert text.startswith("reviews failed: WorkerFailed: ")
    assert "  log of the worker: /state/pods/x/log" in text
    assert text.endswith("  when that is mended: headrace retry reviews")


def test_outcome_text_of_a_cancelled_batch_in_another_namespace() -> None:
    records = RecordCounts(total=10, succeeded=5, failed=5)
    batch = a_finished_batch(ConditionType.FAILED, Reason.CANCELLED, records=records)
    moved = batch.model_copy(update={"metadata": batch.metadata.model_copy(update={"namespace": "team"})})
    text = outcome_text(moved, HERE)
    assert "  results: headrace results reviews -n team" in text
    assert text.endswith("  to start over: the same command with --replace")


def test_exit_code_of_refused_input() -> None:
    assert exit_code(a_finished_batch(ConditionType.FAILED, Reason.INPUT_INVALID)) == 2


def test_bar_shows_what_fits_into_the_terminal() -> None:
    screen = io.StringIO()
    records = RecordCounts(total=2000, succeeded=990, failed=10, pending=1000)
    status = {
        "records": records,
        "summary": Summary(state="Running"),
        "records_per_second": "250.0",
        "batch_fill_percent": 97,
    }
    batch = a_batch().with_status(**status).build()
    with Bar("reviews", Console(file=screen, force_terminal=True, width=80, color_system=None)) as bar:
        bar.progress(batch)
        bar.event(batch, Event("Admitted", "[bold]go"))
    shown = screen.getvalue()
    assert "reviews: Admitted: [bold]go" in shown
    assert "1,000/2,000 · 10 failed · 250 rec/s" in shown


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({"choices": [{"message": {"content": "hello"}}]}, "hello", id="a chat"),
        pytest.param({"choices": [{"text": "hello"}]}, "hello", id="a completion"),
        pytest.param(
            {"choices": [{"message": {"content": None}}]}, '{"choices":[{"message":{"content":null}}]}', id="no text"
        ),
        pytest.param({"data": [{"embedding": [0.1, 0.2]}]}, "1 embedding of 2 numbers", id="an embedding"),
        pytest.param({"data": [{"embedding": "AAA="}]}, '{"data":[{"embedding":"AAA="}]}', id="an embedding in base64"),
        pytest.param({"label": "cat"}, '{"label":"cat"}', id="anything else"),
    ],
)
def test_summary_of_a_result(body: dict[str, Any], text: str) -> None:
    assert summary_of({"error": None, "response": {"body": body}}) == text


def test_summary_of_an_error() -> None:
    assert summary_of({"error": {"code": "mock_error", "message": "no"}, "response": None}) == "mock_error: no"


@pytest.mark.parametrize("size", [1, 3, 1000], ids=["byte by byte", "in small pieces", "at once"])
def test_by_lines_gives_whole_lines_whatever_the_pieces(size: int) -> None:
    data, lines = b"one\n\ntwo \xff\nthe rest of a line that was lost", list[bytes]()
    feed = by_lines(lines.append)
    for start in range(0, len(data), size):
        feed(data[start : start + size])
    assert lines == [b"one\n", b"\n", b"two \xff\n"]


def test_lines_speak_every_few_seconds_and_of_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    lines = Lines(lambda: clock[0])
    batch = a_batch().validated(100).build()
    for second in range(12):
        clock[0] = second
        records = RecordCounts(total=100, succeeded=second, pending=100 - second)
        usage = Usage(completion_tokens=10 * second)
        known = {"records": records, "usage": usage, "summary": Summary(state="Running")}
        status = batch.status.model_copy(update=known)
        lines.progress(batch.model_copy(update={"status": status}))
    lines.event(batch, Event("Admitted", "go"))
    written = capsys.readouterr()
    assert written.out == "", "progress is no answer"
    assert written.err.splitlines() == [
        "reviews: Running, 5/100 records, 10 tokens/s",
        "reviews: Running, 10/100 records, 10 tokens/s",
        "reviews: Admitted: go",
    ]
