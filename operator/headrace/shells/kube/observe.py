"""From the cache to one consistent look at an object of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from headrace.api import labels
from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.fanoutjob import FanOutJob
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject, kind_named
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.worker import Report, Role, parse_report
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.kueue.verdict import kueue_verdict
from headrace.core.kueue.workload import KueueView
from headrace.core.observed import Installation, JobSnapshot, Observed, PodSnapshot, Verdict, WorkerReport
from headrace.core.planning import about_to_be
from headrace.core.schedule.observed import Listing, Reference, ScheduleObserved, Tick, Upstream
from headrace.shells.kube.cache import Cache, Parent, controller_uid
from headrace.shells.kube.resources import BATCHES, CRON_JOBS, FAN_OUTS, JOBS, PODS, SCHEDULES, Resource, of_kind

MOST_UPSTREAM = 100
"""How many objects are looked at for one schedule. Beyond, a circle is not noticed: its schedules wait, and say for what."""


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
        earlier=_earlier(sight.cache, batch),
    )
    verdict = sight.verdict(about_to_be(seen), now)
    return replace(seen, verdict=verdict if kueue is None else kueue_verdict(batch, run, kueue))


def _earlier(cache: Cache, batch: InferenceBatch) -> InferenceBatch | None:
    """The batch that another one names to be resumed."""
    wanted = batch.spec.resume_from
    if wanted is None or wanted.name is None:
        return None
    found = _parsed(cache.get(BATCHES, Parent(BATCHES, batch.metadata.namespace, wanted.name).key), BATCHES)
    return found if isinstance(found, InferenceBatch) else None


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


def observe_schedule(sight: Sight, schedule: ScheduledGeneration, now: datetime) -> ScheduleObserved:
    """One look at a schedule, its ticks and its runs. Raises `InvalidSpec` when a run is not of this version."""
    cache, parent, uid = sight.cache, Parent.of(schedule), schedule.metadata.uid
    cron = next((it for it in cache.children(CRON_JOBS, parent) if controller_uid(it) == uid), None)
    jobs = cache.children(JOBS, parent) if cron is not None else []
    found = _runs(cache, parent, uid)
    return ScheduleObserved(
        schedule=schedule,
        now=now,
        cron_job=cron,
        ticks=tuple(Tick.from_object(job) for job in jobs if cron and controller_uid(job) == cron["metadata"]["uid"]),
        runs={run.metadata.name: run for run in found},
        upstream=_upstream(cache, schedule),
        listings=tuple(_listings(cache, parent, uid)),
        installation=sight.installation,
    )


def _listings(cache: Cache, parent: Parent, uid: str) -> Iterator[Listing]:
    """The looks of a schedule at what is new."""
    for job in cache.children(JOBS, parent):
        if controller_uid(job) == uid and "deletionTimestamp" not in job["metadata"]:
            pods = [pod for pod in cache.children(PODS, parent) if controller_uid(pod) == job["metadata"]["uid"]]
            pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
            said = (report for pod in pods for report in _reports(pod, {}))
            yield Listing.of(job, map(PodSnapshot.from_object, pods), said)


def _runs(cache: Cache, parent: Parent, uid: str) -> list[OurObject]:
    """The runs of a schedule."""
    return [
        model.parse({"apiVersion": labels.API_VERSION, "kind": resource.kind, **run})
        for resource, model in ((BATCHES, InferenceBatch), (FAN_OUTS, FanOutJob))
        for run in cache.children(resource, parent)
        if controller_uid(run) == uid
    ]


def _upstream(cache: Cache, schedule: ScheduledGeneration) -> dict[Reference, Upstream]:
    """What a schedule depends on, and the schedules beyond, as far as circles are looked for."""
    found: dict[Reference, Upstream] = {}
    todo: list[Reference] = [(one.kind, one.name) for one in schedule.spec.depends_on]
    while todo and len(found) < MOST_UPSTREAM:
        reference = todo.pop(0)
        if reference in found:
            continue
        resource, name = of_kind(reference[0]), reference[1]
        parent = Parent(resource, schedule.metadata.namespace, name)
        one = _parsed(cache.get(resource, parent.key), resource)
        is_schedule = isinstance(one, ScheduledGeneration)
        found[reference] = Upstream(one, tuple(_runs(cache, parent, one.metadata.uid)) if one and is_schedule else ())
        todo += (
            [(SCHEDULES.kind, next_one) for next_one in one.upstream] if isinstance(one, ScheduledGeneration) else []
        )
    return found


def _parsed(obj: JsonObject | None, resource: Resource) -> OurObject | ScheduledGeneration | None:
    """The object; None when there is none, or one of another version, of which nothing is known."""
    kind = kind_named(resource.kind)
    assert kind is not None
    try:
        found = kind.model.parse({"apiVersion": labels.API_VERSION, "kind": resource.kind, **obj}) if obj else None
    except InvalidSpec:
        return None
    assert found is None or isinstance(found, OurObject | ScheduledGeneration)
    return found


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
