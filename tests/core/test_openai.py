"""OpenAI's Files and Batches: requests become InferenceBatches, and those are shown as Batch and File objects."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOON, BatchBuilder, a_batch
from headrace.api import labels
from headrace.api.answers import BatchObject
from headrace.api.batchstatus import OutputStatus, RecordCounts, RecordProblem, Usage, Validation
from headrace.api.gateway import BatchRequest, ServedModels, UploadedFile
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.openai.batches import batch_object, newest_first, stands_alone, state_of
from headrace.core.openai.errors import ApiError, nothing_at, wrong_method
from headrace.core.openai.files import batch_file_object, check_part, check_purpose, files_of, uploaded_object
from headrace.core.openai.ids import BatchFile, Part, batch_file, batch_id, batch_name, is_uploaded, name_for_key
from headrace.core.openai.models import model_faults, model_objects
from headrace.core.openai.pages import Window, page, window
from headrace.core.openai.request import (
    Destination,
    batch_request,
    check_deletable,
    made_by_request,
    new_batch,
    same_request,
    served_model,
)

FILE = "file-0123456789abcdef01234567"
CHAT = "/v1/chat/completions"
BODY = {"input_file_id": FILE, "endpoint": CHAT, "completion_window": "24h"}
MODELS = ServedModels.parse(
    {
        "models": [
            {"model": {"name": "small"}, "engine": {"name": "mock"}, "shards": 2},
            {"model": {"name": "vectors", "task": "embedding"}, "engine": {"name": "mock"}},
        ]
    }
)
WHERE = Destination("default", "b1", "file:///in/content.jsonl")
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True)
TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


def line(**body: Any) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": body}).encode()


def requested(**changes: Any) -> BatchRequest:
    return batch_request({**BODY, **changes}, MODELS)


def made(**changes: Any) -> BatchBuilder:
    batch = new_batch(requested(**changes), MODELS.models[0], WHERE)
    return BatchBuilder("b1", batch.spec.to_object(), {"annotations": batch.metadata.annotations})


def done(batch: BatchBuilder, succeeded: int, failed: int) -> BatchBuilder:
    counts = RecordCounts(total=succeeded + failed, succeeded=succeeded, failed=failed)
    return batch.validated(succeeded + failed).with_status(
        records=counts, output=OutputStatus(uri="file:///out/"), completion_time=NOON + timedelta(minutes=5)
    )


def ended(batch: BatchBuilder, reason: Reason) -> BatchBuilder:
    return batch.with_condition(ConditionType.FAILED, TRUE, reason)


def complete(succeeded: int = 3, failed: int = 1) -> BatchBuilder:
    finished = done(made(), succeeded, failed)
    return finished.with_condition(ConditionType.COMPLETE, TRUE, Reason.RECORDS_PROCESSED)


@pytest.mark.parametrize(
    ("batch", "state"),
    [
        pytest.param(made(), "validating", id="nobody has looked at it"),
        pytest.param(
            made().with_condition(ConditionType.INPUT_VALIDATED, ConditionStatus.UNKNOWN, Reason.PLANNING),
            "validating",
            id="its input is being read",
        ),
        pytest.param(made().validated(4), "in_progress", id="it waits or works"),
        pytest.param(done(made(), 3, 1), "finalizing", id="all records have their lines"),
        pytest.param(
            made().validated(4).with_condition(ConditionType.FAILED, FALSE, Reason.DEADLINE_EXCEEDED),
            "finalizing",
            id="it stops, and its books are being closed",
        ),
        pytest.param(
            made().validated(4).with_condition(ConditionType.FAILED, FALSE, Reason.RETRYING),
            "in_progress",
            id="what has failed is tried once more",
        ),
        pytest.param(complete(), "completed", id="complete, some records with errors"),
        pytest.param(made().with_spec(cancel=True), "cancelling", id="cancelled before it was looked at"),
        pytest.param(made().with_spec(cancel=True).validated(4), "cancelling", id="cancelled at work"),
        pytest.param(ended(made().with_spec(cancel=True), Reason.CANCELLED), "cancelled", id="cancelled"),
        pytest.param(ended(made(), Reason.DEADLINE_EXCEEDED), "expired", id="its window is over"),
        pytest.param(ended(made(), Reason.INPUT_INVALID), "failed", id="bad lines in its input"),
        pytest.param(ended(made(), Reason.WORKER_FAILED), "failed", id="its workers cannot work"),
        pytest.param(complete().with_spec(cancel=True), "completed", id="complete before the cancellation was seen"),
    ],
)
def test_state_of_a_batch(batch: BatchBuilder, state: str) -> None:
    assert state_of(batch.build()) == state
    assert BatchObject.parse(batch_object(batch.build())).status == state


def test_batch_object_of_a_complete_batch() -> None:
    batch = complete().with_status(usage=Usage(prompt_tokens=30, completion_tokens=12)).build()
    shown = batch_object(batch)
    noon = int(NOON.timestamp())
    assert shown == {
        "id": "batch_b1",
        "object": "batch",
        "endpoint": CHAT,
        "model": "small",
        "errors": None,
        "input_file_id": FILE,
        "completion_window": "24h",
        "status": "completed",
        "output_file_id": "file-output-b1",
        "error_file_id": "file-errors-b1",
        "created_at": noon,
        "in_progress_at": noon,
        "expires_at": noon + 86400,
        "finalizing_at": None,
        "completed_at": noon + 300,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 4, "completed": 3, "failed": 1},
        "usage": {
            "input_tokens": 30,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 42,
        },
        "metadata": None,
    }


def test_batch_object_has_no_files_that_would_be_empty() -> None:
    assert batch_object(complete(3, 0).build())["error_file_id"] is None
    assert batch_object(complete(0, 3).build())["output_file_id"] is None


def test_batch_object_has_no_files_while_a_batch_is_at_work() -> None:
    shown = batch_object(done(made(), 3, 1).build())
    assert (shown["output_file_id"], shown["error_file_id"]) == (None, None)


def test_batch_object_of_bad_lines_names_them() -> None:
    problem = RecordProblem(line=7, code="invalid_json", message="column 3: no JSON", param=None)
    batch = ended(made(), Reason.INPUT_INVALID).with_status(validation=Validation(error_count=1, errors=(problem,)))
    errors = batch_object(batch.build())["errors"]
    assert errors["data"] == [{"code": "invalid_json", "line": 7, "message": "column 3: no JSON", "param": None}]


def test_batch_object_of_what_has_failed_otherwise_gives_the_reason() -> None:
    (error,) = batch_object(ended(made(), Reason.WORKER_FAILED).build())["errors"]["data"]
    assert (error["code"], error["line"]) == ("WorkerFailed", None)


@pytest.mark.parametrize(
    ("seconds", "window"), [(None, "none"), (7200, "2h"), (90, "90s")], ids=["no deadline", "hours", "seconds"]
)
def test_batch_object_of_a_batch_from_the_other_door(seconds: int | None, window: str) -> None:
    given = {} if seconds is None else {"completionDeadlineSeconds": seconds}
    shown = batch_object(a_batch("reviews").with_spec(**given).build())
    assert (shown["id"], shown["completion_window"]) == ("batch_reviews", window)
    assert (shown["input_file_id"], shown["metadata"]) == ("file-input-reviews", None)
    assert (shown["expires_at"] is None) == (seconds is None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "null"])
def test_batch_object_with_metadata_that_somebody_has_edited(text: str) -> None:
    assert batch_object(a_batch().with_meta(annotations={labels.OPENAI_METADATA: text}).build())["metadata"] is None


def test_new_batch_is_what_was_served_with_input_and_deadline() -> None:
    batch = new_batch(requested(completion_window="90m", metadata={"für": "alle"}), MODELS.models[0], WHERE)
    assert batch.spec.model == MODELS.models[0].model
    assert (batch.spec.shards, batch.spec.completion_deadline_seconds) == (2, 5400)
    assert batch.spec.input.uri == WHERE.input_uri
    assert made_by_request(batch)
    assert not made_by_request(a_batch().build())
    assert batch_object(batch)["metadata"] == {"für": "alle"}
    assert batch_object(batch)["completion_window"] == "90m"


def test_new_batch_says_only_what_was_said() -> None:
    """Whoever reads it with kubectl sees the model's own settings and no page of defaults."""
    spec = new_batch(requested(), MODELS.models[1], WHERE).spec
    assert spec.model_fields_set == {"model", "engine", "input", "completion_deadline_seconds"}


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        pytest.param({"input_file_id": None}, "input_file_id", "must be a string", id="null for a required field"),
        pytest.param({"endpoint": "/v1/responses"}, "endpoint", "/v1/chat/completions, /v1/embeddings", id="endpoint"),
        pytest.param({"completion_window": "soon"}, "completion_window", "must match", id="window that is none"),
        pytest.param({"completion_window": "366d"}, "completion_window", "at most 365d", id="window too long"),
        pytest.param({"metadata": {"a": 1}}, "metadata.a", "must be a string", id="metadata of numbers"),
        pytest.param({"metadata": {"a": "x" * 513}}, "metadata.a", "512", id="metadata too long"),
        pytest.param({"metadata": {str(n): "" for n in range(17)}}, "metadata", "16", id="too much metadata"),
        pytest.param({"colour": "blue"}, "colour", "unknown field", id="unknown field"),
    ],
)
def test_batch_request_refuses(changes: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(ApiError) as caught:
        requested(**changes)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert says in caught.value.message


def test_batch_request_refuses_what_is_missing() -> None:
    with pytest.raises(ApiError) as caught:
        batch_request({}, MODELS)
    assert "input_file_id: required" in caught.value.message
    assert "endpoint: required" in caught.value.message


@pytest.mark.parametrize(
    ("first", "code"),
    [
        pytest.param(b"", "empty_input", id="no line at all"),
        pytest.param(b"{", "invalid_json", id="no JSON"),
        pytest.param(b"[]", "not_an_object", id="no object"),
        pytest.param(b"\xff", "invalid_utf8", id="no UTF-8"),
        pytest.param(b"x" * (16 * 2**20 + 1), "line_too_long", id="too long"),
        pytest.param(b"{}", "missing_custom_id", id="no custom_id"),
        pytest.param(b'{"custom_id": "a"}', "missing_model", id="no body"),
        pytest.param(b'{"custom_id": "a", "body": {"model": 1}}', "missing_model", id="model is no text"),
        pytest.param(line(model="large"), "model_not_found", id="unknown model"),
        pytest.param(line(model="vectors"), "model_not_found", id="model of another endpoint"),
    ],
)
def test_served_model_refuses_the_first_line(first: bytes, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        served_model(requested(), first, MODELS)
    assert (caught.value.param, caught.value.code) == ("input_file_id", code)


def test_served_model_by_name_and_endpoint() -> None:
    assert served_model(requested(), line(model="small"), MODELS) is MODELS.models[0]
    assert served_model(requested(endpoint="/v1/embeddings"), line(model="vectors"), MODELS) is MODELS.models[1]


def test_same_request_gives_the_batch_that_is_there_or_refuses() -> None:
    known = made(metadata={"a": "1"}).build()
    assert same_request(known, made(metadata={"a": "1"}).build()) is known
    for other in (
        made(metadata={"a": "2"}),
        made(completion_window="1h"),
        a_batch("b1").with_meta(annotations=dict.fromkeys(known.metadata.annotations, "")),
    ):
        with pytest.raises(ApiError) as caught:
            same_request(known, other.build())
        assert caught.value.status == 409


def test_check_deletable_names_the_batch_that_reads_the_file() -> None:
    check_deletable("file-other", [made().build()])
    with pytest.raises(ApiError, match="the input of batch_b1"):
        check_deletable(FILE, [made().build()])


@given(NAMES)
def test_ids_lead_back_to_names(name: str) -> None:
    assert batch_name(batch_id(name)) == name
    for part in Part:
        file = BatchFile(part, name)
        assert batch_file(file.id) == file
        assert not is_uploaded(file.id)


@given(st.text(max_size=30))
def test_ids_of_anything_else_mean_nothing_or_what_they_say(text: str) -> None:
    name = batch_name(text)
    assert name is None or batch_id(name) == text
    file = batch_file(text)
    assert file is None or file.id == text


@pytest.mark.parametrize(
    "wanted", ["batch_", "batch_../../etc", "batch_A", "batch_a.b", "batch_a/b", "b1", f"batch_{'a' * 53}"]
)
def test_batch_name_of_what_is_no_id(wanted: str) -> None:
    assert batch_name(wanted) is None


def test_name_for_key_is_a_name_of_its_own() -> None:
    assert name_for_key("a") == name_for_key("a") != name_for_key("b")
    assert batch_name(batch_id(name_for_key("ключ"))) is not None


@given(st.integers(0, 50), st.integers(1, 20), st.booleans())
def test_pages_by_cursor_visit_each_object_once(count: int, limit: int, ascending: bool) -> None:
    items = [f"id{number}" for number in range(count)]
    seen: list[str] = []
    while True:
        found = page(items, Window(limit, seen[-1] if seen else None, ascending), str)
        seen += found.items
        if not found.has_more:
            break
    assert seen == (items[::-1] if ascending else items)


def test_page_after_what_is_not_there() -> None:
    with pytest.raises(ApiError, match="after must be the id"):
        page(["a"], Window(1, "b"), str)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "1.5", "ten", "", "٣", "9" * 30])
