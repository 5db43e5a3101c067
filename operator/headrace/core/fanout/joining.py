"""The last part of a fan-out's life: what its branches have left is joined, and the completion policy says how it has gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.batchstatus import OutputStatus, RecordCounts
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import JoinReport, Role
from headrace.core.conditions import Finding, false, true, unknown
from headrace.core.fanout.branches import BranchView
from headrace.core.fanout.children import branch_children, join_job, lay_out, own_children
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.policy import enough, expired
from headrace.core.fanout.progress import listed, progress
from headrace.core.step import Step, failed, readiness
from headrace.core.stopping import failure_of


def joining(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> Step:
    """No branch will come to anything more: join what there is. Of records that no branch has taken that is error lines."""
    cancelled = observed.fan_out.spec.cancel
    found = _branches_complete(observed, branches)
    if not any(view.joined(cancelled=cancelled) or view.took_nothing for view in branches):
        return _ended(observed, branches, (found,), progress(observed, branches))
    report, job = observed.join_report, observed.job(Role.JOIN)
    if report is not None:
        return _joined(observed, branches, found, report)
    if job is not None and job.failed:
        return _join_failed(observed, branches, found)
    joining = unknown(ConditionType.JOINED, Reason.JOINING, "the answers of the branches are being joined")
    children = (
        *own_children(observed, lay_out(observed)),
        *branch_children(observed, branches),
        join_job(observed, branches),
    )
    return Step(children, (found, joining, *readiness(observed.own_work, Role.JOIN)), progress(observed, branches))


def _branches_complete(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> Finding:
    missing = [view for view in branches if not view.succeeded]
    done = f"{len(branches) - len(missing)} of {len(branches)} branches have succeeded"
    message = f"{done}; without {listed(missing)}" if missing else done
    if enough(observed.fan_out, branches):
        return true(ConditionType.BRANCHES_COMPLETE, Reason.BRANCHES_SUCCEEDED, message)
    return false(ConditionType.BRANCHES_COMPLETE, Reason.BRANCHES_FAILED, message)


def _joined(observed: FanOutObserved, branches: tuple[BranchView, ...], found: Finding, report: JoinReport) -> Step:
    records = report.records
    message = f"{records.succeeded} of {records.total} records have an answer"
    joined = true(ConditionType.JOINED, Reason.RECORDS_JOINED, message)
    uri = observed.own_work.batch.spec.output.uri or ""
    output = OutputStatus(uri=uri, manifest=f"{uri.rstrip('/')}/manifest.json")
    changes = progress(observed, branches) | {"records": records, "output": output}
    return _ended(observed, branches, (found, joined), changes)


def _join_failed(observed: FanOutObserved, branches: tuple[BranchView, ...], found: Finding) -> Step:
    work, job = observed.own_work, observed.job(Role.JOIN)
    told = failure_of(work, job)
    why = f"{told.reason}: {told.message}" if told is not None else (job.failure_message if job else "")
    message = f"the answers could not be joined: {why or 'its pods died'}. What is done is kept: mend this, then retry"
    end = failed(Reason.JOIN_FAILED, message, progress(observed, branches))
    return Step((), (found, false(ConditionType.JOINED, Reason.JOIN_FAILED, message), *end.findings), end.changes)


def _ended(
    observed: FanOutObserved,
    branches: tuple[BranchView, ...],
    findings: tuple[Finding, ...],
    changes: Mapping[str, Any],
) -> Step:
    """How it has gone, as the completion policy sees it."""
    missing = [view for view in branches if not view.succeeded]
    records: RecordCounts = changes.get("records", observed.fan_out.status.records)
    if enough(observed.fan_out, branches):
        return Step((), (*findings, _complete(records, missing)), changes)
    why = f"{len(branches) - len(missing)} of {len(branches)} branches have succeeded; without {listed(missing)}"
    end = failed(_reason(observed, missing), f"{why}. What is done is kept", changes)
    return Step((), (*findings, *end.findings), end.changes)


def _complete(records: RecordCounts, missing: list[BranchView]) -> Finding:
    message = f"{records.succeeded} of {records.total} records have an answer, {records.failed} have none"
    if missing:
        return true(ConditionType.COMPLETE, Reason.PARTIALLY_SUCCEEDED, f"{message}; without {listed(missing)}")
    reason = Reason.RECORDS_PROCESSED_WITH_ERRORS if records.failed else Reason.RECORDS_PROCESSED
    return true(ConditionType.COMPLETE, reason, message)


def _reason(observed: FanOutObserved, missing: list[BranchView]) -> Reason:
    if observed.fan_out.spec.cancel:
        return Reason.CANCELLED
    late = any(view.child is None or view.reason == Reason.DEADLINE_EXCEEDED for view in missing)
    return Reason.DEADLINE_EXCEEDED if late and expired(observed) else Reason.BRANCHES_FAILED
