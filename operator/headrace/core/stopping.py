"""Why a batch ends before its work is done: one table, in order of precedence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import Reason
from headrace.api.records import ErrorCode
from headrace.api.worker import ExitCode, Failure, Role
from headrace.core.counts import Tally
from headrace.core.observed import JobSnapshot, Observed


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a batch, before its time."""

    reason: Reason
    message: str

    @property
    def keeps_work_for_retry(self) -> bool:
        """Whether the rest is left undone for a retry, rather than closed with error lines: something outside must be mended first."""
        return self.reason in (Reason.WORKER_FAILED, Reason.BUDGET_EXCEEDED)

    @property
    def error_code(self) -> ErrorCode:
        """What the records that were never worked on get as their error."""
        return _ERROR_CODES.get(self.reason, ErrorCode.BATCH_FAILED)


_ERROR_CODES = {
    Reason.CANCELLED: ErrorCode.BATCH_CANCELLED,
    Reason.DEADLINE_EXCEEDED: ErrorCode.BATCH_EXPIRED,
    Reason.TOO_MANY_FAILED_RECORDS: ErrorCode.TOO_MANY_FAILED_RECORDS,
    Reason.SHARD_FAILED: ErrorCode.SHARD_FAILED,
}


def deadline(batch: InferenceBatch, now: datetime) -> datetime | None:
    """When the batch is given up, on the wall clock: counted from its creation or its last retry, so that suspending it gains nothing."""
    seconds = batch.spec.completion_deadline_seconds
    if seconds is None:
        return None
    begun = batch.status.retry_time or batch.metadata.creation_timestamp or batch.status.start_time or now
    return begun + timedelta(seconds=seconds)


def find_stop(observed: Observed, counts: Tally) -> Stop | None:
    """Why the batch must end now; None while it may go on.

    A `finalize` Job that was already told a reason keeps it: the end of a batch does not change its mind.
    """
    finalizing = observed.job(Role.FINALIZE)
    reasons = (_worker_failed, too_many_failed, _shard_failed, _cancelled, _expired, _budget_exceeded)
    found = [s for s in (rule(observed, counts) for rule in reasons) if s is not None]
    if finalizing is not None and finalizing.stop_reason:
        told = Reason(finalizing.stop_reason)
        return next((s for s in found if s.reason == told), Stop(told, "the batch was stopped"))
    return next(iter(found), None)


def _cancelled(observed: Observed, counts: Tally) -> Stop | None:
    if not observed.batch.spec.cancel:
        return None
    done = counts.records.total - counts.records.pending
    return Stop(Reason.CANCELLED, f"cancelled with {done} of {counts.records.total} records done; what is done is kept")


def _expired(observed: Observed, counts: Tally) -> Stop | None:
    at = deadline(observed.batch, observed.now)
    if at is None or observed.now < at:
        return None
    seconds = observed.batch.spec.completion_deadline_seconds
    return Stop(
        Reason.DEADLINE_EXCEEDED,
        f"not done after {seconds} s: {counts.records.pending} of {counts.records.total} records were left",
    )


def _budget_exceeded(observed: Observed, counts: Tally) -> Stop | None:
    found = observed.batch.spec.budget.used_up(counts.usage)
    if found is None or not counts.records.pending:
        return None
    field, amount, limit = found
    left = f"{counts.records.pending} of {counts.records.total} records are left"
    return Stop(Reason.BUDGET_EXCEEDED, f"{amount} of spec.budget.{field} {limit} are used up, {left}")


def too_many_failed(observed: Observed, counts: Tally) -> Stop | None:
    """The end when more records failed than are tolerated."""
    tolerated = observed.batch.spec.failure_policy.tolerated(counts.records.total)
    told = failure_of(observed, observed.job(Role.RUN))
    if told is not None and told.reason == Reason.TOO_MANY_FAILED_RECORDS:
        return Stop(Reason.TOO_MANY_FAILED_RECORDS, told.message)
    if tolerated is None or counts.records.failed <= tolerated:
        return None
    limit = observed.batch.spec.failure_policy.max_failed_records
    shown = f"{tolerated} ({limit})" if isinstance(limit, str) else str(limit)
    return Stop(
        Reason.TOO_MANY_FAILED_RECORDS,
        f"{counts.records.failed} records failed, {shown} of {counts.records.total} are tolerated",
    )


def _worker_failed(observed: Observed, _: Tally) -> Stop | None:
    for role in (Role.PLAN, Role.RUN):
        job = observed.job(role)
        if job is None or not job.failed:
            continue
        told = failure_of(observed, job)
        if told is not None and told.reason != Reason.TOO_MANY_FAILED_RECORDS:
            return Stop(Reason.WORKER_FAILED, f"{told.reason}: {told.message}")
        if told is None and (role == Role.PLAN or not job.failed_indexes):
            return Stop(Reason.WORKER_FAILED, f"the {role} Job failed: {job.failure_message or 'its pods died'}")
    return None


def _shard_failed(observed: Observed, _: Tally) -> Stop | None:
    job = observed.job(Role.RUN)
    if job is None or not job.failed or not job.failed_indexes:
        return None
    told = [
        f"shard {r.report.shard}: {r.report.failure.message}"
        for r in observed.reports
        if r.final and r.report.kind == "shard" and r.report.failure and r.report.shard in job.failed_indexes
    ]
    why = f" ({told[-1]})" if told else f" ({job.failure_message})" if job.failure_message else ""
    return Stop(Reason.SHARD_FAILED, f"{len(job.failed_indexes)} shards could not be done{why}")


def failure_of(observed: Observed, job: JobSnapshot | None) -> Failure | None:
    """What a worker of this Job said when it gave up the whole Job."""
    if job is None or not job.failed:
        return None
    said = (
        r for r in reversed(observed.reports) if r.role == job.role and r.final and r.exit_code == ExitCode.JOB_FAILED
    )
    return next((r.report.failure for r in said if r.report.failure is not None), None)
