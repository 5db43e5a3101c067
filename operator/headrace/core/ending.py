"""The end of a batch before its time: drain the workers, give every record without a result an error line, then say so."""

from __future__ import annotations

from headrace.api.manifest import InlinePlan
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.children import finalize_job
from headrace.core.conditions import Finding, false
from headrace.core.counts import Tally, from_finalize
from headrace.core.kueue.run import activations
from headrace.core.observed import Observed
from headrace.core.step import Step, failed, held_run, input_children, progress
from headrace.core.stopping import Stop

_HINTS = {
    Reason.WORKER_FAILED: ". What is done is kept: mend this, then retry",
    Reason.BUDGET_EXCEEDED: ". What is done is kept: raise it, and the batch goes on",
}


def ending(observed: Observed, counts: Tally, stop: Stop, inline: InlinePlan | None) -> Step:
    """One step nearer to the end."""
    status, report = observed.batch.status, observed.finalize_report
    if not status.is_true(ConditionType.INPUT_VALIDATED):
        return _before_the_work(observed, counts, stop)
    if report is not None:
        return _ended(observed, from_finalize(report, counts), stop)
    run = observed.job(Role.RUN)
    settled = run is None or run.drained
    if settled and (stop.keeps_work_for_retry or counts.all_counted(status.shards.total)):
        return _ended(observed, counts, stop)
    children = (*input_children(observed, inline), *held_run(observed))
    if settled:
        end = finalize_failed(observed)
        if end is not None:
            return end
        children = (*children, finalize_job(observed.batch, observed.installation, stop))
    changes = progress(observed, counts) | {"queue": None}
    return Step(children, (_pending(stop),), changes, activations=activations(observed, rest=True))


def finalize_failed(observed: Observed) -> Step | None:
    """The end when even the closing of the books went wrong; None when it did not."""
    job = observed.job(Role.FINALIZE)
    if job is None or not job.failed:
        return None
    said = (r.report.failure for r in reversed(observed.reports) if r.role == Role.FINALIZE and r.final)
    failure = next((f for f in said if f is not None), None)
    why = f"{failure.reason}: {failure.message}" if failure is not None else job.failure_message
    message = f"the output could not be completed: {why}. What is done is kept: mend this, then retry"
    return failed(Reason.FINALIZE_FAILED, message)


def _before_the_work(observed: Observed, counts: Tally, stop: Stop) -> Step:
    """No record was ever worked on, and none is known; only the preflight may still run."""
    plan = observed.job(Role.PLAN)
    if plan is not None and not plan.finished:
        return Step((), (_pending(stop),))  # without it among the children it is deleted
    end = _ended(observed, counts, stop)
    if stop.reason != Reason.WORKER_FAILED:
        return end
    unread = false(ConditionType.INPUT_VALIDATED, Reason.PLAN_FAILED, stop.message)
    return Step(end.children, (unread, *end.findings), end.changes)


def _ended(observed: Observed, counts: Tally, stop: Stop) -> Step:
    return failed(
        stop.reason, f"{stop.message}{_HINTS.get(stop.reason, '')}", progress(observed, counts) | {"queue": None}
    )


def _pending(stop: Stop) -> Finding:
    return false(ConditionType.FAILED, stop.reason, f"stopping: {stop.message}")
