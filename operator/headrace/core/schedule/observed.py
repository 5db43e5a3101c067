"""What `reconcile` looks at: one frozen snapshot of a ScheduledGeneration, of its CronJob, its ticks and its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.api.meta import ObjectMeta
from headrace.api.reasons import Reason
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow
from headrace.api.worker import ListReport
from headrace.core.observed import Installation, JobSnapshot, PodSnapshot, WorkerReport

Reference: TypeAlias = tuple[str, str]
"""Kind and name of an object in the namespace of the schedule."""
SCHEDULED_TIMESTAMP = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""Annotation of the CronJob controller on a Job: the tick that it is for. One that a user has made from the CronJob has none."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The Job that the CronJob controller has made for one tick. No pod belongs to it: it is over when its run is."""

    name: str
    namespace: str
    uid: str
    time: datetime
    """The tick; for a Job that a user has made from the CronJob, when that was."""
    asked_for: bool = False
    """A user has made it."""
    started: bool = False
    finished: bool = False

    @classmethod
    def from_object(cls, job: Mapping[str, Any]) -> Tick:
        """Read a `batch/v1` Job of a CronJob."""
        metadata, status = ObjectMeta.parse(job["metadata"]), job.get("status", {})
        ends = [
            c for c in status.get("conditions", ()) if c["type"] in ("Complete", "Failed") and c["status"] == "True"
        ]
        told = metadata.annotations.get(SCHEDULED_TIMESTAMP)
        made = metadata.creation_timestamp
        assert made is not None
        return cls(
            name=metadata.name,
            namespace=metadata.namespace,
            uid=metadata.uid,
            time=datetime.fromisoformat(told) if told is not None else made,
            asked_for=told is None,
            started="startTime" in status,
            finished=bool(ends),
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """The Job of one look at what is new."""

    name: str
    made: datetime
    """When it was asked for."""
    finished: bool = False
    failed: bool = False
    why: str = ""
    """What it has failed of."""
    report: ListReport | None = None
    """What it has found; None also when its pod was deleted before anybody had heard of that."""
    obstacle: Reason | None = None
    """What keeps its pod from starting."""

    @property
    def until(self) -> datetime:
        """Up to when it lists."""
        return datetime.fromtimestamp(int(self.name.rpartition("-")[2]), UTC)

    @property
    def window(self) -> DataWindow | None:
        """What it has listed; None before it has said so."""
        return self.report.window if self.report is not None else None

    @classmethod
    def of(cls, job: Mapping[str, Any], pods: Iterable[PodSnapshot], said: Iterable[WorkerReport]) -> Listing:
        """From the Job, its pods, and what these have said, the first before the others."""
        snapshot, last = JobSnapshot.from_object(job), list(said)
        reports = (it.report for it in reversed(last) if it.ended_well)
        failure = next((it.report.failure for it in reversed(last) if it.report.failure is not None), None)
        stuck = next((pod for pod in pods if pod.obstacle is not None), None)
        made = ObjectMeta.parse(job["metadata"]).creation_timestamp
        assert made is not None
        told = f"{failure.reason}: {failure.message}" if failure is not None else snapshot.failure_message
        return cls(
            name=snapshot.name,
            made=made,
            finished=snapshot.finished,
            failed=snapshot.failed,
            why=stuck.message if stuck is not None else told,
            report=next((it for it in reports if isinstance(it, ListReport)), None) if snapshot.complete else None,
            obstacle=stuck.obstacle if stuck is not None else None,
        )


def listing_name(schedule: str, until: datetime) -> str:
    """What the Job is called that lists what is new up to a moment, in whole seconds."""
    return f"{schedule}-list-{int(until.timestamp())}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """What is known of an object that a schedule depends on."""

    found: OurObject | ScheduledGeneration | None = None
    """The object itself; None when there is none."""
    runs: tuple[OurObject, ...] = ()
    """Of a ScheduledGeneration: its runs, as far as they are kept."""


@dataclass(frozen=True, slots=True)
class ScheduleObserved:
    """One consistent look at one ScheduledGeneration."""

    schedule: ScheduledGeneration
    now: datetime
    cron_job: JsonObject | None = None
    """Its CronJob, as it is in the cluster."""
    ticks: tuple[Tick, ...] = ()
    """Jobs of the CronJob that are there, whether they have ended or not."""
    runs: Mapping[str, OurObject] = field(default_factory=dict)
    """Its runs by name."""
    upstream: Mapping[Reference, Upstream] = field(default_factory=dict)
    """What it depends on, and the schedules that those depend on in turn."""
    listings: tuple[Listing, ...] = ()
    """The looks at what is new whose Jobs are there."""
    installation: Installation = field(default_factory=Installation)

    @property
    def schedules(self) -> dict[str, ScheduledGeneration]:
        """Those that it depends on, and those that these depend on in turn, by their names."""
        found = (one.found for one in self.upstream.values())
        return {one.metadata.name: one for one in found if isinstance(one, ScheduledGeneration)}


def run_name(schedule: str, tick: datetime) -> str:
    """What the run of a tick is called, as the CronJob controller calls the Job of the tick."""
    return f"{schedule}-{int(tick.timestamp()) // 60}"


def tick_of(run: OurObject) -> datetime | None:
    """The time of the schedule that a run is for; None when nobody has written it down."""
    told = run.metadata.annotations.get(labels.TICK)
    return datetime.fromisoformat(told) if told is not None else run.metadata.creation_timestamp


def latest_first(observed: ScheduleObserved) -> list[OurObject]:
    """The runs by their ticks."""
    return sorted(
        observed.runs.values(), key=lambda run: (tick_of(run) or observed.now, run.metadata.name), reverse=True
    )
