"""The decision: from one look at a FanOutJob to what there should be.

Its life, top to bottom: the input is read for its ids; the branches work, each an InferenceBatch with a life of its own; when none of
them will come to anything more, what they have left is joined; then the completion policy says how it has gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from headrace.api.fanoutjob import FanOutJob, FanOutJobStatus
from headrace.api.inferencebatch import OutputStatus, RecordCounts
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import JoinReport, PlanReport, Role
from headrace.core.conditions import Finding, false, transition_events, true, unknown, with_findings
from headrace.core.counts import tally
from headrace.core.fanout.branches import BranchView, views
from headrace.core.fanout.check import fan_out_problems
from headrace.core.fanout.children import (
    branch_children,
    input_config_map,
    join_job,
    lay_out,
    own_children,
    plan_job,
)
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.policy import deadline, decided, enough, expired, over
from headrace.core.fanout.progress import listed, progress, summary
from headrace.core.plan import Plan
from headrace.core.planning import refused
from headrace.core.step import Step, failed, readiness
from headrace.core.stopping import failure_of, find_stop

LOOK = timedelta(seconds=15)
"""A change of a branch brings an earlier look."""


def reconcile(observed: FanOutObserved) -> Plan[FanOutJobStatus]:
    """What there should be: children, status, events, and when to look again."""
    fan_out = observed.fan_out
    if fan_out.metadata.deletion_timestamp is not None:
        return Plan(status=fan_out.status, children=None)  # owner references take the children along
    if fan_out.status.finished and not _retry_asked(fan_out):
        return _plan(observed, Step())
    problems = fan_out_problems(fan_out, observed.installation)
    if problems:
        return _plan(observed, failed(Reason.INVALID_SPEC, "; ".join(map(str, problems))))
    if _retry_asked(fan_out):
        return _plan(observed, _retry(observed))
    return _plan(observed, _next_step(observed))


def _next_step(observed: FanOutObserved) -> Step:
    if not observed.fan_out.status.is_true(ConditionType.INPUT_VALIDATED):
        return _planning(observed)
    branches = views(observed)
    if over(observed, branches):
        return _joining(observed, branches)
    return _working(observed, branches)


def _planning(observed: FanOutObserved) -> Step:
    """The input is being read, or has just been. Nothing was begun yet, so that there is nothing to put away."""
    work = observed.own_work
    stop = find_stop(work, tally(work.batch.status, (), 0))
    if stop is not None:
        return failed(stop.reason, stop.message)
    inline = lay_out(observed)
    report = inline.report if inline is not None else work.plan_report
    children = input_config_map(observed, inline) if inline is not None else (plan_job(observed),)
    if report is None:
        waiting = unknown(ConditionType.INPUT_VALIDATED, Reason.PLANNING, "the input is being read")
        return Step(children, (waiting, *readiness(work, Role.PLAN), *_suspension(observed, ())))
    return refused(report) if report.error_count else _planned(observed, report, Step(children))


def _planned(observed: FanOutObserved, report: PlanReport, so_far: Step) -> Step:
    names = len(observed.fan_out.spec.branches)
    valid = true(ConditionType.INPUT_VALIDATED, Reason.INPUT_VALID, f"{report.records} records for {names} branches")
    changes = {
        "records": RecordCounts(total=report.records, pending=report.records),
        "output": OutputStatus(uri=observed.own_work.batch.spec.output.uri or ""),
        **progress(views(observed)),
    }
    return Step(so_far.children, (valid, *_suspension(observed, ())), changes)


def _working(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> Step:
    """The branches are at work."""
    ended = [view for view in branches if view.finished]
    message = f"{len(ended)} of {len(branches)} branches have ended" + (f": {listed(ended)}" if ended else "")
    running = false(ConditionType.BRANCHES_COMPLETE, Reason.BRANCHES_RUNNING, message)
    children = (*own_children(observed, lay_out(observed)), *branch_children(observed, branches))
    findings = (running, *_ending(observed, branches), *_suspension(observed, branches))
    return Step(children, findings, progress(branches))


def _ending(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> tuple[Finding, ...]:
    """That the branches are told to end, and why."""
    active = sum(view.child is not None and not view.finished for view in branches)
    message = f"stopping: {active} branches are putting their work away"
    if observed.fan_out.spec.cancel:
        return (false(ConditionType.FAILED, Reason.CANCELLED, message),)
    if expired(observed) and not decided(observed, branches):
        return (false(ConditionType.FAILED, Reason.DEADLINE_EXCEEDED, message),)
    return ()


def _suspension(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> tuple[Finding, ...]:
    """Whether all branches have put their work away, as the user asked."""
    if not observed.fan_out.spec.suspend:
        if observed.fan_out.status.condition(ConditionType.SUSPENDED) is None:
            return ()
        return (false(ConditionType.SUSPENDED, Reason.RESUMED, "goes on where it stopped"),)
    begun = [view.child for view in branches if view.child is not None and not view.finished]
    draining = [child for child in begun if not child.status.is_true(ConditionType.SUSPENDED)]
    if draining:
        message = f"{len(draining)} branches are putting their work away"
        return (false(ConditionType.SUSPENDED, Reason.DRAINING, message),)
    return (true(ConditionType.SUSPENDED, Reason.SUSPENDED, "no GPU is held; set spec.suspend to false to go on"),)


def _joining(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> Step:
    """No branch will come to anything more: join what there is."""
    cancelled = observed.fan_out.spec.cancel
    found = _branches_complete(observed, branches)
    if not any(view.joined(cancelled=cancelled) for view in branches):
        return _ended(observed, branches, (found,), progress(branches))
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
    return Step(children, (found, joining, *readiness(observed.own_work, Role.JOIN)), progress(branches))


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
    changes = progress(branches) | {"records": records, "output": output}
    return _ended(observed, branches, (found, joined), changes)


def _join_failed(observed: FanOutObserved, branches: tuple[BranchView, ...], found: Finding) -> Step:
    work, job = observed.own_work, observed.job(Role.JOIN)
    told = failure_of(work, job)
    why = f"{told.reason}: {told.message}" if told is not None else (job.failure_message if job else "")
    message = f"the answers could not be joined: {why or 'its pods died'}. What is done is kept: mend this, then retry"
    end = failed(Reason.JOIN_FAILED, message, progress(branches))
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


def _retry_asked(fan_out: FanOutJob) -> bool:
    return fan_out.retries_asked > fan_out.status.retries and not fan_out.status.is_true(ConditionType.COMPLETE)


def _retry(observed: FanOutObserved) -> Step:
    """Begin anew with what is there: branches that have succeeded stay as they are, the others are run once more at the next look."""
    fan_out, branches = observed.fan_out, views(observed)
    findings = [false(ConditionType.FAILED, Reason.RETRYING, f"retry {fan_out.retries_asked}: what is done is kept")]
    if fan_out.status.condition(ConditionType.JOINED) is not None:
        findings.append(unknown(ConditionType.JOINED, Reason.RETRYING, "the branches are not done"))
    changes = {"retries": fan_out.retries_asked, "completion_time": None, "validation": None}
    kept = branch_children(observed, branches) if fan_out.status.is_true(ConditionType.INPUT_VALIDATED) else ()
    return Step((*own_children(observed, lay_out(observed)), *kept), tuple(findings), changes)


def _plan(observed: FanOutObserved, step: Step) -> Plan[FanOutJobStatus]:
    """Turn a step into the whole answer."""
    before, generation, now = observed.fan_out.status, observed.fan_out.metadata.generation, observed.now
    conditions = with_findings(before.conditions, step.findings, generation, now)
    common = {
        "observed_generation": generation,
        "conditions": conditions,
        "start_time": before.start_time or now,
        "deadline_time": deadline(observed.fan_out, now),
    }
    status = before.model_copy(update=common | dict(step.changes))
    if status.finished:
        status = status.model_copy(update={"completion_time": before.completion_time or now})
    status = status.model_copy(update={"summary": summary(status)})
    return Plan(
        status=status,
        children=None if status.finished else step.children,
        events=transition_events(before.conditions, conditions),
        look_again_after=_look_again(observed, status),
    )


def _look_again(observed: FanOutObserved, status: FanOutJobStatus) -> timedelta | None:
    if status.finished:
        return None
    before = observed.fan_out.status
    opened = before.is_true(ConditionType.INPUT_VALIDATED) != status.is_true(ConditionType.INPUT_VALIDATED)
    if opened or before.retries != status.retries:
        return timedelta(0)
    if status.deadline_time is None or expired(observed):
        return LOOK
    return min(LOOK, status.deadline_time - observed.now)
