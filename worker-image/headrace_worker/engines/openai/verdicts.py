"""What an answer of an endpoint means for its record and for the endpoint. Pure.

Servers say no in many ways, and some say it with a 200. What matters is who is to blame: the record (it gets an error), the endpoint (the
record is tried again), nobody (there is too much to do: the record waits, and no try is spent), or whoever has set the endpoint up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.model import Task
from headrace.api.records import ErrorCode, RecordError
from headrace_worker.engines.openai.replies import (
    MOST_WORDS,
    Cause,
    Fault,
    Question,
    Reply,
    Said,
    is_html,
    json_object,
    pause_seconds,
    words_of,
)


class Kind(StrEnum):
    """What came of a request."""

    ANSWERED = "answered"
    """The record has its answer."""
    REFUSED = "refused"
    """The record is to blame, and no other try would help."""
    FAILED = "failed"
    """The endpoint is to blame: a try is spent."""
    BUSY = "busy"
    """The endpoint has too much to do: no try is spent."""
    UNREACHED = "unreached"
    """The request was never sent: no try is spent."""
    GIVEN_UP = "given_up"
    """The record's own time was over before the endpoint had had enough of it: that proves nothing."""
    UNUSABLE = "unusable"
    """Nobody would be answered: something must be mended first, and no try is spent."""


class Unusable(StrEnum):
    """Why an endpoint cannot be used; the reason with which a worker ends when that is so of all."""

    KEY_REFUSED = "KeyRefused"
    QUOTA_EXHAUSTED = "QuotaExhausted"
    NOT_USABLE = "EndpointNotUsable"
    NOT_TRUSTED = "EndpointNotTrusted"
    WRONG_MODEL = "WrongModel"


LASTING = frozenset({Unusable.KEY_REFUSED, Unusable.QUOTA_EXHAUSTED})
"""What does not pass by itself, even where an endpoint has answered before."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a request."""

    kind: Kind
    message: str = ""
    body: JsonObject | None = None
    code: ErrorCode = ErrorCode.ENDPOINT_ERROR
    """Of the record's error, when it has one."""
    reason: Unusable = Unusable.NOT_USABLE
    """When it is unusable."""
    pause_seconds: float | None = None
    """So long the endpoint wants to be left alone."""
    congested: bool = False
    """Whether it might do better with fewer requests at once."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def error(self) -> RecordError:
        """The record's error."""
        return RecordError(self.code, self.message)


_RETRIABLE_CLIENT_ERRORS = frozenset({408, 409, 425})
_CONGESTED = frozenset({408, 429, 503, 504, 529})
_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated"})
_TOO_LONG = "context_length_exceeded"


def given_up(asked_seconds: float, record_seconds: int | None, endpoint: str) -> Verdict:
    """What it means for an endpoint that a request was broken off after so long, because its record's time was over.

    An endpoint that has had most of that time, and has not answered, is slow or hangs, and the breaker must know.
    """
    message = (
        f"the endpoint {endpoint} has not answered within {asked_seconds:.0f} s, when the time of the record was over"
    )
    if record_seconds is not None and 2 * asked_seconds < record_seconds:
        return Verdict(Kind.GIVEN_UP, message)
    return Verdict(Kind.FAILED, message, code=ErrorCode.DEADLINE_EXCEEDED, congested=True)


def judge(said: Reply | Fault, asked: Question, now: datetime | None = None) -> Verdict:
    """What an answer, or none, means. `now` is needed for servers that say by a date how long they want to be left alone."""
    if isinstance(said, Fault):
        return _of_fault(said, asked)
    if 200 <= said.status < 300:
        return _of_answer(said, asked)
    return _of_status(said.status, words_of(said, asked), asked, pause_seconds(said.headers, now))


def _of_fault(fault: Fault, asked: Question) -> Verdict:
    message = f"the endpoint {asked.endpoint} {fault.message}"
    match fault.cause:
        case Cause.UNREACHED:
            return Verdict(Kind.UNREACHED, message)
        case Cause.NOT_TRUSTED:
            return Verdict(Kind.UNUSABLE, message, reason=Unusable.NOT_TRUSTED)
        case Cause.FORBIDDEN:
            return Verdict(Kind.UNUSABLE, message)
        case Cause.TIMEOUT:
            return Verdict(Kind.FAILED, message, code=ErrorCode.ENDPOINT_TIMEOUT, congested=True)
        case Cause.TOO_LARGE:
            return Verdict(Kind.FAILED, message, code=ErrorCode.INVALID_RESPONSE)
        case Cause.DISCONNECTED:
            return Verdict(Kind.FAILED, message, code=ErrorCode.ENDPOINT_DISCONNECTED, congested=True)


