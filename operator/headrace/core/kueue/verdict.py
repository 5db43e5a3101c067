"""Whether Kueue has admitted a batch, and if not, why: Kueue's words, in the place where those of a Bulkhead would stand."""

from __future__ import annotations

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.reasons import Reason
from headrace.core.kueue.workload import KueueView, Workload
from headrace.core.observed import JobSnapshot, Verdict


def kueue_verdict(batch: InferenceBatch, job: JobSnapshot | None, view: KueueView) -> Verdict:
    """The verdict on a batch with a `queueName`, whose run Job is `job`."""
    workload, released = view.workload, job is not None and not job.suspended
    if workload is not None and workload.admitted and workload.active:
        return Verdict(admitted=True, message=f"by ClusterQueue {workload.cluster_queue} of Kueue")
    if batch.spec.suspend:
        return _waits(Reason.SUSPENDED, "spec.suspend is true: set it to false to go on")
    if not view.installed:
        return _without_kueue(batch, released=released)
    if workload is None:
        return _not_taken_up(batch, job)
    message = f"LocalQueue {batch.spec.queue_name}: {_words(workload)}"
    if view.position is None:
        return _waits(Reason.WAITING_FOR_KUEUE, message)
    return Verdict(
        admitted=False,
        reason=Reason.WAITING_FOR_KUEUE,
        message=message,
        position=view.position,
        ahead=view.position - 1,
    )


def _waits(reason: Reason, message: str) -> Verdict:
    return Verdict(admitted=False, reason=reason, message=message)


def _without_kueue(batch: InferenceBatch, *, released: bool) -> Verdict:
    if released:
        return Verdict(admitted=True, message="it was released before Kueue was taken out of this cluster")
    queue = batch.spec.queue_name
    return _waits(
        Reason.KUEUE_NOT_INSTALLED,
        f"spec.queueName is {queue}, and this cluster does not know Kueue's Workloads, or hides them from the operator: "
        "install Kueue, or make the batch anew without a queueName",
    )


def _not_taken_up(batch: InferenceBatch, job: JobSnapshot | None) -> Verdict:
    queue = batch.spec.queue_name
    if job is None:
        return _waits(Reason.WAITING_FOR_KUEUE, f"LocalQueue {queue}: its Job is about to be made")
    return _waits(
        Reason.WAITING_FOR_KUEUE,
        f"LocalQueue {queue}: Kueue has not taken up the Job {job.name} yet; if it never does, look whether its controller runs, "
        "and whether it has batch/job among its integrations",
    )


def _words(workload: Workload) -> str:
    if workload.active or workload.rests_for_us:
        return workload.says
    return f"{workload.says}: set it to true on Workload {workload.name} to go on"
