"""One step in the life of a batch, and the pieces that several steps are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.batchstatus import Queue, ShardCounts
from headrace.api.kinds import OurObject
from headrace.api.manifest import InlinePlan
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import Role
from headrace.core.admission.demand import allowed_pods, no_pods_allowed
from headrace.core.admission.ranking import NEAR
from headrace.core.children import plan_job, run_job
from headrace.core.conditions import Finding, false, true
from headrace.core.counts import Tally
from headrace.core.endpoints import endpoint_statuses, resting
from headrace.core.evenness import jain_percent, stragglers
from headrace.core.inline import inline_config_map
from headrace.core.kueue.run import queued_run
from headrace.core.observed import LET_IN, JobSnapshot, Observed
from headrace.core.plan import Activation
from headrace.core.progress import batch_places, completion_estimate, earliest, fill_percent, largest


@dataclass(frozen=True, slots=True)
class Step:
    """What one step comes to."""

    children: tuple[JsonObject, ...] = ()
    findings: tuple[Finding, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Status fields that this step sets, in snake_case."""
    pods: int = 0
    """Pods that the batch may have from now on; what it has above that it holds until they are gone."""
    activations: tuple[Activation, ...] = ()


def failed(reason: Reason, message: str, changes: Mapping[str, Any] | None = None) -> Step:
    """The end of a batch that is not complete."""
    return Step((), (true(ConditionType.FAILED, reason, message),), changes or {})


def retrying(batch: OurObject) -> tuple[Finding, ...]:
    """That the object is at work once more, and so neither failed nor complete."""
    message = f"retry {batch.retries_asked}: what is done is kept"
    complete = batch.status.is_true(ConditionType.COMPLETE)
    over = (ConditionType.FAILED, ConditionType.COMPLETE) if complete else (ConditionType.FAILED,)
    return tuple(false(kind, Reason.RETRYING, message) for kind in over)


def input_children(observed: Observed, inline: InlinePlan | None) -> tuple[JsonObject, ...]:
    """The children that carry the input: inline records, and the Job whose pod has read it."""
    records = (inline_config_map(observed.batch, inline),) if inline is not None else ()
    if observed.job(Role.PLAN) is None:
        return records  # its work is done and in the status; nobody needs it again
    return (*records, plan_job(observed.batch, observed.installation))


def held_run(observed: Observed) -> tuple[JsonObject, ...]:
    """The run Job, if there is one, told to drain. Its parallelism stays: until it has been heard, no pod may be added."""
    job = observed.job(Role.RUN)
    if job is None:
        return ()
    if observed.queued:
        return queued_run(observed, rest=True)
    return (run_job(observed.batch, observed.installation, pods=job.parallelism, suspend=True),)


def granted_pods(observed: Observed) -> int:
    """Pods that the batch may have by its own word and by that of its bulkhead; what Kueue gives it is not counted here."""
    batch, verdict = observed.batch, observed.verdict
    if batch.spec.suspend or observed.queued or not verdict.admitted or (verdict is LET_IN and resting(observed)):
        return 0
    allowed = allowed_pods(batch)
    return allowed if verdict.pods is None else min(allowed, verdict.pods)


def admission(observed: Observed, queue: Queue | None = None) -> Finding:
    """Whether the batch may have what it asks for. While it does not move far back in the line, the same words stand."""
    verdict, before = observed.verdict, observed.batch.status.condition(ConditionType.ADMITTED)
    if not allowed_pods(observed.batch):
        return false(ConditionType.ADMITTED, Reason.NO_PODS_ALLOWED, no_pods_allowed(observed.batch))
    found, message = true if verdict.admitted else false, verdict.message
    far = queue is not None and queue.position > NEAR and not observed.queued
    if far and queue == observed.batch.status.queue and before is not None and before.reason == verdict.reason:
        message = before.message
    return found(ConditionType.ADMITTED, verdict.reason, message)


def suspension(observed: Observed) -> tuple[Finding, ...]:
    """Whether the batch has put its work away, as the user asked."""
    job = observed.job(Role.RUN)
    if observed.batch.spec.suspend:
        if job is not None and job.active:
            message = f"{job.active} pods are putting their work away"
            return (false(ConditionType.SUSPENDED, Reason.DRAINING, message),)
        message = "no GPU is held; set spec.suspend to false to go on"
        return (true(ConditionType.SUSPENDED, Reason.SUSPENDED, message),)
    if observed.batch.status.condition(ConditionType.SUSPENDED) is None:
        return ()
    return (false(ConditionType.SUSPENDED, Reason.RESUMED, "goes on where it stopped"),)


def readiness(observed: Observed, role: Role) -> tuple[Finding, ...]:
    """Whether pods start. It is worth a word only once some do not; and a batch that works on some of its pods is at work."""
    pods = [pod for pod in observed.pods if pod.role == role and pod.phase in ("Pending", "Running")]
    stuck = [(pod.obstacle, pod.message) for pod in pods if pod.obstacle is not None]
    if not stuck and observed.batch.status.condition(ConditionType.PODS_READY) is None:
        return ()
    if not stuck:
        return (true(ConditionType.PODS_READY, Reason.PODS_STARTED, "nothing keeps pods from starting"),)
    obstacle, why = stuck[0]
    message = f"{len(stuck)} of {len(pods)} pods cannot start: {why}"
    if any(pod.phase == "Running" for pod in pods):
        return (true(ConditionType.PODS_READY, Reason.PODS_STARTED, message),)
    return (false(ConditionType.PODS_READY, obstacle, message),)


def progress(observed: Observed, counts: Tally) -> dict[str, Any]:
    """The status fields that tell how far the batch is."""
    job = observed.job(Role.RUN)
    moving = counts.records_per_second > 0
    limits = largest((observed.batch.status.batch_limits, *(r.batch_limits for r in observed.shard_reports)))
    return {
        "records": counts.records,
        "shards": _shards(observed, job),
        "counted_shards": counts.counted,
        "failing_shards": counts.failing,
        "batched": counts.batched,
        "usage": counts.usage,
        "reused": counts.reused,
        "batch_limits": limits,
        "batch_fill_percent": fill_percent(counts, batch_places(observed.batch.spec.batching, limits)),
        "records_per_second": f"{counts.records_per_second:.1f}" if moving else None,
        "estimated_completion_time": completion_estimate(counts, observed.now),
        "first_record_time": earliest(
            (observed.batch.status.first_record_time, *(r.first_record_time for r in observed.shard_reports))
        ),
        "endpoints": endpoint_statuses(observed),
        **_evenness(observed),
    }


def _evenness(observed: Observed) -> dict[str, Any]:
    """As far as the pods are there that can tell how long their shards took; without any it stays as it was seen last."""
    reports = [report for report in observed.shard_reports if report.seconds]
    ended = {str(report.shard): report.seconds for report in reports if report.committed}
    running = {str(report.shard): report.seconds for report in reports if not report.committed}
    if len(ended) < 2:
        return {}
    return {"evenness_percent": jain_percent(list(ended.values())), "stragglers": stragglers(ended, running)}


def _shards(observed: Observed, job: JobSnapshot | None) -> ShardCounts:
    before = observed.batch.status.shards
    if job is None:
        return before.model_copy(update={"active": 0})
    return ShardCounts(
        total=before.total,
        active=0 if job.finished else job.active,
        succeeded=len(job.succeeded_indexes),
        failed=len(job.failed_indexes),
    )
