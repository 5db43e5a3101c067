"""The role `plan`: what it says about bad input, and what it leaves behind."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.api.records import ErrorCode, RecordError, Request
from headrace.api.worker import PlanReport, WorkerConfig, termination_message
from headrace_worker.errors import JobFailed
from headrace_worker.manifest import iter_shards, read_header, read_shard_entry
from headrace_worker.planning import survey
from headrace_worker.planning.customids import SeenIds
from headrace_worker.planning.plan import plan
from headrace_worker.stores.local import LocalStore
from worker_builders import NOW, a_chat, a_config, no_progress, write_files

STORE = LocalStore()
BIG = 20 * 1024 * 1024


def planned(config: WorkerConfig) -> PlanReport:
    return plan(config, None, NOW, no_progress)


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], **fields}


@pytest.mark.parametrize(
    ("line", "code", "param", "message"),
    [
        pytest.param(b'{"custom_id": "x"\n', "invalid_json", None, "column 18: unexpected end", id="half an object"),
        pytest.param(b"hello\n", "invalid_json", None, "column 1", id="no JSON at all"),
        pytest.param(
            b'{"custom_id": "\xff"}\n', "invalid_utf8", None, "byte 15 of the line is not UTF-8", id="Latin-1"
        ),
        pytest.param(b"[1]\n", "not_an_object", None, "must be a JSON object", id="a list"),
        pytest.param(a_chat(None), "missing_custom_id", "custom_id", "custom_id must be set", id="no custom_id"),
        pytest.param(a_chat(""), "invalid_custom_id", "custom_id", "1 to 512 characters", id="an empty custom_id"),
        pytest.param(a_chat("x" * 513), "invalid_custom_id", "custom_id", "1 to 512", id="too long a custom_id"),
        pytest.param(
            a_chat("good-2"),
            "duplicate_custom_id",
            "custom_id",
            "custom_id good-2 is used by line 3 already",
            id="a custom_id that is used twice",
        ),
        pytest.param(a_chat("x", extra=1), "unknown_field", "extra", "extra is not a field", id="an unknown field"),
        pytest.param(a_chat("x", method="GET"), "invalid_method", "method", "must be POST", id="another method"),
        pytest.param(
            a_chat("x", url="/v1/embeddings"),
            "wrong_endpoint",
            "url",
            "url must be /v1/chat/completions for the task chat, not /v1/embeddings",
            id="another endpoint",
        ),
        pytest.param(
            a_chat("x", body=body(model="gpt-4o")),
            "wrong_model",
            "body.model",
            "this batch runs the model tiny, not gpt-4o",
            id="another model",
        ),
        pytest.param(
            a_chat("x", body=[]), "invalid_body", "body", "body must be an object", id="a body of another kind"
        ),
        pytest.param(
            a_chat("x", body={"messages": []}), "invalid_body", "body.messages", "at least one", id="no message"
        ),
        pytest.param(
            a_chat("x", body={"messages": [{"role": "user"}, {"content": "Hi"}]}),
            "invalid_body",
            "body.messages[1]",
            "an object with a role",
            id="a message without a role",
        ),
        pytest.param(
            a_chat("x", "x" * BIG),
            "line_too_long",
            None,
            "a line of 20.0 MiB; a record must have at most 16 MiB",
            id="a line of 20 MiB",
        ),
    ],
)
def test_plan_says_what_is_wrong_with_a_line(
    tmp_path: Path, line: bytes, code: str, param: str | None, message: str
) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("good-1"), b"\n", a_chat("good-2"), line, a_chat("good-3")]})
    report = planned(a_config(tmp_path))
    (problem,) = report.errors
    assert (problem.line, problem.code, problem.param, problem.file) == (4, code, param, None)
    assert message in problem.message
    assert (report.error_count, report.records) == (1, 4)
    assert not (tmp_path / "out/_headrace/plan.jsonl").exists()
    assert not (tmp_path / "out/_headrace/owner.json").exists()


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        pytest.param({}, "in.jsonl", "there is nothing at", id="no such file"),
        pytest.param({"in.jsonl": b""}, "in.jsonl", "in.jsonl has no records", id="an empty file"),
        pytest.param({"in.jsonl": b"\n\r\n  \n"}, "in.jsonl", "has no records", id="blank lines only"),
        pytest.param({"in.jsonl": b"\xef\xbb\xbf"}, "in.jsonl", "has no records", id="a byte order mark only"),
        pytest.param({"in/.hidden": a_chat()}, "in", "there is nothing at", id="a folder of hidden files"),
        pytest.param({"in/a.txt": a_chat()}, "in/*.jsonl", "input.uri must name a file", id="a glob without a match"),
    ],
)
def test_plan_of_an_input_without_records(tmp_path: Path, files: dict[str, bytes], source: str, message: str) -> None:
    write_files(tmp_path, files)
    (problem,) = planned(a_config(tmp_path, source=source)).errors
    assert (problem.line, problem.code, problem.param) == (1, "empty_input", "input")
    assert message in problem.message


def test_plan_of_a_package_that_is_not_installed(tmp_path: Path) -> None:
    (problem,) = planned(a_config(tmp_path, input={"uri": "package://no_such_module:topics"})).errors
    assert problem.code == "empty_input"
    assert "no_such_module cannot be imported" in problem.message


def test_plan_accepts_a_byte_order_mark_blank_lines_and_no_last_newline(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + a_chat("1") + b"\n \r\n" + a_chat("2").replace(b"\n", b"\r\n") + a_chat("3").rstrip()
    write_files(tmp_path, {"in.jsonl": data})
    config = a_config(tmp_path)
    assert planned(config).records == 3
    (shard,) = iter_shards(STORE, config.plan_uri)
    (segment,) = shard.segments
    assert (segment.start, segment.end, segment.line) == (3, len(data), 1)


@pytest.mark.parametrize(
    ("spec", "line", "code", "message"),
    [
        pytest.param(
            {"format": "jsonl", "prompt": {"template": "{{ title }}"}},
            b'{"custom_id": "1", "text": "Hi"}\n',
            "template_error",
            "'title' is undefined",
            id="a field of the template is missing",
        ),
        pytest.param({"format": "text"}, b"caf\xe9", "invalid_utf8", "byte 3 is not UTF-8", id="a text in Latin-1"),
    ],
)
def test_plan_of_records_that_are_no_requests(
    tmp_path: Path, spec: dict[str, Any], line: bytes, code: str, message: str
) -> None:
    write_files(tmp_path, {"in.jsonl": line})
    (problem,) = planned(a_config(tmp_path, input=spec)).errors
    assert problem.code == code
    assert message in problem.message


def test_plan_of_several_files_names_the_file(tmp_path: Path) -> None:
    write_files(
        tmp_path / "in",
        {
            "a.jsonl": [a_chat("1"), a_chat("2")],
            "b c/d.jsonl": [a_chat("3"), b"broken\n", a_chat("2")],
            "e.jsonl": [a_chat("2")],
        },
    )
    report = planned(a_config(tmp_path, source="in"))
    shown = [(problem.file, problem.line, problem.code) for problem in report.errors]
    assert shown == [
        ("b c/d.jsonl", 2, "invalid_json"),
        ("b c/d.jsonl", 3, "duplicate_custom_id"),
        ("e.jsonl", 1, "duplicate_custom_id"),
    ]
    assert "used by line 2 of a.jsonl already" in report.errors[1].message


def test_plan_reports_the_first_errors_and_writes_down_all(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("ok"), *[b"broken\n"] * 40, *[a_chat("twice")] * 3]})
    report = planned(a_config(tmp_path))
    assert (report.error_count, report.shards, report.manifest_sha256) == (42, 0, "")
    assert [problem.line for problem in report.errors] == list(range(2, 22))
    assert report.errors_uri == f"{tmp_path.as_uri()}/out/_headrace/validation.jsonl"
    rows = [orjson.loads(row) for row in STORE.read(report.errors_uri).splitlines()]
    assert [row["line"] for row in rows] == [*range(2, 42), 43, 44]
    assert rows[-1]["message"].startswith("custom_id twice is used by line 42 already")


def test_plan_cuts_texts_of_the_input_to_what_a_report_may_hold(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {"é" * 10_000: 1}
    lines = [a_chat(str(number), **unknown) for number in range(20)]
    write_files(tmp_path, {"in.jsonl": [*lines, a_chat("x", body=body(model="m" * 10_000))]})
    report = planned(a_config(tmp_path))
    assert len(report.errors[0].message) == 1024
    assert len(termination_message(report)) <= 4096


def test_plan_believes_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("a"), a_chat("b"), a_chat("a")]})
    every = frozenset(map(hash, "ab"))
    monkeypatch.setattr(SeenIds, "repeated", lambda _: every)
    report = planned(a_config(tmp_path))
    assert [(problem.line, problem.code) for problem in report.errors] == [(3, "duplicate_custom_id")]


def test_seen_ids_finds_hashes_that_come_twice() -> None:
    seen = SeenIds()
    record = seen.recorder()
    for number in range(5000):
        record(f"id-{number}")
    assert seen.repeated() == frozenset()
    twice = record("id-17"), record("id-4999"), record("id-17")
    assert seen.repeated() == frozenset(twice)


@dataclass
class Tokenizer:
    """Counts words, and remembers what it was asked."""

    most: int
    asked: list[Request] = field(default_factory=list)

    def check(self, request: Request) -> int:
        self.asked.append(request)
        tokens = len(str(request.body["messages"][-1]["content"]).split())
        if tokens > self.most:
            message = f"the prompt has {tokens} tokens; it must have at most {self.most}"
            raise RecordError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, message, "body.messages")
        return tokens


def ids(requests: Iterable[Request]) -> list[str]:
    return [request.custom_id for request in requests]


def test_plan_has_only_long_prompts_checked(tmp_path: Path) -> None:
    records = [a_chat("short"), a_chat("many bytes", "x" * 2000), a_chat("many words", "x " * 1500)]
    write_files(tmp_path, {"in.jsonl": records})
    tokenizer = Tokenizer(most=1000)
    report = plan(a_config(tmp_path), tokenizer.check, NOW, no_progress, context_tokens=1000)
    assert ids(tokenizer.asked) == ["many bytes", "many words"]
    (problem,) = report.errors
    assert (problem.line, problem.code, problem.param) == (3, "context_length_exceeded", "body.messages")
    assert problem.message == "the prompt has 1500 tokens; it must have at most 1000"


@pytest.mark.parametrize(
    ("fields", "parameters", "checked"),
    [
        pytest.param({}, {}, False, id="nothing is asked for"),
        pytest.param({"max_tokens": 800}, {}, True, id="the record asks for much"),
        pytest.param({"max_completion_tokens": 800}, {}, True, id="the record asks for much in the newer words"),
        pytest.param({}, {"max_tokens": 800}, True, id="the batch asks for much"),
        pytest.param({"max_tokens": 8}, {"max_tokens": 800}, False, id="the record's own word wins"),
        pytest.param({"max_tokens": "many"}, {}, True, id="what is asked for is no number"),
    ],
)
def test_plan_counts_the_completion_into_the_context(
    tmp_path: Path, fields: dict[str, Any], parameters: dict[str, Any], *, checked: bool
) -> None:
    write_files(tmp_path, {"in.jsonl": a_chat("1", body=body(**fields))})
    tokenizer = Tokenizer(most=1000)
    plan(a_config(tmp_path, parameters=parameters), tokenizer.check, NOW, no_progress, context_tokens=1000)
    assert [request.body for request in tokenizer.asked] == [{**body(), **parameters, **fields}] * checked


def test_plan_measures_what_the_template_makes_of_a_record(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": b'{"custom_id": "1"}\n'})
    tokenizer = Tokenizer(most=1000)
    spec = {"format": "jsonl", "prompt": {"template": "{% for i in range(2000) %}word {% endfor %}"}}
    report = plan(a_config(tmp_path, input=spec), tokenizer.check, NOW, no_progress, context_tokens=1000)
    assert report.errors[0].message == "the prompt has 2000 tokens; it must have at most 1000"


def test_plan_estimates_tokens_and_counts_where_it_checks(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("1", "x" * 40), a_chat("2", "word " * 500)]})
    tokenizer = Tokenizer(most=1000)
    report = plan(a_config(tmp_path), tokenizer.check, NOW, no_progress, context_tokens=1000)
    assert report.estimated_prompt_tokens == 10 + 500


def test_plan_stops_at_the_limit(tmp_path: Path) -> None:
    lines = [a_chat(str(number)) for number in range(10)]
    write_files(tmp_path / "in", {"a.jsonl": lines[:4], "b.jsonl": lines[4:], "c.jsonl": b"broken\n"})
    config = a_config(tmp_path, source="in", input={"limit": 6}, shards=3)
    report = planned(config)
    assert (report.records, report.shards, report.error_count) == (6, 3, 0)
    assert report.input_bytes == sum(map(len, lines[:6]))
    assert [shard.records for shard in iter_shards(STORE, config.plan_uri)] == [2, 2, 2]


def test_plan_writes_the_manifest_it_reports(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat(str(number)) for number in range(10)]})
    config = a_config(tmp_path, shards=4)
    report = planned(config)
    header = read_header(STORE, config.plan_uri)
    assert (header.batch, header.created) == (config.batch, NOW)
    assert (report.records, report.shards, report.input_bytes) == (header.records, header.shards, header.input_bytes)
    assert report.manifest_sha256 == hashlib.sha256(STORE.read(config.plan_uri)).hexdigest()
    shards = list(iter_shards(STORE, config.plan_uri))
    assert [read_shard_entry(STORE, config.plan_uri, shard.index) for shard in shards] == shards
    assert orjson.loads((tmp_path / "out/_headrace/owner.json").read_bytes())["uid"] == "uid-1"
    assert not (tmp_path / "out/_headrace/validation.jsonl").exists()


def test_plan_twice_gives_what_it_gave_and_reads_nothing(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("1", "x" * 40)]})
    config = a_config(tmp_path)
    first, manifest = planned(config), STORE.read(config.plan_uri)
    (tmp_path / "in.jsonl").unlink()
    assert plan(config, None, NOW + 1, no_progress) == first
    assert STORE.read(config.plan_uri) == manifest


def test_plan_that_another_pod_has_just_finished_keeps_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("1")]})
    config = a_config(tmp_path)
    others = []

    def race(report: PlanReport) -> None:
        monkeypatch.setattr(survey, "PROGRESS_RECORDS", 65536)
        others.append(plan(config, None, NOW - 1, no_progress))

    monkeypatch.setattr(survey, "PROGRESS_RECORDS", 1)
    assert [plan(config, None, NOW, race)] == others
    assert read_header(STORE, config.plan_uri).created == NOW - 1


def test_plan_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("1"), b"broken\n", a_chat("2"), a_chat("3"), a_chat("4")]})
    told: list[PlanReport] = []
    monkeypatch.setattr(survey, "PROGRESS_RECORDS", 2)
    plan(a_config(tmp_path), None, NOW, told.append)
    assert [(report.records, report.error_count) for report in told] == [(2, 1), (4, 1)]


def test_plan_leaves_the_output_of_another_batch_alone(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": a_chat("1"), "bad.jsonl": b"broken"})
    config = a_config(tmp_path)
    planned(config)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for source in ("in.jsonl", "bad.jsonl"):
        with pytest.raises(JobFailed, match=r"uid-1.*output\.uri .* must be a folder of its own") as raised:
            planned(a_config(tmp_path, source=source, uid="uid-2"))
        assert raised.value.failure.reason == "OutputInUse"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_plan_refuses_a_folder_whose_owner_is_unknown(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": a_chat("1"), "out/_headrace/owner.json": b"{}"})
    with pytest.raises(JobFailed, match=r"owner\.json does not name a batch"):
        planned(a_config(tmp_path))


def test_plan_of_a_mended_input_may_use_the_folder_of_the_refused_one(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": b"broken"})
    assert planned(a_config(tmp_path)).error_count == 1
    write_files(tmp_path, {"in.jsonl": a_chat("1")})
    report = planned(a_config(tmp_path, uid="uid-2"))
    assert (report.error_count, report.records) == (0, 1)
    assert not (tmp_path / "out/_headrace/validation.jsonl").exists()


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        pytest.param({"outputUri": "file:///dev/null/out"}, "OutputNotWritable", "cannot be written", id="no place"),
        pytest.param(
            {"input": {"uri": "claim://in/x"}}, "UnsupportedScheme", "claim://in/x", id="a store that we have not"
        ),
        pytest.param({"input": {"uri": "file://in/x"}}, "InputUnreadable", "an absolute path", id="a relative path"),
        pytest.param({"input": {"uri": "package://json:dumps"}}, "InputUnreadable", "mapping", id="no data"),
        pytest.param(
            {"input": {"format": "jsonl", "prompt": {"template": "{{"}}},
            "InvalidSpec",
            "spec.input.prompt.template: line 1",
            id="a template that is none",
        ),
    ],
)
def test_plan_that_cannot_be_made(tmp_path: Path, fields: dict[str, Any], reason: str, message: str) -> None:
    write_files(tmp_path, {"in.jsonl": a_chat("1")})
    with pytest.raises(JobFailed) as raised:
        planned(a_config(tmp_path, **fields))
    assert raised.value.failure.reason == reason
    assert message in raised.value.failure.message


def test_read_header_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="there is no shard manifest at") as raised:
        read_header(STORE, f"{tmp_path.as_uri()}/plan.jsonl")
    assert raised.value.failure.reason == "PlanMissing"


def test_read_shard_entry_of_a_damaged_plan(tmp_path: Path) -> None:
    write_files(tmp_path, {"in.jsonl": a_chat("1")})
    config = a_config(tmp_path)
    planned(config)
    with pytest.raises(JobFailed, match="has no shard 1"):
        read_shard_entry(STORE, config.plan_uri, 1)
    with (tmp_path / "out/_headrace/plan.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(JobFailed, match="is damaged in line 3"):
        read_shard_entry(STORE, config.plan_uri, 1)


@pytest.mark.parametrize(
    ("when", "code", "said"),
    [
        pytest.param(
            "record.body.language == 'de'",
            "routing_error",
            "has(record.NAME)",
            id="a field that a record does not have",
        ),
        pytest.param(
            "record.custom_id == 'r9'", "no_record_taken", "true for none of the 2 records", id="true for no record"
        ),
    ],
)
def test_plan_refuses_an_input_that_its_when_does_not_fit(tmp_path: Path, when: str, code: str, said: str) -> None:
    write_files(tmp_path, {"in.jsonl": [a_chat("r1"), a_chat("r2")]})
    report = plan(a_config(tmp_path, input={"when": when}), None, NOW, no_progress)
    assert {(error.code, said in error.message) for error in report.errors} == {(code, True)}


def test_plan_finds_an_id_that_is_used_twice_among_records_that_are_passed_over(tmp_path: Path) -> None:
    """Else two branches could answer one id each with a record of its own."""
    write_files(tmp_path, {"in.jsonl": [a_chat("r1", "yes"), a_chat("r1", "no"), a_chat("r2", "yes")]})
    when = "record.body.messages[0].content == 'yes'"
    report = plan(a_config(tmp_path, input={"when": when}), None, NOW, no_progress)
    assert [(error.line, error.code) for error in report.errors] == [(2, "duplicate_custom_id")]


# what was modified in a window

HALF_PAST = {"startTime": "2026-01-15T12:00:00Z", "endTime": "2026-01-15T12:30:00Z"}
IN_WINDOW = {"format": "text", "objects": "ModifiedInWindow", "window": HALF_PAST}


def touched(path: Path, time: str) -> None:
    """The file as if it had been written then."""
    moment = datetime.fromisoformat(f"2026-01-15T{time}+00:00").timestamp()
    os.utime(path, (moment, moment))


def test_plan_takes_what_was_modified_in_the_window(tmp_path: Path) -> None:
    times = {"before": "11:59:59", "first": "12:00:00", "last": "12:29:59", "after": "12:30:00"}
    write_files(tmp_path, {f"docs/{name}.txt": b"Text." for name in times})
    for name, time in times.items():
        touched(tmp_path / f"docs/{name}.txt", time)
    config = a_config(tmp_path, source="docs/*.txt", input=IN_WINDOW)
    assert planned(config).records == 2
    segments = [segment.custom_id for shard in iter_shards(STORE, config.plan_uri) for segment in shard.segments]
    assert segments == ["first.txt", "last.txt"]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({}, id="there is nothing at all"),
        pytest.param({"docs/old.txt": b"Text."}, id="all is older"),
    ],
)
def test_plan_of_an_empty_window_finds_nothing_wrong_and_leaves_nothing(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    write_files(tmp_path, files)
    for name in files:
        touched(tmp_path / name, "11:00:00")
    report = planned(a_config(tmp_path, source="docs/*.txt", input=IN_WINDOW))
    assert (report.records, report.error_count, report.shards) == (0, 0, 0)
    assert not (tmp_path / "out").exists()
