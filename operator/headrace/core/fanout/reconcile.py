"""The decision: from one look at a FanOutJob to what there should be.

Its life, top to bottom: the input is read for its ids; the branches work, each an InferenceBatch with a life of its own, in a cascade
stage by stage; when none of them will come to anything more, what they have left is joined; then the completion policy says how it
has gone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from headrace.api.aggregation import AggregationType
from headrace.api.batchstatus import OutputStatus, RecordCounts
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import PlanReport, Role
from headrace.core.conditions import Finding, false, transition_events, true, unknown, with_findings
from headrace.core.counts import tally
from headrace.core.fanout.branches import BranchView, views
from headrace.core.fanout.cascade import due_selection, selecting
from headrace.core.fanout.check import fan_out_problems
from headrace.core.fanout.children import branch_children, input_config_map, lay_out, own_children, plan_job
from headrace.core.fanout.datadrift import data_drift
from headrace.core.fanout.joining import joining
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.policy import deadline, decided, expired, over
from headrace.core.fanout.progress import listed, progress, summary
from headrace.core.plan import Plan
from headrace.core.planning import no_data, refused, shown_records
from headrace.core.step import Step, failed, readiness, retrying
from headrace.core.stopping import find_stop

LOOK = timedelta(seconds=15)
"""A change of a branch brings an earlier look."""


def reconcile(observed: FanOutObserved) -> Plan[FanOutJobStatus]:
    """What there should be: children, status, events, and when to look again."""
    fan_out = observed.fan_out
    if fan_out.metadata.deletion_timestamp is not None:
        return Plan(status=fan_out.status, children=None)  # owner references take the children along
    if fan_out.status.finished and not fan_out.retry_asked:
        return _plan(observed, Step())
    problems = fan_out_problems(fan_out, observed.installation)
    if problems:
        return _plan(observed, failed(Reason.INVALID_SPEC, "; ".join(map(str, problems))))
    if fan_out.retry_asked:
        return _plan(observed, _retry(observed))
    return _plan(observed, _next_step(observed))


def _next_step(observed: FanOutObserved) -> Step:
    if not observed.fan_out.status.is_true(ConditionType.INPUT_VALIDATED):
        return _planning(observed)
    branches = views(observed)
    if over(observed, branches):
        return joining(observed, branches)
    stage = due_selection(branches)
    if stage is not None:
        step = selecting(observed, branches, stage)
        return replace(step, findings=(*step.findings, *_suspension(observed, branches)))
    return _working(observed, branches)


def _planning(observed: FanOutObserved) -> Step:
    """The input is being read, or has just been. Nothing was begun yet, so that there is nothing to put away."""
    work = observed.own_work
    stop = find_stop(work, tally(work.batch.status, (), 0))
    if stop is not None:
        return failed(stop.reason, stop.message)
    inline = lay_out(observed)
    read_here = inline.report if inline is not None else None
    report = read_here or work.plan_report
    children = input_config_map(observed, inline)
    if read_here is None:
        children = (*children, plan_job(observed))
    if report is None:
        waiting = unknown(ConditionType.INPUT_VALIDATED, Reason.PLANNING, "the input is being read")
        return Step(children, (waiting, *readiness(work, Role.PLAN), *_suspension(observed, ())))
    if report.error_count:
        return refused(report)
    return _planned(observed, report, Step(children)) if report.records else no_data(observed.fan_out.spec.input)


def _planned(observed: FanOutObserved, report: PlanReport, so_far: Step) -> Step:
    spec = observed.fan_out.spec
    message = f"{shown_records(report)} for {len(spec.branches)} branches"
    valid = true(ConditionType.INPUT_VALIDATED, Reason.INPUT_VALID, message)
    reduced = spec.aggregation.type == AggregationType.REDUCE
    total = (report.parents if reduced else None) or report.records
    changes = {
        "records": RecordCounts(total=total, pending=total),
        "output": OutputStatus(uri=observed.own_work.batch.spec.output.uri or ""),
        **progress(observed, views(observed)),
    }
    return Step(so_far.children, (valid, *_suspension(observed, ())), changes)


def _working(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> Step:
    """The branches are at work."""
    ended = [view for view in branches if view.finished]
    message = f"{len(ended)} of {len(branches)} branches have ended" + (f": {listed(ended)}" if ended else "")
    running = false(ConditionType.BRANCHES_COMPLETE, Reason.BRANCHES_RUNNING, message)
    children = (*own_children(observed, lay_out(observed)), *branch_children(observed, branches))
    findings = (running, *_ending(observed, branches), *_suspension(observed, branches))
    return Step(children, findings, progress(observed, branches))


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


def _retry(observed: FanOutObserved) -> Step:
    """Begin anew with what is there: branches without a failed record stay as they are, the others go on at the next look."""
    fan_out, branches = observed.fan_out, views(observed)
    findings = [*retrying(fan_out)]
    if fan_out.status.condition(ConditionType.JOINED) is not None:
        findings.append(unknown(ConditionType.JOINED, Reason.RETRYING, "the branches are not done"))
    changes = {
        "retries": fan_out.retries_asked,
        "retry_time": observed.now,
        "completion_time": None,
        "validation": None,
    }
    kept = branch_children(observed, branches) if fan_out.status.is_true(ConditionType.INPUT_VALIDATED) else ()
    return Step((*own_children(observed, lay_out(observed)), *kept), tuple(findings), changes)


def _plan(observed: FanOutObserved, step: Step) -> Plan[FanOutJobStatus]:
    """Turn a step into the whole answer."""
    before, generation, now = observed.fan_out.status, observed.fan_out.metadata.generation, observed.now
    findings = (*step.findings, *data_drift(observed.children))
    conditions = with_findings(before.conditions, findings, generation, now)
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
    if opened or before.retries != status.retries or before.stages != status.stages:
        return timedelta(0)
    if status.deadline_time is None or expired(observed):
        return LOOK
    return min(LOOK, status.deadline_time - observed.now)