def test_window_refuses_limits(limit: str) -> None:
    with pytest.raises(ApiError) as caught:
        window({"limit": limit}, most=100, default=20)
    assert caught.value.param == "limit"


def test_window_of_a_query() -> None:
    assert window({}, most=100, default=20) == Window(20)
    assert window({"limit": "5", "after": "x", "order": "asc"}, most=100, default=20) == Window(5, "x", ascending=True)
    with pytest.raises(ApiError, match="order must be"):
        window({"order": "up"}, most=100, default=20)


def test_newest_first_is_by_time_then_name() -> None:
    older = a_batch("a").with_meta(creationTimestamp="2026-01-14T12:00:00Z").build()
    assert [it.metadata.name for it in newest_first([older, a_batch("c").build(), a_batch("b").build()])] == [
        "b",
        "c",
        "a",
    ]


def test_stands_alone_unless_something_controls_it() -> None:
    owner = {"apiVersion": "headrace.dev/v1alpha1", "kind": "FanOutJob", "name": "fan", "uid": "1", "controller": True}
    assert stands_alone(a_batch().build())
    assert not stands_alone(a_batch().with_meta(ownerReferences=[owner]).build())


def test_file_objects() -> None:
    uploaded = UploadedFile(id=FILE, bytes=12, created_at=5, filename="in.jsonl", purpose="batch")
    assert uploaded_object(uploaded)["bytes"] == 12
    batch = complete().build()
    shown = batch_file_object(batch, Part.ERRORS, 99)
    assert (shown["id"], shown["bytes"], shown["purpose"]) == ("file-errors-b1", 99, "batch_output")
    assert shown["created_at"] == int(NOON.timestamp()) + 300
    assert batch_file_object(batch, Part.ERRORS, 0, "gone")["status_details"] == "gone"
    assert files_of(batch) == [Part.OUTPUT, Part.ERRORS]
    assert files_of(made().build()) == []