def _of_status(status: int, said: Said, asked: Question, pause: float | None) -> Verdict:
    message = f"the endpoint {asked.endpoint} answers {status}{f': {said.message}' if said.message else ''}"
    if status == 402 or (status == 429 and said.code in _NO_QUOTA):
        return Verdict(Kind.UNUSABLE, message, reason=Unusable.QUOTA_EXHAUSTED)
    if status == 429 or (status == 503 and pause is not None):
        return Verdict(Kind.BUSY, message, pause_seconds=pause, congested=True)
    if status == 401:
        return Verdict(Kind.UNUSABLE, message, reason=Unusable.KEY_REFUSED)
    if status in (403, 404, 405) or status < 400:
        return Verdict(Kind.UNUSABLE, message)
    if status < 500 and status not in _RETRIABLE_CLIENT_ERRORS:
        too_long = said.code == _TOO_LONG
        code = ErrorCode.CONTEXT_LENGTH_EXCEEDED if too_long else ErrorCode.INVALID_REQUEST
        return Verdict(Kind.REFUSED, message, code=code)
    return Verdict(Kind.FAILED, message, pause_seconds=pause, congested=status in _CONGESTED)


def _of_answer(reply: Reply, asked: Question) -> Verdict:
    """A 200: an answer, or what only looks like one."""
    body = json_object(reply.body)
    if body is None:
        what = "an HTML page" if is_html(reply.body) else "what is no JSON object"
        return _invalid(f"answers with {what}", asked)
    if body.get("error"):
        said = words_of(reply, asked)
        if said.status is not None:
            return _of_status(said.status, said, asked, pause_seconds(reply.headers))
        message = f"the endpoint {asked.endpoint} answers 200 with an error inside: {said.message}"
        return Verdict(Kind.FAILED, message)
    if not _ANSWERS[asked.task](body):
        return _invalid(f"answers without what the task {asked.task} asks for", asked)
    named = body.get("model")
    if isinstance(named, str) and not any(is_model(named, name) for name in asked.models):
        message = (
            f"the endpoint {asked.endpoint} answers with the model {named[:MOST_WORDS]}, and not with {asked.models[0]}"
        )
        return Verdict(Kind.UNUSABLE, message, code=ErrorCode.INVALID_RESPONSE, reason=Unusable.WRONG_MODEL)
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    tokens = (_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    return Verdict(Kind.ANSWERED, body=body, prompt_tokens=tokens[0], completion_tokens=tokens[1])


def is_model(said: str, asked: str) -> bool:
    """Whether the name in an answer is that of the model that was asked for: with a version after it, or an owner before it, it is.

    >>> is_model("gpt-4o-2024-08-06", "gpt-4o"), is_model("smollm2", "org/smollm2"), is_model("gpt-4", "gpt-4o")
    (True, True, False)
    """
    if said == asked or said.endswith(f"/{asked}") or asked.endswith(f"/{said}"):
        return True
    return said.startswith(asked) and said[len(asked)] in "-@:"


def _invalid(what: str, asked: Question) -> Verdict:
    return Verdict(Kind.FAILED, f"the endpoint {asked.endpoint} {what}", code=ErrorCode.INVALID_RESPONSE)


def _count(usage: Any, name: str) -> int:
    found = usage.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**53 else 0


def _has_message(body: JsonObject) -> bool:
    return _first(body, "choices", "message", dict)


def _has_text(body: JsonObject) -> bool:
    return _first(body, "choices", "text", str)


def _has_embedding(body: JsonObject) -> bool:
    return _first(body, "data", "embedding", list | str)


def _first(body: JsonObject, items: str, field: str, kind: Any) -> bool:
    """Whether each of some items, of which there is one at least, has a field of that kind."""
    found = body.get(items)
    return (
        isinstance(found, list)
        and bool(found)
        and all(isinstance(it, dict) and isinstance(it.get(field), kind) for it in found)
    )


_ANSWERS = {Task.CHAT: _has_message, Task.COMPLETION: _has_text, Task.EMBEDDING: _has_embedding}
TASKS = tuple(_ANSWERS)
"""What endpoints can be asked for."""
