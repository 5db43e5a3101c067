"""From an InferenceBatch to the Batch object that OpenAI's clients know: read off its spec and status, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.openai.ids import BatchFile, Part, batch_id

_HOUR = 3600


class State(StrEnum):
    """What OpenAI calls the states of a batch."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


_ENDS: Mapping[str, State] = {Reason.CANCELLED: State.CANCELLED, Reason.DEADLINE_EXCEEDED: State.EXPIRED}
"""Ends that OpenAI has a state of its own for; all others are `failed`."""


def state_of(batch: InferenceBatch) -> State:
    """What the batch is doing."""
    status, failed = batch.status, batch.status.condition(ConditionType.FAILED)
    if status.is_true(ConditionType.COMPLETE):
        return State.COMPLETED
    if failed is not None and failed.status == ConditionStatus.TRUE:
        return _ENDS.get(failed.reason, State.FAILED)
    if batch.spec.cancel:
        return State.CANCELLING
    if not status.is_true(ConditionType.INPUT_VALIDATED):
        return State.VALIDATING
    if _stopping(batch) is not None or (status.records.total and not status.records.pending):
        return State.FINALIZING
    return State.IN_PROGRESS


def _stopping(batch: InferenceBatch) -> Condition | None:
    """The condition that says why the batch is about to end before its time."""
    failed = batch.status.condition(ConditionType.FAILED)
    if failed is None or failed.status != ConditionStatus.FALSE or failed.reason == Reason.RETRYING:
        return None
    return failed


def batch_object(batch: InferenceBatch) -> JsonObject:
    """The Batch object."""
    spec, status, said = batch.spec, batch.status, batch.metadata.annotations
    state = state_of(batch)
    return {
        "id": batch_id(batch.metadata.name),
        "object": "batch",
        "endpoint": spec.model.task.endpoint or spec.model.task.value,
        "model": spec.model.name,
        "errors": _errors(batch, state),
        "input_file_id": said.get(labels.OPENAI_INPUT_FILE) or BatchFile(Part.INPUT, batch.metadata.name).id,
        "completion_window": said.get(labels.OPENAI_WINDOW) or _window(spec.completion_deadline_seconds),
        "status": state.value,
        "output_file_id": file_id(batch, Part.OUTPUT),
        "error_file_id": file_id(batch, Part.ERRORS),
        **_times(batch, state),
        "request_counts": {
            "total": status.records.total,
            "completed": status.records.succeeded,
            "failed": status.records.failed,
        },
        "usage": _usage(batch),
        "metadata": _metadata(said),
    }


def file_id(batch: OurObject, part: Part) -> str | None:
    """The id of its file with results or errors; None while there is none, or when there is nothing in it."""
    records = batch.status.records
    lines = records.succeeded if part == Part.OUTPUT else records.failed
    there = batch.status.finished and batch.status.output is not None and lines
    return BatchFile(part, batch.metadata.name).id if there else None


def stands_alone(batch: OurObject) -> bool:
    """Whether somebody has asked for this very batch: it is no branch of a fan-out."""
    return not any(owner.controller for owner in batch.metadata.owner_references)


def created_at(batch: InferenceBatch) -> int:
    """When it was made, in seconds since the epoch; 0 when nobody knows."""
    return _seconds(batch.metadata.creation_timestamp) or 0


def newest_first(batches: list[InferenceBatch]) -> list[InferenceBatch]:
    """In the order of lists; those of one second by name, so that pages fit together."""
    return sorted(batches, key=lambda it: (-created_at(it), it.metadata.name))


def _errors(batch: InferenceBatch, state: State) -> JsonObject | None:
    """What has made the batch fail: bad lines of the input, or the reason and its sentence."""
    failed, validation = batch.status.condition(ConditionType.FAILED), batch.status.validation
    if state != State.FAILED or failed is None:
        return None
    lines = [
        {"code": one.code, "line": one.line, "message": one.message, "param": one.param}
        for one in (validation.errors if validation is not None else ())
    ]
    why = {"code": failed.reason, "line": None, "message": failed.message, "param": None}
    return {"object": "list", "data": lines or [why]}


def _times(batch: InferenceBatch, state: State) -> dict[str, int | None]:
    status, stopping = batch.status, _stopping(batch)
    validated = status.condition(ConditionType.INPUT_VALIDATED)
    begun = validated.last_transition_time if status.is_true(ConditionType.INPUT_VALIDATED) and validated else None
    ended = _seconds(status.completion_time)
    since = _seconds(stopping.last_transition_time) if stopping is not None else None
    return {
        "created_at": created_at(batch),
        "in_progress_at": _seconds(begun),
        "expires_at": _seconds(_deadline(batch)),
        "finalizing_at": since if state == State.FINALIZING else None,
        "completed_at": ended if state == State.COMPLETED else None,
        "failed_at": ended if state == State.FAILED else None,
        "expired_at": ended if state == State.EXPIRED else None,
        "cancelling_at": since if state == State.CANCELLING else None,
        "cancelled_at": ended if state == State.CANCELLED else None,
    }


def _deadline(batch: InferenceBatch) -> datetime | None:
    """When it is given up, also of a batch that nobody has looked at yet."""
    made, seconds = batch.metadata.creation_timestamp, batch.spec.completion_deadline_seconds
    if batch.status.deadline_time is not None or made is None or seconds is None:
        return batch.status.deadline_time
    return made + timedelta(seconds=seconds)


def _usage(batch: InferenceBatch) -> JsonObject:
    read, written = batch.status.usage.prompt_tokens, batch.status.usage.completion_tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }


def _window(seconds: int | None) -> str:
    """The completion window of a batch that was not asked for with one; OpenAI has no word for none at all."""
    if seconds is None:
        return "none"
    return f"{seconds // _HOUR}h" if seconds % _HOUR == 0 else f"{seconds}s"


def _metadata(annotations: Mapping[str, str]) -> dict[str, str] | None:
    """What its maker wants to find again. Anybody may edit an annotation, so it need not be what was written."""
    try:
        found = json.loads(annotations.get(labels.OPENAI_METADATA, "null"))
    except ValueError:
        return None
    is_metadata = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    return found or None if is_metadata else None


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None