def test_check_part_says_where_an_input_is_that_was_not_uploaded() -> None:
    batch = a_batch("reviews").build()
    with pytest.raises(ApiError, match=r"s3://in/reviews\.jsonl"):
        check_part(batch, BatchFile(Part.INPUT, "reviews"))
    for missing in (None, batch):
        with pytest.raises(ApiError, match="No such File"):
            check_part(missing, BatchFile(Part.OUTPUT, "reviews"))


@pytest.mark.parametrize("purpose", [None, "fine-tune", ""])
def test_check_purpose_refuses(purpose: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        check_purpose(purpose)
    assert caught.value.param == "purpose"


def test_model_faults_name_the_place() -> None:
    pictures = {"model": {"name": "eyes", "task": "image-classification"}, "engine": {"name": "mock"}}
    small = {"model": {"name": "small"}, "engine": {"name": "mock"}}
    faults = model_faults(ServedModels.parse({"models": [small, pictures, small]}))
    assert [fault.field for fault in faults] == ["models[1].model.task", "models[2].model.name"]
    assert model_faults(MODELS) == []


def test_model_objects_have_each_name_once() -> None:
    assert [one["id"] for one in model_objects(MODELS)] == ["small", "vectors"]


@pytest.mark.parametrize(
    ("status", "kind", "again"),
    [(404, "invalid_request_error", False), (409, "invalid_request_error", False), (503, "server_error", True)],
)
def test_api_error_in_openai_form(status: int, kind: str, again: bool) -> None:
    error = ApiError(status, "no", "field", "code")
    assert error.to_object() == {"error": {"message": "no", "type": kind, "param": "field", "code": "code"}}
    assert error.retry_helps is again


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/v1/threads", "POST /v1/threads", id="of an interface that is not here"),
        pytest.param("/v1/chat/completions", "send its body to /v1/requests", id="of an answer at once"),
        pytest.param("/batches", "the base URL ends with /v1", id="of a base URL without its end"),
    ],
)
def test_nothing_at_an_address_says_where_it_may_be(path: str, said: str) -> None:
    refused = nothing_at("POST", path)
    assert (refused.status, refused.code) == (404, "unknown_url")
    assert said in refused.message


def test_wrong_method_says_which_are_right() -> None:
    assert wrong_method("PUT", "/v1/files", "POST, HEAD,GET").message == "/v1/files answers GET, HEAD, POST, not PUT"
