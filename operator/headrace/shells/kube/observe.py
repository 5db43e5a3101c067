"""From the cache to one consistent look at a batch or a fan-out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.worker import Report, Role, parse_report
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.kueue.verdict import kueue_verdict
from headrace.core.kueue.workload import KueueView
from headrace.core.observed import Installation, JobSnapshot, Observed, PodSnapshot, Verdict, WorkerReport
from headrace.core.planning import about_to_be
from headrace.shells.kube.cache import Cache, Parent, controller_uid
from headrace.shells.kube.resources import BATCHES, JOBS, PODS


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a look can see besides the object itself."""

    cache: Cache
    live: Mapping[str, Report]
    """The last word of running pods, by their uid."""
    verdict: Callable[[InferenceBatch, datetime], Verdict]
    """What admission says of a batch."""
    installation: Installation
    kueue: Callable[[InferenceBatch, JobSnapshot | None], KueueView | None] = lambda _batch, _run: None
    """What Kueue has made of a batch and its run Job; None when it is not asked."""


def observe(sight: Sight, batch: InferenceBatch, now: datetime) -> Observed:
    """One look at a batch. Admission hears of one that Kueue admits as well: what it tells of its model counts for all."""
    work = _work(sight, batch)
    run = next((job for job in work.jobs if job.role == Role.RUN and job.round == batch.retries_asked), None)
    kueue = sight.kueue(batch, run)
    seen = Observed(
        batch=batch,
        now=now,
        jobs=work.jobs,
        pods=work.pods,
        reports=work.reports,
        installation=sight.installation,
        kueue=kueue,
    )
    verdict = sight.verdict(about_to_be(seen), now)
    return replace(seen, verdict=verdict if kueue is None else kueue_verdict(batch, run, kueue))


def observe_fan_out(sight: Sight, fan_out: FanOutJob, now: datetime) -> FanOutObserved:
    """One look at a fan-out and its branches. Raises `InvalidSpec` when a branch is not of this version."""
    work = _work(sight, fan_out)
    found = (
        child
        for child in sight.cache.children(BATCHES, Parent.of(fan_out))
        if controller_uid(child) == fan_out.metadata.uid and labels.BRANCH in child["metadata"]["labels"]
    )
    head = {"apiVersion": labels.API_VERSION, "kind": BATCHES.kind}
    return FanOutObserved(
        fan_out=fan_out,
        now=now,
        children={
            child["metadata"]["labels"][labels.BRANCH]: InferenceBatch.parse({**head, **child}) for child in found
        },
        jobs=work.jobs,
        pods=work.pods,
        reports=work.reports,
        installation=sight.installation,
    )


class _Work(NamedTuple):
    """The Jobs of one object, the pods of the present round, and what they have said."""

    jobs: tuple[JobSnapshot, ...]
    pods: tuple[PodSnapshot, ...]
    reports: tuple[WorkerReport, ...]


def _work(sight: Sight, parent: InferenceBatch | FanOutJob) -> _Work:
    cache = sight.cache
    mine = (j for j in cache.children(JOBS, Parent.of(parent)) if controller_uid(j) == parent.metadata.uid)
    jobs = tuple(JobSnapshot.from_object(job) for job in mine)
    # A retry begins anew: what was said in an earlier round, by pods that are not gone yet, is no longer true.
    current = {job.uid for job in jobs if job.round == parent.retries_asked}
    pods = [pod for pod in cache.children(PODS, Parent.of(parent)) if controller_uid(pod) in current]
    pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
    return _Work(
        jobs,
        tuple(PodSnapshot.from_object(pod) for pod in pods),
        tuple(report for pod in pods for report in _reports(pod, sight.live)),
    )


def _reports(pod: JsonObject, live: Mapping[str, Report]) -> Iterator[WorkerReport]:
    role = Role(pod["metadata"]["labels"][labels.ROLE])
    for status in pod.get("status", {}).get("initContainerStatuses", ()):
        ended = status.get("state", {}).get("terminated")
        report = parse_report(ended.get("message", "")) if ended is not None and ended["exitCode"] else None
        if report is not None and ended is not None:
            yield WorkerReport(role, report, final=True, exit_code=ended["exitCode"])
            return
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
