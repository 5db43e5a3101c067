"""Builders of FanOutJobs and looks at them.

>>> look_at(a_fan_out("one", "two").validated(), one=a_branch_end("one"))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self

from builders import NOON, PLACE, BatchBuilder
from headrace.api import labels
from headrace.api.batchstatus import RecordCounts, RecordProblem, Validation
from headrace.api.fanoutjob import FanOutJob
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import JoinReport, Role
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.observed import JobSnapshot, WorkerReport


@dataclass(frozen=True)
class FanOutBuilder:
    """A FanOutJob in the making; every method gives a new builder."""

    spec: Mapping[str, Any]
    name: str = "answers"
    meta: Mapping[str, Any] = field(default_factory=dict)
    status: FanOutJobStatus = FanOutJobStatus()

    def with_spec(self, **fields: Any) -> Self:
        """Set spec fields, in camelCase."""
        return replace(self, spec={**self.spec, **fields})

    def with_branch(self, name: str, **fields: Any) -> Self:
        """Set fields of one branch, in camelCase."""
        branches = [{**branch, **fields} if branch["name"] == name else branch for branch in self.spec["branches"]]
        return self.with_spec(branches=branches)

    def policy(self, mode: str, min_succeeded: int | None = None) -> Self:
        """With this completion policy."""
        more = {} if min_succeeded is None else {"minSucceeded": min_succeeded}
        return self.with_spec(completionPolicy={"mode": mode, **more})

    def with_status(self, **fields: Any) -> Self:
        """Set status fields, in snake_case."""
        return replace(self, status=self.status.model_copy(update=fields))

    def with_condition(self, kind: ConditionType, status: ConditionStatus, reason: Reason) -> Self:
        """With one more condition, since noon."""
        new = Condition(type=kind, status=status, reason=reason, last_transition_time=NOON, observed_generation=1)
        others = tuple(c for c in self.status.conditions if c.type != kind)
        return self.with_status(conditions=(*others, new))

    def validated(self, records: int = 100) -> Self:
        """With its input read and found good."""
        known = self.with_status(records=RecordCounts(total=records, pending=records), start_time=NOON)
        return known.with_condition(ConditionType.INPUT_VALIDATED, ConditionStatus.TRUE, Reason.INPUT_VALID)

    def asked_to_retry(self, times: int = 1) -> Self:
        """With the annotation that asks for it."""
        return replace(self, meta={**self.meta, "annotations": {labels.RETRY: str(times)}})

    def build(self) -> FanOutJob:
        """The object."""
        metadata = {
            "name": self.name,
            "namespace": "default",
            "uid": f"uid-{self.name}",
            "generation": 1,
            "creationTimestamp": "2026-01-15T12:00:00Z",
            **self.meta,
        }
        head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "FanOutJob"}
        return FanOutJob.parse({**head, "metadata": metadata, "spec": self.spec}).model_copy(
            update={"status": self.status}
        )


def a_fan_out(*branches: str) -> FanOutBuilder:
    """A FanOutJob with these branches on the mock engine, over records in an object store."""
    listed = [
        {"name": name, "model": {"name": "mock"}, "engine": {"name": "mock"}}
        for name in branches or ("one", "two", "three")
    ]
    return FanOutBuilder({"input": {"uri": "s3://in/records.jsonl", "format": "jsonl"}, "branches": listed})


def a_child(branch: str, round_: int = 0, **spec: Any) -> InferenceBatch:
    """The InferenceBatch of a branch of the FanOutJob `answers`, just made."""
    meta = {
        "labels": {labels.FAN_OUT_JOB: "answers", labels.BRANCH: branch, labels.ROUND: str(round_)},
        "annotations": {labels.RETRY: str(round_)} if round_ else {},
    }
    usual = {"model": {"name": "mock"}, "engine": {"name": "mock"}, "input": {"uri": "s3://in/records.jsonl"}}
    return BatchBuilder(f"answers-{branch}", {**usual, **spec}, meta).build()


def ended(branch: str, reason: Reason | None = None, seconds: int = 60, round_: int = 0, **spec: Any) -> InferenceBatch:
    """The same at its end, so many seconds after noon; `reason`: why it has failed, and ten of its records with it."""
    child, failed = a_child(branch, round_, **spec), 10 if reason is not None else 0
    records = RecordCounts(total=100, succeeded=100 - failed, failed=failed)
    builder = (
        BatchBuilder(child.metadata.name, {}, status=child.status)
        .validated()
        .with_status(
            records=records, retries=round_, start_time=NOON, completion_time=NOON + timedelta(seconds=seconds)
        )
    )
    end = (ConditionType.COMPLETE, Reason.RECORDS_PROCESSED) if reason is None else (ConditionType.FAILED, reason)
    return child.model_copy(update={"status": builder.with_condition(end[0], ConditionStatus.TRUE, end[1]).status})


def drifted(child: InferenceBatch, status: ConditionStatus) -> InferenceBatch:
    """The same, having been compared with a reference."""
    reason = Reason.NOT_COMPARED if status == ConditionStatus.UNKNOWN else Reason.DISTRIBUTION_CHANGED
    said = Condition(
        type=ConditionType.DATA_DRIFT,
        status=status,
        reason=reason,
        message=f"it is {status}",
        last_transition_time=NOON,
    )
    conditions = (*child.status.conditions, said)
    return child.model_copy(update={"status": child.status.model_copy(update={"conditions": conditions})})


def lost_records(child: InferenceBatch, failed: int = 10) -> InferenceBatch:
    """The same, but so many of its records have failed."""
    records = RecordCounts(total=100, succeeded=100 - failed, failed=failed)
    return child.model_copy(update={"status": child.status.model_copy(update={"records": records})})


def took_nothing(branch: str) -> InferenceBatch:
    """The InferenceBatch of a branch whose `when` is true for no record."""
    child = ended(branch, Reason.INPUT_INVALID)
    problem = RecordProblem(line=1, code="no_record_taken", message="none")
    found = {"validation": Validation(error_count=1, errors=(problem,)), "records": RecordCounts()}
    return child.model_copy(update={"status": child.status.model_copy(update=found)})


def joined(succeeded: int = 100, failed: int = 0) -> WorkerReport:
    """The word of a join that has ended well."""
    records = RecordCounts(total=succeeded + failed, succeeded=succeeded, failed=failed)
    return WorkerReport(Role.JOIN, JoinReport(records=records), final=True, exit_code=0)


def look_at(
    fan_out: FanOutBuilder | FanOutJob,
    *children: InferenceBatch,
    jobs: Iterable[JobSnapshot] = (),
    reports: Iterable[WorkerReport] = (),
    after: float = 100,
) -> FanOutObserved:
    """One look, so many seconds after noon."""
    built = fan_out.build() if isinstance(fan_out, FanOutBuilder) else fan_out
    by_branch = {child.metadata.labels[labels.BRANCH]: child for child in children}
    return FanOutObserved(
        built, NOON + timedelta(seconds=after), by_branch, tuple(jobs), tuple(reports), installation=PLACE
    )
