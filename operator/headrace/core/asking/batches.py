"""From a window to its InferenceBatch, and from that back to what has become of each request."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from headrace.api import labels
from headrace.api.asking import QueuedRequest, RequestError, RequestRoute, RequestState
from headrace.api.base import JsonObject
from headrace.api.gateway import ServedModel
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import ConditionType
from headrace.api.records import ErrorCode
from headrace.core.asking.life import Outcome

_STATES = {ErrorCode.BATCH_EXPIRED: RequestState.EXPIRED, ErrorCode.BATCH_CANCELLED: RequestState.CANCELLED}
"""Errors that a request has a state of its own for; with all others it has failed."""


def record_of(request_id: str, endpoint: str | None, body: JsonObject) -> JsonObject:
    """A request as a line of a batch."""
    return {"custom_id": request_id, "method": "POST", "url": endpoint, "body": body}


def window_batch(
    name: str, namespace: str, members: Iterable[QueuedRequest], route: RequestRoute, served: ServedModel
) -> InferenceBatch:
    """The batch that answers these requests. They are in the object itself: it is there with all of them, or not at all."""
    said = served.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    records = [record_of(one.id, served.endpoint, one.body) for one in members]
    return InferenceBatch.parse(
        {
            "metadata": {"name": name, "namespace": namespace, "annotations": {labels.REQUEST_ROUTE: route.name}},
            "spec": {
                **said,
                "shards": 1,  # a window is one micro-batch
                "parallelism": 1,
                "input": {"inline": records, "format": "openai"},
                "completionDeadlineSeconds": route.deadline_seconds,
            },
        }
    )


def made_of_requests(batch: InferenceBatch) -> bool:
    """Whether a window has become this batch."""
    return labels.REQUEST_ROUTE in batch.metadata.annotations


def outcome_of(line: bytes) -> tuple[str, Outcome]:
    """The id of a request and what has become of it, from a line of the results or errors of its batch."""
    said = orjson.loads(line)
    error = said.get("error")
    if error is None:
        return said["custom_id"], Outcome(RequestState.COMPLETED, said["response"])
    state = _STATES.get(error["code"], RequestState.FAILED)
    return said["custom_id"], Outcome(state, error=RequestError(code=error["code"], message=error["message"]))


def outcome_without_line(batch: InferenceBatch | None) -> Outcome:
    """What has become of a request of which a batch that is over, or gone, has left nothing."""
    if batch is None:
        return _failed("batch_deleted", "its batch was deleted before it had ended")
    condition = batch.status.condition(ConditionType.FAILED)
    if condition is None:
        return _failed("no_answer", "its batch has left no line for it")
    return _failed(condition.reason, condition.message)


def _failed(code: str, message: str) -> Outcome:
    return Outcome(RequestState.FAILED, error=RequestError(code=code, message=message))
