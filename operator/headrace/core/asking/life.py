"""The life of a request. It is in the queue and has no record; then it has one, which is changed until it has ended and never again.

| from | by | to |
|---|---|---|
| queued | a window that has it among its members | in_progress |
| queued | a window, after its deadline | expired |
| queued, in_progress | its caller | cancelled |
| in_progress | what its batch has left of it | completed, failed, expired, cancelled |

All who write a record say which version they have seen, so of two that are at odds one is refused, and looks again.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.api.asking import QueuedRequest, RequestError, RequestRecord, RequestRoute, RequestState
from headrace.api.base import JsonObject
from headrace.api.targets import AnsweredBy
from headrace.core.openai.errors import conflict

NEXT = {
    RequestState.QUEUED: {RequestState.IN_PROGRESS, RequestState.EXPIRED, RequestState.CANCELLED},
    RequestState.IN_PROGRESS: {
        RequestState.COMPLETED,
        RequestState.FAILED,
        RequestState.EXPIRED,
        RequestState.CANCELLED,
    },
}
"""What may follow on what; a state that is not here is an end."""
MOST_RECORD_BYTES = 512 * 1024
"""Largest record: half of what a message of NATS may have, unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a request."""

    state: RequestState
    response: JsonObject | None = None
    error: RequestError | None = None
    about: JsonObject | None = None
    """What else its line says: of which branches the answer is made."""


def has_ended(record: RequestRecord) -> bool:
    """Whether the record is the last word."""
    return record.state not in NEXT


def begun(request: QueuedRequest, batch: str, route: RequestRoute, now: int) -> RequestRecord:
    """The first record of a request that a batch takes from the queue, or comes too late for."""
    if now >= request.accepted + route.deadline_seconds * 1000:
        message = f"it waited longer for a batch than deadlineSeconds, {route.deadline_seconds}, allows"
        return RequestRecord(
            id=request.id,
            accepted=request.accepted,
            state=RequestState.EXPIRED,
            ended=now,
            body=request.body,
            webhook=request.webhook,
            traceparent=request.traceparent,
            error=RequestError(code="deadline_exceeded", message=message),
        )
    return RequestRecord(
        id=request.id,
        accepted=request.accepted,
        state=RequestState.IN_PROGRESS,
        batch=batch,
        answered_by=route.target.kind,
        webhook=request.webhook,
        traceparent=request.traceparent,
    )


def belongs(record: RequestRecord, batch: str) -> bool:
    """Whether that batch is to answer the request: it waits for an answer, and no other batch was first."""
    return record.batch == batch and not has_ended(record)


def is_dead(state: RequestState) -> bool:
    """Whether a request has ended without an answer that its caller wanted: it may be asked again."""
    return state in (RequestState.FAILED, RequestState.EXPIRED)


def ended(record: RequestRecord, outcome: Outcome, now: int, body: JsonObject | None = None) -> RequestRecord | None:
    """The record with its outcome; None when it has one already, for a request is answered once. `body`: what was asked."""
    if outcome.state not in NEXT.get(record.state, ()):
        return None
    changes = {
        "state": outcome.state,
        "response": outcome.response,
        "error": outcome.error,
        "about": outcome.about,
        "ended": now,
    }
    if is_dead(outcome.state):
        changes["body"] = body
    return record.model_copy(update=changes)


def fitted(record: RequestRecord, body: JsonObject | None = None) -> RequestRecord:
    """The record, without a response that is too large for it: that is still where the batch has left it. A warm pool leaves nothing."""
    if len(record.model_dump_json()) <= MOST_RECORD_BYTES:
        return record
    if record.answered_by == AnsweredBy.WARM_POOL:
        message = f"the response is larger than the {MOST_RECORD_BYTES} bytes that an answer of a warm pool may have"
        error = RequestError(code="response_too_large", message=message)
        return record.model_copy(update={"state": RequestState.FAILED, "response": None, "error": error, "body": body})
    return record.model_copy(update={"response": None, "in_batch": True})


def cancelled(record: RequestRecord | None, request_id: str, accepted: int, now: int) -> RequestRecord | None:
    """The record after its caller wants no answer any more; None when that was known. Raises `ApiError` when it has ended otherwise.

    `record` is None while it is in the queue.
    """
    if record is None:
        return RequestRecord(id=request_id, accepted=accepted, state=RequestState.CANCELLED, ended=now)
    if record.state == RequestState.CANCELLED:
        return None
    changed = ended(record, Outcome(RequestState.CANCELLED), now)
    if changed is None:
        raise conflict(f"{record.id} has ended: it is {record.state}", "id", "already_finished")
    return changed
