"""The main part of a batch's life: it waits to be admitted, runs, and is complete when every record has its line."""

from __future__ import annotations

from datetime import datetime

from headrace.api.base import JsonObject
from headrace.api.batchstatus import OutputStatus, Queue
from headrace.api.manifest import InlinePlan
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.admission.demand import allowed_pods, held_pods, usable_pods
from headrace.core.admission.ranking import NEAR, has_moved, is_put_off
from headrace.core.children import finalize_job, run_job
from headrace.core.conditions import true
from headrace.core.counts import Tally, from_finalize
from headrace.core.ending import finalize_failed
from headrace.core.endpoints import endpoints_at_last, endpoints_found, resting
from headrace.core.evaluation import evaluated, evaluating, must_evaluate
from headrace.core.kueue.run import activations, queued_run
from headrace.core.observed import Observed, Verdict
from headrace.core.step import (
    Step,
    admission,
    failed,
    granted_pods,
    held_run,
    input_children,
    progress,
    readiness,
    suspension,
)
from headrace.core.stopping import too_many_failed
from headrace.core.volumes import output_uri


def working(observed: Observed, counts: Tally, inline: InlinePlan | None) -> Step:
    """The input is good: wait to be admitted, and run."""
    batch, job = observed.batch, observed.job(Role.RUN)
    if job is not None and job.complete:
        return _recount(observed, counts, inline)
    if observed.queued:
        return _in_line(observed, counts, inline)
    children = input_children(observed, inline)
    granted = granted_pods(observed)
    # Pods are let go only once the status says that they are held: who counts quota from statuses never counts too little.
    pods = min(granted, held_pods(batch))
    children = (*children, *(_run(observed, pods) if pods else held_run(observed)))
    queue = _queue(observed)
    endpoints = endpoints_found(observed)
    findings = (admission(observed, queue), *readiness(observed, Role.RUN), *endpoints.findings, *suspension(observed))
    return Step(children, findings, progress(observed, counts) | {"queue": queue, **endpoints.changes}, granted)


def _in_line(observed: Observed, counts: Tally, inline: InlinePlan | None) -> Step:
    """The same where Kueue has the say: the Job is there from the beginning, and Kueue lets it go."""
    batch, queue, endpoints = observed.batch, _queue(observed), endpoints_found(observed)
    rest = batch.spec.suspend or not allowed_pods(batch) or resting(observed)
    return Step(
        (*input_children(observed, inline), *queued_run(observed, rest=rest)),
        (admission(observed, queue), *readiness(observed, Role.RUN), *endpoints.findings, *suspension(observed)),
        progress(observed, counts) | {"queue": queue, **endpoints.changes},
        activations=activations(observed, rest=rest),
    )


def closing(observed: Observed, counts: Tally, inline: InlinePlan | None) -> Step:
    """Every record has its line. What is to be evaluated is, and then it is complete."""
    if not must_evaluate(observed) or too_many_failed(observed, counts) is not None:
        return complete(observed, counts)
    finalize = finalize_job(observed.batch, observed.installation, None)
    children = (*input_children(observed, inline), *held_run(observed), finalize)
    return Step(children, (evaluating(),), progress(observed, counts) | {"queue": None})


def complete(observed: Observed, counts: Tally) -> Step:
    """Every record has its line. Too many of them may still be errors."""
    uri = output_uri(observed.batch, observed.installation) or ""
    output = OutputStatus(uri=uri, manifest=f"{uri.rstrip('/')}/manifest.json")
    endpoints = endpoints_at_last(observed)
    changes = progress(observed, counts) | {"queue": None, "output": output, **endpoints.changes}
    stop = too_many_failed(observed, counts)
    if stop is not None:
        return failed(stop.reason, stop.message, changes)
    records = counts.records
    reason = Reason.RECORDS_PROCESSED_WITH_ERRORS if records.failed else Reason.RECORDS_PROCESSED
    message = f"{records.succeeded} of {records.total} records succeeded, {records.failed} failed"
    found = evaluated(observed, uri)
    findings = (*endpoints.findings, *found.findings, true(ConditionType.COMPLETE, reason, message))
    return Step((), findings, {**changes, **found.changes})


def _recount(observed: Observed, counts: Tally, inline: InlinePlan | None) -> Step:
    """All shards are done, but some last words were lost with their pods: `finalize` reads the commits themselves."""
    report = observed.finalize_report
    if report is not None:
        return complete(observed, from_finalize(report, counts))
    end = finalize_failed(observed)
    if end is not None:
        return end
    finalize = finalize_job(observed.batch, observed.installation, None)
    return Step((*input_children(observed, inline), *held_run(observed), finalize), (), progress(observed, counts))


def _run(observed: Observed, pods: int) -> tuple[JsonObject]:
    """The run Job with so many pods. Of the last shards there are fewer than pods anyway: that is no reason to patch it."""
    batch = observed.batch
    rendered = allowed_pods(batch) if pods >= usable_pods(batch) else pods
    return (run_job(batch, observed.installation, suspend=False, pods=rendered),)


def _queue(observed: Observed) -> Queue | None:
    """Where it stands. A step or two far back in a line are not worth a write to each of ten thousand objects."""
    verdict, before = observed.verdict, observed.batch.status.queue
    if verdict.admitted or verdict.position is None:
        return None
    if before is not None and before.position > NEAR and not _is_news(before, verdict, observed.now):
        return before
    return Queue(position=verdict.position, ahead=verdict.ahead, estimated_start_time=verdict.estimated_start)


def _is_news(before: Queue, verdict: Verdict, now: datetime) -> bool:
    moved = verdict.position is not None and has_moved(before.position, verdict.position)
    return moved or is_put_off(before.estimated_start_time, verdict.estimated_start, now)
