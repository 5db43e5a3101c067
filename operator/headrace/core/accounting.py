"""What metrics say of objects: how each stands, and what has been done between two statuses of a batch.

Counters are the differences of statuses that were written, one after the other. So a new operator process counts nothing twice and
leaves nothing out, and the work of pods that lived too short to be asked is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurStatus
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.records import ErrorCode
from headrace.core.progress import batch_places

_ENDS = (ConditionType.COMPLETE, ConditionType.FAILED)


class Standing(StrEnum):
    """How an object stands, in few words."""

    PLANNING = "Planning"
    WAITING = "Waiting"
    RUNNING = "Running"
    STUCK = "Stuck"
    """Its pods do not start."""
    SUSPENDED = "Suspended"
    STOPPING = "Stopping"
    COMPLETE = "Complete"
    FAILED = "Failed"


def standing(status: OurStatus) -> Standing:
    """How an object of any kind stands."""
    end = next((kind for kind in _ENDS if status.is_true(kind)), None)
    if end is not None:
        return Standing(end)
    stopping, suspended = status.condition(ConditionType.FAILED), status.condition(ConditionType.SUSPENDED)
    ready, admitted = status.condition(ConditionType.PODS_READY), status.condition(ConditionType.ADMITTED)
    if stopping is not None and stopping.reason != Reason.RETRYING:
        return Standing.STOPPING
    if suspended is not None and suspended.reason != Reason.RESUMED:
        return Standing.SUSPENDED
    if ready is not None and ready.status == ConditionStatus.FALSE:
        return Standing.STUCK
    if not status.is_true(ConditionType.INPUT_VALIDATED):
        return Standing.PLANNING
    if isinstance(status, InferenceBatchStatus) and not _holds(admitted):
        return Standing.WAITING
    return Standing.RUNNING


def waits_for(status: OurStatus) -> str | None:
    """The reason for which a batch waits to be admitted; None when it does not wait."""
    admitted = status.condition(ConditionType.ADMITTED)
    waits = standing(status) == Standing.WAITING
    return admitted.reason if waits and admitted is not None else None


def end_of(before: OurStatus, after: OurStatus) -> Condition | None:
    """The condition with which an object has just ended; None when it has not, or had ended before."""
    found = (after.condition(kind) for kind in _ENDS if after.is_true(kind) and not before.is_true(kind))
    return next(found, None)


def eviction(before: InferenceBatchStatus, after: InferenceBatchStatus) -> str | None:
    """The reason for which a batch has just lost what it held; None when it has not."""
    held, holds = before.condition(ConditionType.ADMITTED), after.condition(ConditionType.ADMITTED)
    lost = _holds(held) and holds is not None and not _holds(holds) and not after.finished
    return holds.reason if lost and holds is not None else None


class Drained(NamedTuple):
    """What it has cost that a batch had to give back what it held."""

    reason: str
    gpu_seconds: int
    """GPUs times the seconds from the decision until they were free."""


def drained(batch: InferenceBatch, after: InferenceBatchStatus, now: datetime) -> Drained | None:
    """What pods have cost since their batch lost its admission and until they were gone; None when none have just gone."""
    before = batch.status
    freed = _held(before) - _held(after)
    lost = before.condition(ConditionType.ADMITTED)
    if lost is None or _holds(lost) or freed <= 0 or before.finished:
        return None
    seconds = max(0.0, (now - lost.last_transition_time).total_seconds())
    return Drained(lost.reason, round(freed * batch.spec.gpus * seconds))


def _held(status: InferenceBatchStatus) -> int:
    return status.admission.pods if status.admission is not None else 0


def admission_wait(before: InferenceBatchStatus, after: InferenceBatchStatus, now: datetime) -> timedelta | None:
    """How long a batch that has just been admitted has waited; None when it has not just been admitted."""
    waited, valid = before.condition(ConditionType.ADMITTED), after.condition(ConditionType.INPUT_VALIDATED)
    if _holds(waited) or not after.is_true(ConditionType.ADMITTED):
        return None
    since = waited or valid
    return max(timedelta(0), now - since.last_transition_time) if since is not None else timedelta(0)


class EndedBranches(NamedTuple):
    """Branches of a fan-out that have come to their end."""

    succeeded: int
    failed: int


_GOOD_ENDS = frozenset(
    {
        Reason.RECORDS_PROCESSED,
        Reason.RECORDS_PROCESSED_WITH_ERRORS,
        Reason.NO_DATA,
        ErrorCode.NOT_ROUTED,
        ErrorCode.NOT_ESCALATED,
    }
)


def ended_branches(status: FanOutJobStatus) -> EndedBranches:
    """Those that a fan-out which has just ended has run since its last end: a retry leaves the others as they are."""
    ends = [branch.reason for branch in status.branches if branch.reason and branch.round == status.retries]
    succeeded = sum(reason in _GOOD_ENDS for reason in ends)
    return EndedBranches(succeeded, len(ends) - succeeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What has been done between two statuses of a batch. Nothing is negative: a retry takes failures back, but they have been."""

    succeeded: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    gpu_seconds: int
    batched_records: int
    """In the batches of shards that have come to their end between the two."""
    batch_places: int
    """Records that those batches had room for."""
    reprocessed: int


def done(batch: InferenceBatch, after: InferenceBatchStatus) -> Done:
    """What has been done since the status that the batch has."""
    before, places = batch.status, batch_places(batch.spec.batching, after.batch_limits)
    batched, now = before.batched, after.batched

    def more(earlier: int, later: int) -> int:
        return max(0, later - earlier)

    return Done(
        succeeded=more(before.records.succeeded, after.records.succeeded),
        failed=more(before.records.failed, after.records.failed),
        prompt_tokens=more(before.usage.prompt_tokens, after.usage.prompt_tokens),
        completion_tokens=more(before.usage.completion_tokens, after.usage.completion_tokens),
        gpu_seconds=more(before.usage.gpu_seconds, after.usage.gpu_seconds),
        batched_records=more(batched.records, now.records),
        batch_places=more(batched.batches, now.batches) * places,
        reprocessed=more(batched.reprocessed, now.reprocessed),
    )


def _holds(condition: Condition | None) -> bool:
    return condition is not None and condition.status == ConditionStatus.TRUE
