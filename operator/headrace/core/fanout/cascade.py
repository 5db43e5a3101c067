"""Between two stages of a cascade: the records that are not settled yet are selected, and the next branches get only these.

A selection is made once and kept, in the status and beside the output, so that the input of a branch never changes; a retry keeps it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.cascade import StageStatus
from headrace.api.fanoutjob import FanOutJob
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role, SelectReport
from headrace.core.conditions import false
from headrace.core.fanout.branches import BranchView
from headrace.core.fanout.children import branch_children, lay_out, own_children, select_job, select_name
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.progress import progress
from headrace.core.observed import JobSnapshot
from headrace.core.step import Step, failed, readiness
from headrace.core.stopping import failure_of


def due_selection(branches: Sequence[BranchView]) -> int | None:
    """The stage whose records are to be selected now: all before it have ended. None when there is none."""
    unknown = [view.branch.stage for view in branches if view.branch.stage > 0 and view.given is None]
    if not unknown:
        return None
    stage = min(unknown)
    return stage if all(view.finished for view in branches if view.branch.stage < stage) else None


def selecting(observed: FanOutObserved, branches: tuple[BranchView, ...], stage: int) -> Step:
    """Select the records of a stage; suspended, only what is there is kept."""
    report, job = observed.select_report(stage), _job(observed, stage)
    if report is None and job is not None and job.failed:
        return _failed(observed, branches, stage, job)
    message = f"the records that stage {stage} gets are being selected"
    running = false(ConditionType.BRANCHES_COMPLETE, Reason.BRANCHES_RUNNING, message)
    changes = progress(observed, branches) | (_selected(observed.fan_out, report) if report is not None else {})
    return Step(_children(observed, branches, stage), (running, *readiness(observed.own_work, Role.SELECT)), changes)


def _children(observed: FanOutObserved, branches: tuple[BranchView, ...], stage: int) -> tuple[JsonObject, ...]:
    held = (*own_children(observed, lay_out(observed)), *branch_children(observed, branches))
    return held if observed.fan_out.spec.suspend else (*held, select_job(observed, branches, stage))


def _selected(fan_out: FanOutJob, report: SelectReport) -> dict[str, Any]:
    """What is known now. Where nothing is left to settle, no later stage will find anything either."""
    last = max(branch.stage for branch in fan_out.spec.branches)
    stages = range(report.stage, report.stage + 1 if report.records else last + 1)
    found = (StageStatus(stage=stage, records=report.records, spared=report.spared) for stage in stages)
    return {"stages": (*fan_out.status.stages, *found)}


def _job(observed: FanOutObserved, stage: int) -> JobSnapshot | None:
    job = observed.job(Role.SELECT)
    return job if job is not None and job.name == select_name(observed.fan_out, stage) else None


def _failed(observed: FanOutObserved, branches: tuple[BranchView, ...], stage: int, job: JobSnapshot) -> Step:
    told = failure_of(observed.own_work, job)
    why = f"{told.reason}: {told.message}" if told is not None else job.failure_message or "its pods died"
    message = f"the records of stage {stage} could not be selected: {why}. What is done is kept: mend this, then retry"
    end = failed(Reason.WORKER_FAILED, message, progress(observed, branches))
    found = false(ConditionType.BRANCHES_COMPLETE, Reason.BRANCHES_FAILED, message)
    return Step((), (found, *end.findings), end.changes)
