"""The run Job of a batch that Kueue admits, and what is asked of its Workload.

Kueue owns `suspend`, and `parallelism` while the Job runs; so they are in a manifest only while they are ours. Kueue would at once
release again what we suspend. Who wants such a Job to stop makes its Workload inactive, and Kueue suspends it.
"""

from __future__ import annotations

from headrace.api.base import JsonObject
from headrace.api.worker import Role
from headrace.core.admission.demand import allowed_pods
from headrace.core.children import queued_run_job
from headrace.core.observed import JobSnapshot, Observed
from headrace.core.plan import Activation


def queued_run(observed: Observed, *, rest: bool) -> tuple[JsonObject, ...]:
    """The run Job: to be made, once Kueue is there to take it up; or as it is."""
    job = observed.job(Role.RUN)
    if job is None and (rest or observed.kueue is None or not observed.kueue.installed):
        return ()
    made = queued_run_job(observed.batch, observed.installation, allowed_pods(observed.batch))
    if job is None:
        return (made,)
    if not (rest and _nobody_else_stops(observed, job)):
        del made["spec"]["suspend"]
    if rest or not job.suspended:
        del made["spec"]["parallelism"]
    return (made,)


def activations(observed: Observed, *, rest: bool) -> tuple[Activation, ...]:
    """What is to be changed about the Workload: inactive while the batch rests. One that others have made inactive stays so."""
    workload = observed.kueue.workload if observed.kueue is not None else None
    if workload is None or workload.finished:
        return ()
    if rest and workload.active:
        return (Activation(workload.name, workload.uid, active=False),)
    if not rest and not workload.active and workload.rests_for_us:
        return (Activation(workload.name, workload.uid, active=True),)
    return ()


def _nobody_else_stops(observed: Observed, job: JobSnapshot) -> bool:
    """Whether the Job runs although Kueue has no Workload for it: then Kueue is gone, and it is for us to suspend it."""
    return not job.suspended and (observed.kueue is None or observed.kueue.workload is None)
