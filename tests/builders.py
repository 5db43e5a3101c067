"""Builders: a test says what matters to it, and nothing else.

>>> a_batch("reviews").sharded(4).validated(records=1000).admitted().build()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from headrace.api.batchstatus import InferenceBatchStatus, RecordCounts, RecordProblem, ShardCounts, Usage
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import (
    ExitCode,
    Failure,
    FinalizeReport,
    JoinReport,
    PlanReport,
    Report,
    Role,
    SelectReport,
    ShardReport,
)
from headrace.core.observed import Installation, JobSnapshot, Observed, Verdict, WorkerReport

NOON = datetime(2026, 1, 15, 12, 0, 0, tzinfo=UTC)
PLACE = Installation(default_output="file:///out")


@dataclass(frozen=True)
class BatchBuilder:
    """An InferenceBatch in the making; every method gives a new builder."""

    name: str
    spec: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    status: InferenceBatchStatus = InferenceBatchStatus()

    def with_spec(self, **fields: Any) -> Self:
        """Set spec fields, in camelCase."""
        return replace(self, spec={**self.spec, **fields})

    def sharded(self, shards: int, parallelism: int | None = None) -> Self:
        """Cut into shards."""
        return self.with_spec(shards=shards, parallelism=shards if parallelism is None else parallelism)

    def inline(self, *records: Mapping[str, Any], **fields: Any) -> Self:
        """With the records in the object itself."""
        return self.with_spec(input={"inline": list(records), "format": "jsonl", **fields})

    def with_meta(self, **fields: Any) -> Self:
        """Set metadata fields, in camelCase."""
        return replace(self, meta={**self.meta, **fields})

    def with_condition(self, kind: ConditionType, status: ConditionStatus, reason: Reason) -> Self:
        """With one more condition, since noon."""
        new = Condition(type=kind, status=status, reason=reason, last_transition_time=NOON, observed_generation=1)
        others = tuple(c for c in self.status.conditions if c.type != kind)
        return self.with_status(conditions=(*others, new))

    def with_status(self, **fields: Any) -> Self:
        """Set status fields, in snake_case."""
        return replace(self, status=self.status.model_copy(update=fields))

    def validated(self, records: int = 100) -> Self:
        """With its input read and found good."""
        shards = self.spec.get("shards", 1)
        known = self.with_status(
            records=RecordCounts(total=records, pending=records), shards=ShardCounts(total=shards), start_time=NOON
        )
        return known.with_condition(ConditionType.INPUT_VALIDATED, ConditionStatus.TRUE, Reason.INPUT_VALID)

    def admitted(self) -> Self:
        """Let through by its bulkhead."""
        return self.with_condition(ConditionType.ADMITTED, ConditionStatus.TRUE, Reason.ADMITTED)

    def build(self) -> InferenceBatch:
        """The object."""
        metadata = {
            "name": self.name,
            "namespace": "default",
            "uid": f"uid-{self.name}",
            "generation": 1,
            "creationTimestamp": "2026-01-15T12:00:00Z",
            **self.meta,
        }
        batch = InferenceBatch.parse(
            {"apiVersion": "headrace.dev/v1alpha1", "kind": "InferenceBatch", "metadata": metadata, "spec": self.spec}
        )
        return batch.model_copy(update={"status": self.status})


def a_batch(name: str = "reviews") -> BatchBuilder:
    """A batch on the mock engine, with its records in an object store."""
    return BatchBuilder(
        name,
        {"model": {"name": "mock"}, "engine": {"name": "mock"}, "input": {"uri": "s3://in/reviews.jsonl"}},
    )


def a_job(role: Role, **fields: Any) -> JobSnapshot:
    """A child Job of the batch `reviews`."""
    suspended = fields.get("suspended", False)
    return JobSnapshot(**{"name": f"reviews-{role}", "uid": f"uid-{role}", "role": role, "parked": suspended, **fields})


def planned(records: int = 100, shards: int = 1) -> WorkerReport:
    """The word of a preflight that found nothing wrong."""
    return WorkerReport(Role.PLAN, PlanReport(records=records, shards=shards), final=True, exit_code=0)


def refused(*problems: RecordProblem) -> WorkerReport:
    """The word of a preflight that found bad lines."""
    report = PlanReport(error_count=len(problems), errors=problems, errors_uri="file:///out/validation.jsonl")
    return WorkerReport(Role.PLAN, report, final=True, exit_code=0)


def live(shard: int, succeeded: int, failed: int = 0, total: int = 100, speed: str = "10") -> WorkerReport:
    """The word of a running pod."""
    records = RecordCounts(total=total, succeeded=succeeded, failed=failed, pending=total - succeeded - failed)
    report = ShardReport(
        shard=shard, attempt=1, records=records, records_per_second=speed, batches=2, batched_records=succeeded + failed
    )
    return WorkerReport(Role.RUN, report, final=False)


def committed(shard: int, succeeded: int, failed: int = 0, begun: datetime | None = None) -> WorkerReport:
    """The last word of a shard; `begun`: when its first record was."""
    records = RecordCounts(total=succeeded + failed, succeeded=succeeded, failed=failed)
    usage = Usage(prompt_tokens=10 * succeeded, completion_tokens=5 * succeeded, gpu_seconds=3)
    report = ShardReport(
        shard=shard,
        attempt=1,
        committed=True,
        records=records,
        usage=usage,
        batches=2,
        batched_records=succeeded + failed,
        first_record_time=begun,
    )
    return WorkerReport(Role.RUN, report, final=True, exit_code=0)


def gave_up(
    role: Role, reason: str, message: str, code: ExitCode = ExitCode.JOB_FAILED, shard: int = 0
) -> WorkerReport:
    """The last word of a pod that could not go on."""
    failure = Failure(reason=reason, message=message)
    reports: dict[Role, Report] = {
        Role.PLAN: PlanReport(failure=failure),
        Role.RUN: ShardReport(shard=shard, failure=failure),
        Role.FINALIZE: FinalizeReport(failure=failure),
        Role.JOIN: JoinReport(failure=failure),
        Role.SELECT: SelectReport(failure=failure),
    }
    return WorkerReport(role, reports[role], final=True, exit_code=code)


def finalized(succeeded: int, failed: int) -> WorkerReport:
    """The word of a `finalize` that closed the books."""
    records = RecordCounts(total=succeeded + failed, succeeded=succeeded, failed=failed)
    return WorkerReport(Role.FINALIZE, FinalizeReport(records=records), final=True, exit_code=0)


def look(
    batch: BatchBuilder | InferenceBatch,
    *,
    jobs: Iterable[JobSnapshot] = (),
    reports: Iterable[WorkerReport] = (),
    after: float = 0,
    verdict: Verdict = Verdict(admitted=True),
) -> Observed:
    """One look at a batch, so many seconds after noon."""
    built = batch.build() if isinstance(batch, BatchBuilder) else batch
    now = NOON + timedelta(seconds=after)
    return Observed(built, now, tuple(jobs), tuple(reports), verdict, PLACE)
