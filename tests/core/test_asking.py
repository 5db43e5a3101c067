"""Requests that are answered later: windows, the life of a request, keys, and when a refused caller should come again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import a_batch
from headrace.api import labels
from headrace.api.asking import (
    KnownKey,
    QueuedRequest,
    RequestError,
    RequestRecord,
    RequestRoute,
    RequestState,
    RequestWindow,
)
from headrace.api.gateway import ServedModels
from headrace.api.manifest import MAX_INLINE_BYTES, lay_out_inline
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.asking.batches import made_of_requests, outcome_of, outcome_without_line, window_batch
from headrace.core.asking.keys import digest, key_name, same_request
from headrace.core.asking.life import NEXT, Outcome, begun, belongs, cancelled, ended, has_ended
from headrace.core.asking.pressure import MOST_SECONDS, UNKNOWN_SECONDS, Left, retry_after
from headrace.core.asking.requests import (
    queued_object,
    queued_request,
    record_object,
    request_id,
    route_faults,
    route_name,
    route_of,
)
from headrace.core.asking.traces import request_span
from headrace.core.asking.windows import Gathered, closes_at, closing, fitting
from headrace.core.openai.errors import ApiError
from headrace.core.tracing.settings import Tracing
from headrace.core.workerconfig import identity

DIGITS = "0123456789abcdef01234567"
ID = f"req_chat_{DIGITS}"
BODY: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
MODELS = ServedModels.parse(
    {
        "models": [
            {"model": {"name": "small"}, "engine": {"name": "mock"}, "shards": 2, "parallelism": 2},
            {"model": {"name": "small", "task": "completion"}, "engine": {"name": "mock"}},
            {"model": {"name": "vectors", "task": "embedding"}, "engine": {"name": "mock"}},
        ],
        "routes": [
            {"name": "chat", "model": "small", "deadlineSeconds": 60},
            {"name": "text", "model": "small", "task": "completion"},
            {"name": "vectors", "model": "vectors", "task": "embedding"},
        ],
    }
)
CHAT = MODELS.routes[0]
WINDOW = RequestWindow(max_batch_size=3, max_batch_tokens=100, max_wait_milliseconds=50)
STATES = list(RequestState)
KEPT, LEFT = (f"00-{digit * 32}-00f067aa0ba902b7-{flags}" for digit, flags in (("1", "01"), ("2", "00")))
"""Contexts of traces that are kept whole, and that are not."""
GATHERED = st.lists(
    st.builds(Gathered, st.integers(0, 1000), st.integers(0, 150), st.integers(1, MAX_INLINE_BYTES)), max_size=8
)


def gathered(*tokens: int, size: int = 10, since: int = 1000) -> list[Gathered]:
    return [Gathered(since, count, size) for count in tokens]


def queued(number: int = 0, accepted: int = 1000) -> QueuedRequest:
    return QueuedRequest(id=f"req_chat_{number:024x}", accepted=accepted, tokens=1, body=BODY)


def record(state: RequestState = RequestState.IN_PROGRESS, batch: str | None = "b1") -> RequestRecord:
    return RequestRecord(id=ID, accepted=1000, state=state, batch=batch)


@pytest.mark.parametrize(
    ("waiting", "now", "count"),
    [
        pytest.param([], 9999, 0, id="nobody waits"),
        pytest.param(gathered(1), 1049, 0, id="the first has not waited long enough"),
        pytest.param(gathered(1), 1050, 1, id="the first has waited long enough"),
        pytest.param(gathered(1, 1, 1), 1000, 3, id="as many as a batch takes"),
        pytest.param(gathered(1, 1, 1, 1), 1000, 3, id="one more waits for the next"),
        pytest.param(gathered(60, 40), 1000, 2, id="exactly as many tokens as a batch takes"),
        pytest.param(gathered(60, 41), 1000, 1, id="the second would be too many tokens"),
        pytest.param(gathered(500, 1), 1000, 1, id="one too long is alone"),
        pytest.param(gathered(1, 1, size=MAX_INLINE_BYTES), 1000, 1, id="two too large for one object"),
    ],
)
def test_closing(waiting: list[Gathered], now: int, count: int) -> None:
    assert closing(waiting, WINDOW, now) == count


@given(GATHERED, st.integers(0, 2000))
def test_closing_takes_a_batch_that_fits_and_nobody_waits_for_ever(waiting: list[Gathered], now: int) -> None:
    count = closing(waiting, WINDOW, now)
    taken = waiting[:count]
    assert len(taken) <= WINDOW.max_batch_size
    if count > 1:
        assert sum(one.tokens for one in taken) <= WINDOW.max_batch_tokens
        assert sum(one.bytes for one in taken) <= MAX_INLINE_BYTES
    end = closes_at(waiting, WINDOW)
    assert (end is None) == (not waiting)
    if end is not None and now >= end:
        assert count == fitting(waiting, WINDOW) > 0


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("outcome", STATES)
def test_ended_follows_the_table(state: RequestState, outcome: RequestState) -> None:
    changed = ended(record(state), Outcome(outcome), 5)
    assert (changed is not None) == (outcome in NEXT.get(state, ()))
    if changed is not None:
        assert (changed.state, changed.ended) == (outcome, 5)


@given(st.lists(st.sampled_from(STATES), max_size=6))
def test_ended_has_one_last_word(outcomes: list[RequestState]) -> None:
    """Whatever comes and in whatever order, the first end stays."""
    now = record()
    ends = [outcome for outcome in outcomes if outcome in NEXT[RequestState.IN_PROGRESS]]
    for outcome in outcomes:
        now = ended(now, Outcome(outcome), 5) or now
    assert now.state == (ends[0] if ends else RequestState.IN_PROGRESS)


def test_begun_is_in_progress_until_its_deadline() -> None:
    assert begun(queued(accepted=1000), "b1", CHAT, 60_999).state == RequestState.IN_PROGRESS
    late = begun(queued(accepted=1000), "b1", CHAT, 61_000)
    assert (late.state, late.batch, late.ended) == (RequestState.EXPIRED, None, 61_000)
    assert late.error is not None
    assert "deadlineSeconds, 60" in late.error.message


def test_belongs_to_the_batch_that_was_first_and_to_none_once_it_has_ended() -> None:
    assert belongs(record(), "b1")
    assert not belongs(record(), "b2")
    assert not belongs(record(RequestState.CANCELLED), "b1")


def test_cancelled_from_every_state() -> None:
    waiting = cancelled(None, ID, 1000, 7)
    assert waiting is not None
    assert (waiting.state, waiting.accepted, waiting.ended) == (RequestState.CANCELLED, 1000, 7)
    working = cancelled(record(), ID, 1000, 7)
    assert working is not None
    assert (working.state, working.batch) == (RequestState.CANCELLED, "b1")
    assert cancelled(working, ID, 1000, 8) is None
    for state in (RequestState.COMPLETED, RequestState.FAILED, RequestState.EXPIRED):
        with pytest.raises(ApiError, match=f"it is {state}") as caught:
            cancelled(record(state), ID, 1000, 7)
        assert caught.value.status == 409
    assert [state for state in STATES if has_ended(record(state))] == STATES[2:]


def test_same_request_under_a_key() -> None:
    known = KnownKey(id=ID, digest=digest("chat", {"a": 1, "b": [2]}), accepted=1)
    again = known.model_copy(update={"id": f"req_chat_{'f' * 24}", "digest": digest("chat", {"b": [2], "a": 1})})
    assert same_request(known, again) is known
    for other in (digest("text", {"a": 1, "b": [2]}), digest("chat", {"a": 1, "b": [3]})):
        with pytest.raises(ApiError) as caught:
            same_request(known, known.model_copy(update={"digest": other}))
        assert (caught.value.status, caught.value.code) == (409, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_key_name_refuses(key: str) -> None:
    with pytest.raises(ApiError, match="1 to 255 characters"):
        key_name(key)


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        pytest.param([], UNKNOWN_SECONDS, id="nothing has left"),
        pytest.param([Left(0, 500)], UNKNOWN_SECONDS, id="long ago"),
        pytest.param([Left(90_000, 100)], 10, id="10 a second: a tenth of 1000 takes 10 s"),
        pytest.param([Left(99_999, 5000)], 1, id="very fast"),
        pytest.param([Left(45_000, 1)], MOST_SECONDS, id="hardly at all"),
    ],
)
def test_retry_after(left: list[Left], seconds: int) -> None:
    assert retry_after(1000, left, 100_000) == seconds


@given(st.integers(1, 10**6), st.lists(st.builds(Left, st.integers(0, 10**6), st.integers(0, 1000))), st.integers(0))
def test_retry_after_is_always_a_time_to_wait(most: int, left: list[Left], now: int) -> None:
    assert 1 <= retry_after(most, left, now) <= MOST_SECONDS


@pytest.mark.parametrize(
    ("body", "wanted", "route"),
    [
        (BODY, None, "chat"),
        ({"model": "small", "prompt": "x"}, None, "text"),
        ({"model": "vectors", "input": "x"}, None, "vectors"),
        ({"prompt": "x"}, "text", "text"),
    ],
    ids=["messages", "prompt", "input", "by name"],
)
def test_route_of(body: dict[str, Any], wanted: str | None, route: str) -> None:
    assert route_of(body, MODELS.routes, wanted).name == route


@pytest.mark.parametrize(
    ("body", "wanted", "status", "says"),
    [
        pytest.param(BODY, "nowhere", 404, "there is no route nowhere; there are chat, text", id="unknown route"),
        pytest.param({}, None, 400, "model must name", id="no model"),
        pytest.param({"model": 3}, None, 400, "model must name", id="model is no text"),
        pytest.param({"model": "large"}, None, 404, "routes to small, vectors", id="unknown model"),
        pytest.param({"model": "small"}, None, 400, "messages or prompt must be set", id="nothing asked"),
    ],
)
def test_route_of_refuses(body: dict[str, Any], wanted: str | None, status: int, says: str) -> None:
    with pytest.raises(ApiError) as caught:
        route_of(body, MODELS.routes, wanted)
    assert caught.value.status == status
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        pytest.param({"messages": []}, 400, "messages", id="no message"),
        pytest.param({"messages": ["hello"]}, 400, "messages[0]", id="a message that is a text"),
        pytest.param({"model": "large"}, 400, "model", id="another model than the route has"),
        pytest.param({"user": "x" * MAX_INLINE_BYTES}, 413, None, id="too large"),
    ],
)
def test_queued_request_refuses(changes: dict[str, Any], status: int, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        queued_request(ID, {**BODY, **changes}, MODELS.models[0], 1000)
    assert (caught.value.status, caught.value.param) == (status, param)
    assert "body" not in caught.value.message


def test_queued_request_counts_what_it_asks() -> None:
    request = queued_request(
        ID, {"model": "small", "messages": [{"role": "user", "content": "x" * 400}]}, MODELS.models[0], 1
    )
    assert (request.id, request.tokens) == (ID, 100)


@given(st.sampled_from(["chat", "a", "a-b", "x" * 32]), st.integers(0, 2**96 - 1))
def test_route_name_is_in_the_id(route: str, number: int) -> None:
    assert route_name(request_id(route, f"{number:024x}")) == route


@pytest.mark.parametrize(
    "wanted", ["", "req_", f"req__{DIGITS}", f"req_-_{DIGITS}", f"req_a.b_{DIGITS}", f"req_a_{DIGITS}0"]
)
def test_route_name_of_what_is_no_id(wanted: str) -> None:
    assert route_name(wanted) is None


def test_window_batch_is_one_that_needs_no_preflight_and_is_refused_for_nobody() -> None:
    batch = window_batch("chat-1", "default", [queued(0), queued(1)], CHAT, MODELS.models[0])
    assert made_of_requests(batch)
    assert not made_of_requests(a_batch().build())
    assert (batch.spec.shards, batch.spec.parallelism, batch.spec.completion_deadline_seconds) == (1, 1, 60)
    plan = lay_out_inline(
        batch.spec.input.inline or (),
        batch.spec.input,
        batch.spec.model,
        shards=1,
        batch=identity(batch),
        created=0,
        uri="file:///x",
    )
    assert plan.report is not None
    assert plan.report.error_count == 0


def line(**said: Any) -> bytes:
    return json.dumps({"id": "r", "custom_id": ID, "response": None, "error": None, **said}).encode()


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("invalid_request", RequestState.FAILED),
        ("batch_expired", RequestState.EXPIRED),
        ("batch_cancelled", RequestState.CANCELLED),
    ],
)
def test_outcome_of_an_error(code: str, state: RequestState) -> None:
    name, outcome = outcome_of(line(error={"code": code, "message": "no"}))
    assert (name, outcome.state) == (ID, state)
    assert outcome.error is not None
    assert outcome.error.message == "no"


def test_outcome_of_a_response_is_shown_as_it_is() -> None:
    response = {"status_code": 200, "request_id": "x", "body": {"choices": []}}
    name, outcome = outcome_of(line(response=response))
    answered = ended(record(), outcome, 61_000)
    assert name == ID
    assert answered is not None
    shown = record_object(answered)
    assert (shown["status"], shown["response"], shown["completed_at"]) == ("completed", response, 61)
    assert shown["batch_id"] == "batch_b1"


def test_outcome_without_line_says_why() -> None:
    failed = a_batch().with_condition(ConditionType.FAILED, ConditionStatus.TRUE, Reason.WORKER_FAILED).build()
    codes = [outcome_without_line(batch).error for batch in (None, failed, a_batch().build())]
    assert [error.code for error in codes if error] == ["batch_deleted", "WorkerFailed", "no_answer"]


def test_queued_object_has_the_fields_of_every_other() -> None:
    shown = queued_object(queued(), 3)
    assert (shown["status"], shown["position"], shown["route"], shown["created_at"]) == ("queued", 3, "chat", 1)
    assert shown.keys() == record_object(record()).keys()


def test_route_faults_name_the_place() -> None:
    routes = [{"name": "a", "model": "small"}, {"name": "a", "model": "vectors"}]
    models = [one.model_dump(mode="json", by_alias=True, exclude_unset=True) for one in MODELS.models]
    faults = route_faults(ServedModels.parse({"models": models, "routes": routes}))
    assert [fault.field for fault in faults] == ["routes[1].model", "routes[1].name"]
    assert route_faults(MODELS) == []


def test_request_route_has_defaults_that_work() -> None:
    route = RequestRoute.parse({"name": "a", "model": "small"})
    assert (route.window.max_batch_size, route.max_queued, route.max_open_batches) == (64, 10_000, 4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param([None, None], None, id="nobody has handed one on"),
        pytest.param([None, KEPT], KEPT, id="one has"),
        pytest.param([LEFT, KEPT], KEPT, id="a trace that is kept, before an older one that is not"),
        pytest.param([LEFT, None], LEFT, id="a trace that is not kept: it says so to the batch"),
        pytest.param(["nonsense", KEPT], KEPT, id="a text that is none"),
    ],
)
def test_batch_of_a_window_works_in_a_context_of_its_requests(given: list[str | None], expected: str | None) -> None:
    members = [queued(accepted=1000).model_copy(update={"traceparent": one}) for one in given]
    batch = window_batch("b1", "default", members, CHAT, MODELS.models[0])
    assert batch.metadata.annotations.get(labels.TRACEPARENT) == expected


@pytest.mark.parametrize(
    ("traceparent", "state", "error"),
    [
        pytest.param(None, RequestState.FAILED, None, id="no context: no span"),
        pytest.param(KEPT, RequestState.COMPLETED, "", id="a trace that is kept"),
        pytest.param(LEFT, RequestState.COMPLETED, None, id="a trace that is not kept, and all is well"),
        pytest.param(LEFT, RequestState.FAILED, "mock_error", id="a trace that is not kept, and a failure"),
    ],
)
def test_request_tells_of_its_end_in_its_own_trace(
    traceparent: str | None, state: RequestState, error: str | None
) -> None:
    asked = queued(accepted=1000).model_copy(update={"traceparent": traceparent})
    fault = RequestError(code="mock_error", message="no") if state == RequestState.FAILED else None
    record = ended(begun(asked, "b1", CHAT, 2000), Outcome(state, error=fault), 5000)
    assert record is not None
    span = request_span(record, Tracing())
    assert (span.error if span is not None else None) == error
    if span is not None:
        assert (span.parent_id, str(span.context)[:36]) == ("00f067aa0ba902b7", (traceparent or "")[:36])
        assert (span.end - span.start).total_seconds() == 4
    assert request_span(record, None) is None
