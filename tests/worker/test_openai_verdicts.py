"""What answers of endpoints mean: who is to blame, and whether a try was spent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_server import chat_body
from headrace.api.model import Task
from headrace.api.records import ErrorCode
from headrace_worker.engines.openai.replies import MOST_WORDS, Cause, Fault, Question, Reply, pause_seconds
from headrace_worker.engines.openai.verdicts import Kind, Unusable, is_model, judge

ASKED = Question("east", Task.CHAT, ("m",), key="sk-secret")


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return Reply(status, {name.replace("_", "-").title(): value for name, value in headers.items()}, data)


def error(status: int, message: str = "it said no", code: Any = None, **headers: str) -> Reply:
    return reply({"error": {"message": message, "type": "some_error", "code": code}}, status, **headers)


def test_judge_answer_is_the_body_with_its_tokens() -> None:
    verdict = judge(reply(chat_body("hello", tokens=(7, 3))), ASKED)
    assert (verdict.kind, verdict.prompt_tokens, verdict.completion_tokens) == (Kind.ANSWERED, 7, 3)
    assert verdict.body == chat_body("hello", tokens=(7, 3))


@pytest.mark.parametrize(
    ("task", "body"),
    [
        pytest.param(Task.COMPLETION, {"choices": [{"text": "so"}], "model": "m"}, id="a completion"),
        pytest.param(Task.EMBEDDING, {"data": [{"embedding": [0.5]}], "model": "m"}, id="an embedding"),
        pytest.param(Task.EMBEDDING, {"data": [{"embedding": "AAAAPw=="}], "model": "m"}, id="an embedding in base64"),
        pytest.param(Task.CHAT, {"choices": [{"message": {"content": None}}]}, id="a chat without a model's name"),
    ],
)
def test_judge_takes_answers_of_every_task_with_or_without_usage(task: Task, body: Any) -> None:
    verdict = judge(reply(body), Question("east", task, ("m",)))
    assert (verdict.kind, verdict.prompt_tokens, verdict.completion_tokens) == (Kind.ANSWERED, 0, 0)


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        pytest.param(error(400), Kind.REFUSED, ErrorCode.INVALID_REQUEST, id="a bad request"),
        pytest.param(error(422), Kind.REFUSED, ErrorCode.INVALID_REQUEST, id="a request that cannot be processed"),
        pytest.param(error(413), Kind.REFUSED, ErrorCode.INVALID_REQUEST, id="a request that is too large"),
        pytest.param(error(400, code="context_length_exceeded"), Kind.REFUSED, ErrorCode.CONTEXT_LENGTH_EXCEEDED, id="too long"),
        pytest.param(error(500), Kind.FAILED, ErrorCode.ENDPOINT_ERROR, id="an internal error"),
        pytest.param(error(503), Kind.FAILED, ErrorCode.ENDPOINT_ERROR, id="an outage"),
        pytest.param(error(529), Kind.FAILED, ErrorCode.ENDPOINT_ERROR, id="an overload"),
        pytest.param(error(408), Kind.FAILED, ErrorCode.ENDPOINT_ERROR, id="a server that waited too long"),
        pytest.param(reply(b"<html>Sign in</html>"), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="an HTML page"),
        pytest.param(reply(b'{"choices": [{"mess'), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="half a JSON"),
        pytest.param(reply(b""), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="nothing"),
        pytest.param(reply([]), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="a list"),
        pytest.param(reply({"choices": []}), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="no choice"),
        pytest.param(reply({"data": [{"embedding": [1.0]}]}), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="an answer of another task"),
        pytest.param(error(200), Kind.FAILED, ErrorCode.ENDPOINT_ERROR, id="a 200 with an error inside"),
        pytest.param(error(200, code=400), Kind.REFUSED, ErrorCode.INVALID_REQUEST, id="a 200 with a 400 inside"),
        pytest.param(Fault(Cause.TIMEOUT, "hangs"), Kind.FAILED, ErrorCode.ENDPOINT_TIMEOUT, id="a hanging server"),
        pytest.param(Fault(Cause.DISCONNECTED, "resets"), Kind.FAILED, ErrorCode.ENDPOINT_DISCONNECTED, id="a reset"),
        pytest.param(Fault(Cause.TOO_LARGE, "is long"), Kind.FAILED, ErrorCode.INVALID_RESPONSE, id="a huge answer"),
    ],
)  # fmt: skip
def test_judge_says_who_is_to_blame(said: Reply | Fault, kind: Kind, code: ErrorCode) -> None:
    verdict = judge(said, ASKED)
    assert (verdict.kind, verdict.error.code) == (kind, code)
    assert verdict.message.startswith("the endpoint east ")


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        pytest.param(error(429, Retry_After="7"), 7.0, id="too many requests"),
        pytest.param(error(429), None, id="too many requests, and no word of when"),
        pytest.param(error(429, retry_after_ms="250", retry_after="1"), 0.25, id="in milliseconds"),
        pytest.param(error(503, Retry_After="3"), 3.0, id="a server that asks to be left alone"),
        pytest.param(error(200, code=429, Retry_After="2"), 2.0, id="a 200 with a 429 inside"),
    ],
)
def test_judge_a_busy_endpoint_costs_no_try(said: Reply, pause: float | None) -> None:
    verdict = judge(said, ASKED)
    assert (verdict.kind, verdict.pause_seconds, verdict.congested) == (Kind.BUSY, pause, True)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param(error(401), Unusable.KEY_REFUSED, id="a wrong key"),
        pytest.param(error(402), Unusable.QUOTA_EXHAUSTED, id="an unpaid bill"),
        pytest.param(error(429, code="insufficient_quota"), Unusable.QUOTA_EXHAUSTED, id="a quota that is used up"),
        pytest.param(error(404, code="model_not_found"), Unusable.NOT_USABLE, id="no such model"),
        pytest.param(error(403), Unusable.NOT_USABLE, id="no permission"),
        pytest.param(reply(b"", 302, Location="https://elsewhere"), Unusable.NOT_USABLE, id="a redirect"),
        pytest.param(reply(chat_body(model="other")), Unusable.WRONG_MODEL, id="another model's name"),
        pytest.param(Fault(Cause.FORBIDDEN, "is there"), Unusable.NOT_USABLE, id="an address that is never asked"),
        pytest.param(Fault(Cause.NOT_TRUSTED, "expired"), Unusable.NOT_TRUSTED, id="a certificate that is not trusted"),
    ],
)
def test_judge_what_somebody_must_mend_is_no_fault_of_a_record(said: Reply | Fault, reason: Unusable) -> None:
    verdict = judge(said, ASKED)
    assert (verdict.kind, verdict.reason) == (Kind.UNUSABLE, reason)


def test_judge_a_request_that_was_never_sent_costs_no_try() -> None:
    assert judge(Fault(Cause.UNREACHED, "refuses"), ASKED).kind == Kind.UNREACHED


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "bad key sk-secret"}},
        {"error": "bad key sk-secret"},
        {"detail": [{"loc": ["header"], "msg": "bad key sk-secret"}]},
        {"message": "bad key sk-secret", "object": "error"},
        b"bad key sk-secret",
    ],
)
def test_judge_repeats_the_words_of_a_server_but_not_the_key(body: Any) -> None:
    verdict = judge(reply(body, 400), ASKED)
    assert "bad key ***" in verdict.message
    assert "sk-secret" not in verdict.message


def test_judge_repeats_no_page_and_no_novel() -> None:
    assert (
        judge(reply(b"<!DOCTYPE html><p>secret", 502), ASKED).message == "the endpoint east answers 502: an HTML page"
    )
    assert len(judge(error(400, "x" * 5000), ASKED).message) < MOST_WORDS + 50


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "Thu, 15 Jan 2026 12:00:10 GMT", "Date": "Thu, 15 Jan 2026 12:00:00 GMT"}, 10.0),
        ({"Retry-After": "Thu, 15 Jan 2026 12:00:10 GMT"}, 8.0),
        ({"Retry-After": "Thu, 15 Jan 2026 11:00:00 GMT"}, 0.0),
    ],
)
def test_pause_seconds_reads_numbers_and_dates(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_seconds(headers, datetime(2026, 1, 15, 12, 0, 2, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("said", "asked", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("smollm2", "org/smollm2", True),
        ("org/smollm2", "smollm2", True),
        ("m:latest", "m", True),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4o1", "gpt-4o", False),
        ("", "m", False),
    ],
)
def test_is_model_knows_versions_and_owners(said: str, asked: str, same: bool) -> None:
    assert is_model(said, asked) is same


FIELDS = ("error", "code", "message", "choices", "model", "usage", "detail", "data", "embedding", "prompt_tokens")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner))


@given(
    status=st.integers(200, 599),
    body=JSON | st.binary(),
    pause=st.text(max_size=8),
    task=st.sampled_from([Task.CHAT, Task.EMBEDDING]),
)
def test_judge_has_a_verdict_on_whatever_a_server_says(status: int, body: Any, pause: str, task: Task) -> None:
    try:
        said = reply(body, status, Retry_After=pause)
    except TypeError:  # a number that JSON cannot hold
        return
    verdict = judge(said, Question("east", task, ("m",)))
    assert (verdict.body is not None) == (verdict.kind == Kind.ANSWERED)
    assert verdict.prompt_tokens >= 0
