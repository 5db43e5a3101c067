"""From a window to its InferenceBatch or FanOutJob, and from that back to what has become of each request."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from headrace.api import labels
from headrace.api.asking import ClosedWindow, QueuedRequest, RequestError, RequestRoute, RequestState
from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.gateway import ServedModel
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType
from headrace.api.records import ErrorCode
from headrace.core.asking.life import Outcome
from headrace.core.asking.traces import window_context
from headrace.core.tracing.context import handed_on

_STATES = {ErrorCode.BATCH_EXPIRED: RequestState.EXPIRED, ErrorCode.BATCH_CANCELLED: RequestState.CANCELLED}
"""Errors that a request has a state of its own for; with all others it has failed."""


def record_of(request_id: str, endpoint: str | None, body: JsonObject) -> JsonObject:
    """A request as a line of a batch."""
    return {"custom_id": request_id, "method": "POST", "url": endpoint, "body": body}


def window_batch(
    name: str, namespace: str, members: Sequence[QueuedRequest], route: RequestRoute, served: ServedModel
) -> InferenceBatch:
    """The batch that answers these requests. They are in the object itself: it is there with all of them, or not at all."""
    said = served.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    records = [record_of(one.id, served.endpoint, one.body) for one in members]
    return InferenceBatch.parse(
        {
            "metadata": {"name": name, "namespace": namespace, "annotations": _annotations(route, members)},
            "spec": {
                **said,
                "shards": 1,  # a window is one micro-batch
                "parallelism": 1,
                "input": {"inline": records, "format": "openai"},
                "completionDeadlineSeconds": route.deadline_seconds,
            },
        }
    )


def window_fan_out(name: str, namespace: str, members: Sequence[QueuedRequest], route: RequestRoute) -> FanOutJob:
    """The fan-out that answers these requests. Each branch has a model of its own, so what a request calls the route by is left out."""
    assert route.target.fan_out_job is not None, "whoever asks has looked"
    said = route.target.fan_out_job.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    bodies = ({key: value for key, value in one.body.items() if key != "model"} for one in members)
    records = [record_of(one.id, route.task.endpoint, body) for one, body in zip(members, bodies, strict=True)]
    return FanOutJob.parse(
        {
            "metadata": {"name": name, "namespace": namespace, "annotations": _annotations(route, members)},
            "spec": {
                **said,
                "input": {"inline": records, "format": "openai"},
                "completionDeadlineSeconds": route.deadline_seconds,
            },
        }
    )


def _annotations(route: RequestRoute, members: Sequence[QueuedRequest]) -> dict[str, str]:
    return {labels.REQUEST_ROUTE: route.name, **handed_on(window_context(members))}


def window_work(window: ClosedWindow, namespace: str, route: RequestRoute, served: ServedModel) -> OurObject:
    """What a window becomes at a route whose windows become objects."""
    if route.target.fan_out_job is not None:
        return window_fan_out(window.batch, namespace, window.members, route)
    return window_batch(window.batch, namespace, window.members, route, served)


def made_of_requests(work: OurObject) -> bool:
    """Whether a window has become this."""
    return labels.REQUEST_ROUTE in work.metadata.annotations


def outcome_of(line: bytes) -> tuple[str, Outcome]:
    """The id of a request and what has become of it, from a line of the results or errors of its batch."""
    said = orjson.loads(line)
    error = said.get("error")
    if error is None:
        return said["custom_id"], Outcome(RequestState.COMPLETED, said["response"], about=said.get("headrace"))
    state = _STATES.get(error["code"], RequestState.FAILED)
    return said["custom_id"], Outcome(state, error=RequestError(code=error["code"], message=error["message"]))


def outcome_without_line(batch: OurObject | None) -> Outcome:
    """What has become of a request of which a batch that is over, or gone, has left nothing."""
    if batch is None:
        return failed("batch_deleted", "its batch was deleted before it had ended")
    condition = batch.status.condition(ConditionType.FAILED)
    if condition is None:
        return failed("no_answer", "its batch has left no line for it")
    return failed(condition.reason, condition.message)


def failed(code: str, message: str) -> Outcome:
    """A request that has failed, and why."""
    return Outcome(RequestState.FAILED, error=RequestError(code=code, message=message))
