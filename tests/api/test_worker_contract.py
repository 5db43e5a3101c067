"""The contract with the workers: a report survives the termination message, which never grows too long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.batchstatus import RecordCounts, RecordProblem, Usage
from headrace.api.common import Batching, Retries
from headrace.api.engines import Engine
from headrace.api.input import Input
from headrace.api.model import Model
from headrace.api.worker import (
    TERMINATION_MESSAGE_BYTES,
    BatchIdentity,
    Failure,
    FinalizeReport,
    PlanReport,
    Report,
    ShardReport,
    WorkerConfig,
    parse_report,
    termination_message,
)

COUNT = st.integers(0, 2**53)
RECORDS = st.builds(RecordCounts, total=COUNT, succeeded=COUNT, failed=COUNT, pending=COUNT)
USAGE = st.builds(Usage, prompt_tokens=COUNT, completion_tokens=COUNT, gpu_seconds=COUNT)
WORD = st.from_regex(r"\A[A-Z][A-Za-z0-9]{0,127}\Z")
LONG = st.integers(0, 6000).flatmap(lambda n: st.sampled_from("aé👋\0\\\"").map(lambda one: one * n))  # fmt: skip
FAILURE = st.none() | st.builds(Failure, reason=WORD, message=st.text() | LONG)
PROBLEM = st.builds(
    RecordProblem,
    line=st.integers(1, 2**53),
    code=st.text(max_size=256),
    param=st.none() | st.text(max_size=256),
    message=st.text(max_size=1024) | LONG.map(lambda text: text[:1024]),
    file=st.none() | st.text(max_size=1024),
)
URI = st.none() | st.text(max_size=64) | LONG.map(lambda text: text[:4096])
PLAN = st.builds(
    PlanReport,
    records=COUNT,
    shards=COUNT,
    input_bytes=COUNT,
    manifest_sha256=st.just("f" * 64),
    error_count=COUNT,
    errors=st.lists(PROBLEM, max_size=20).map(tuple),
    errors_uri=URI,
    failure=FAILURE,
)
SHARD = st.builds(
    ShardReport,
    shard=COUNT,
    attempt=COUNT,
    committed=st.booleans(),
    records=RECORDS,
    usage=USAGE,
    batches=COUNT,
    batched_records=COUNT,
    reprocessed=COUNT,
    records_per_second=st.from_regex(r"\A[0-9]{1,16}(\.[0-9]{1,15})?\Z"),
    failure=FAILURE,
)
FINALIZE = st.builds(
    FinalizeReport, records=RECORDS, usage=USAGE, batches=COUNT, batched_records=COUNT, failure=FAILURE
)
REPORTS: st.SearchStrategy[Report] = PLAN | SHARD | FINALIZE


@settings(max_examples=500, deadline=None)
@given(report=REPORTS)
def test_any_report_fits_into_a_termination_message(report: Report) -> None:
    """And what is left of it is a report of the same numbers."""
    message = termination_message(report)
    assert len(message) <= TERMINATION_MESSAGE_BYTES
    read = parse_report(message)
    assert read is not None
    for name in type(report).model_fields.keys() - {"errors", "errors_uri", "failure"}:
        assert getattr(read, name) == getattr(report, name)
    assert (read.failure is None) == (report.failure is None)


@settings(max_examples=200, deadline=None)
@given(report=REPORTS)
def test_a_report_that_fits_is_not_shortened(report: Report) -> None:
    if len(json.dumps(report.to_object())) <= TERMINATION_MESSAGE_BYTES:  # all ASCII, and so never shorter than UTF-8
        assert parse_report(termination_message(report)) == report


def test_termination_message_drops_the_last_errors_first() -> None:
    problems = tuple(RecordProblem(line=n, code="invalid_json", message="m" * 500) for n in range(1, 21))
    failure = Failure(reason="InputInvalid", message="f" * 300)
    report = PlanReport(error_count=99, errors=problems, errors_uri="s3://out/validation.jsonl", failure=failure)
    read = parse_report(termination_message(report))
    assert isinstance(read, PlanReport)
    assert read.errors == problems[: len(read.errors)]
    assert 5 <= len(read.errors) <= 7
    assert (read.error_count, read.errors_uri, read.failure) == (99, "s3://out/validation.jsonl", failure)


def test_termination_message_cuts_a_long_sentence_at_its_end() -> None:
    report = ShardReport(shard=3, failure=Failure(reason="ShardFailed", message="é" * 5000))
    read = parse_report(termination_message(report))
    assert isinstance(read, ShardReport)
    assert read.failure is not None
    assert read.failure.message.startswith("é" * 1000)
    assert read.failure.message.endswith("é…")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("Killed", id="a word"),
        pytest.param(b"\xff\xfe{}", id="bytes that are no text"),
        pytest.param("\ud800", id="half a character"),
        pytest.param("{", id="the beginning of an object"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="no kind"),
        pytest.param('{"kind": "run"}', id="another kind"),
        pytest.param('{"kind": "shard"}', id="a shard report without its shard"),
        pytest.param('{"kind": "shard", "shard": "1"}', id="a text for a number"),
        pytest.param('{"kind": "shard", "shard": -1}', id="a number out of range"),
        pytest.param('{"kind": "shard", "shard": 1, "surprise": 1}', id="an unknown field"),
        pytest.param('{"kind": "plan", "records": 1e400}', id="a number too large"),
        pytest.param("[" * 4096, id="deeply nested"),
    ],
)
def test_parse_report_of_what_is_no_report_is_none(text: str | bytes) -> None:
    assert parse_report(text) is None


@given(text=st.text() | st.binary())
def test_parse_report_of_rubbish_is_none(text: str | bytes) -> None:
    assert parse_report(text) is None


def test_a_worker_config_is_read_as_it_was_written() -> None:
    config = WorkerConfig(
        batch=BatchIdentity(namespace="default", name="reviews", uid="u"),
        model=Model(name="m"),
        engine=Engine(),
        input=Input(uri="file:///in.jsonl"),
        plan_uri="file:///out/_headrace/plan.jsonl",
        output_uri="file:///out/",
        parameters={"stop": None, "temperature": 0.5},
        batching=Batching(),
        shards=2,
        retries=Retries(),
    )
    assert WorkerConfig.parse(config.to_object()) == config
