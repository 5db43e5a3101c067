"""From the cache to one consistent look at a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import Report, Role, parse_report
from headrace.core.observed import Installation, JobSnapshot, Observed, PodSnapshot, Verdict, WorkerReport
from headrace.shells.kube.cache import Cache, Key, controller_uid
from headrace.shells.kube.resources import JOBS, PODS


def observe(
    cache: Cache,
    batch: InferenceBatch,
    live: Mapping[str, Report],
    installation: Installation,
    now: datetime,
) -> Observed:
    """One look at a batch. `live` has the last word of running pods, by their uid."""
    key: Key = (batch.metadata.namespace, batch.metadata.name)
    jobs = [
        JobSnapshot.from_object(job) for job in cache.children(JOBS, key) if controller_uid(job) == batch.metadata.uid
    ]
    # A retry begins anew: what was said in an earlier round, by pods that are not gone yet, is no longer true.
    current = {job.uid for job in jobs if job.round == batch.retries_asked}
    pods = [pod for pod in cache.children(PODS, key) if controller_uid(pod) in current]
    pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
    return Observed(
        batch=batch,
        now=now,
        jobs=tuple(jobs),
        pods=tuple(PodSnapshot.from_object(pod) for pod in pods),
        reports=tuple(report for pod in pods for report in _reports(pod, live)),
        verdict=Verdict(admitted=True),
        installation=installation,
    )


def _reports(pod: JsonObject, live: Mapping[str, Report]) -> Iterator[WorkerReport]:
    role = Role(pod["metadata"]["labels"][labels.ROLE])
    for status in pod.get("status", {}).get("containerStatuses", ()):
        ended = status.get("state", {}).get("terminated")
        if ended is not None:
            report = parse_report(ended.get("message", ""))
            if report is not None:
                yield WorkerReport(role, report, final=True, exit_code=ended["exitCode"])
            return
    report = live.get(pod["metadata"]["uid"])
    if report is not None:
        yield WorkerReport(role, report, final=False)
