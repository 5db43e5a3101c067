"""Builders of ScheduledGenerations and looks at them.

>>> look_at(a_schedule().with_spec(jitterSeconds=600), ticks=[a_tick()], runs=[a_run()])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Self

from builders import NOON, PLACE, a_batch
from fanout_builders import a_fan_out
from headrace.api import labels
from headrace.api.base import JsonObject
from headrace.api.batchstatus import RecordCounts, Summary
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.api.window import DataWindow
from headrace.api.worker import ListReport
from headrace.core.schedule.children import cron_job
from headrace.core.schedule.observed import Listing, Reference, ScheduleObserved, Tick, Upstream, listing_name
from headrace.core.schedule.times import cron_of

NOON_RUN = f"hourly-{int(NOON.timestamp()) // 60}"
"""What the run of noon is called."""


@dataclass(frozen=True)
class ScheduleBuilder:
    """A ScheduledGeneration in the making; every method gives a new builder."""

    spec: Mapping[str, Any]
    name: str = "hourly"
    meta: Mapping[str, Any] = field(default_factory=dict)
    status: ScheduledGenerationStatus = ScheduledGenerationStatus()

    def with_spec(self, **fields: Any) -> Self:
        """Set spec fields, in camelCase."""
        return replace(self, spec={**self.spec, **fields})

    def of_batch(self, **fields: Any) -> Self:
        """With fields of its batch, in camelCase."""
        template = {"inferenceBatch": {**a_batch().spec, **fields}}
        return self.with_spec(template=template)

    def of_fan_out(self, *branches: str, **fields: Any) -> Self:
        """With a fan-out of these branches."""
        return self.with_spec(template={"fanOutJob": {**a_fan_out(*branches).spec, **fields}})

    @property
    def manifest(self) -> JsonObject:
        """As a user writes it."""
        head = {"apiVersion": "headrace.dev/v1alpha1", "kind": "ScheduledGeneration"}
        return {**head, "metadata": {"name": self.name, **self.meta}, "spec": dict(self.spec)}

    def build(self) -> ScheduledGeneration:
        """The object."""
        usual = {"namespace": "default", "uid": f"uid-{self.name}", "generation": 1}
        whole = {**self.manifest, "metadata": {"name": self.name, **usual, **self.meta}}
        return ScheduledGeneration.parse(whole).model_copy(update={"status": self.status})


def a_schedule(schedule: str = "0 * * * *", name: str = "hourly") -> ScheduleBuilder:
    """A batch on the mock engine, at these times."""
    return ScheduleBuilder({"schedule": schedule, "template": {"inferenceBatch": dict(a_batch().spec)}}, name)


def once(moment: datetime, **spec: Any) -> ScheduleBuilder:
    """The same batch, once at a moment."""
    schedule = a_schedule()
    kept = {name: value for name, value in schedule.spec.items() if name != "schedule"}
    return replace(schedule, spec={**kept, "runAt": f"{moment:%Y-%m-%dT%H:%M:%SZ}", **spec})


def triggered(at_least: int = 1, **new_objects: Any) -> ScheduleBuilder:
    """The same batch, whenever there are so many new objects; with fields of `newObjects`, and those of the spec in a second step."""
    schedule = a_schedule().of_batch(input={"uri": "s3://in/*.txt", "format": "text", "objects": "ModifiedInWindow"})
    kept = {name: value for name, value in schedule.spec.items() if name != "schedule"}
    return replace(schedule, spec={**kept, "trigger": {"newObjects": {"atLeast": at_least, **new_objects}}})


def a_look(window: DataWindow, objects: int = 0, made: datetime | None = None, **fields: Any) -> Listing:
    """The Job of a look that has ended; asked for when its window had settled, unless something else is said.

    The oldest object, if there is one, was modified at the beginning of the window.
    """
    oldest = window.start_time if objects else None
    found = ListReport(window=window, objects=objects, oldest_time=oldest)
    told = {"name": listing_name("hourly", window.end_time), "finished": True, "report": found, **fields}
    return Listing(made=made or window.end_time + timedelta(seconds=60), **told)


def a_run_of(window: DataWindow, **spec: Any) -> OurObject:
    """The run that new objects have begun with that window, as soon as it had settled."""
    template = triggered().spec["template"]["inferenceBatch"]
    own = {"input": {**template["input"], "window": window.to_object()}}
    name = f"hourly-{int(window.start_time.timestamp()) // 60}"
    run = a_run(window.end_time, name, **{**own, **spec})
    made = window.end_time + timedelta(seconds=60)
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"creation_timestamp": made})})


def a_tick(time: datetime = NOON, **fields: Any) -> Tick:
    """The Job of a tick of the schedule `hourly`."""
    name = f"hourly-{int(time.timestamp()) // 60}"
    return Tick(**{"name": name, "namespace": "default", "uid": f"uid-{name}", "time": time, **fields})


def a_run(time: datetime = NOON, name: str | None = None, **spec: Any) -> OurObject:
    """Its run, made with the tick, and due then."""
    name, told = name or a_tick(time).name, f"{time:%Y-%m-%dT%H:%M:%SZ}"
    meta = {
        "annotations": {labels.TICK: told, labels.DUE: told},
        "creationTimestamp": told,
    }
    return a_batch(name).with_spec(**spec).with_meta(**meta).build()


def begun(run: OurObject, after: float) -> OurObject:
    """The run with its first record begun, so many seconds after it was made."""
    at = (run.metadata.creation_timestamp or NOON) + timedelta(seconds=after)
    return run.model_copy(update={"status": run.status.model_copy(update={"first_record_time": at})})


def ended(run: OurObject, reason: Reason | None = None, after: float = 60) -> OurObject:
    """The run at its end, so many seconds after its beginning; `reason`: why it has failed."""
    begun = run.metadata.creation_timestamp or NOON
    kind, why = (
        (ConditionType.FAILED, reason) if reason is not None else (ConditionType.COMPLETE, Reason.RECORDS_PROCESSED)
    )
    at = begun + timedelta(seconds=after)
    condition = Condition(
        type=kind, status=ConditionStatus.TRUE, reason=why, message="it is over", last_transition_time=at
    )
    changes = {
        "conditions": (condition,),
        "completion_time": at,
        "records": RecordCounts(total=10, succeeded=10),
        "summary": Summary(state="Complete" if reason is None else str(reason)),
    }
    return run.model_copy(update={"status": run.status.model_copy(update=changes)})


def look_at(
    schedule: ScheduleBuilder | ScheduledGeneration,
    *,
    ticks: Iterable[Tick] = (),
    runs: Iterable[OurObject] = (),
    after: float = 0,
    cron: JsonObject | str | None = "as it should be",
    upstream: Mapping[Reference, Upstream] | None = None,
    looks: Iterable[Listing] = (),
) -> ScheduleObserved:
    """One look, so many seconds after noon; its CronJob is there unless something else is said."""
    built = schedule.build() if isinstance(schedule, ScheduleBuilder) else schedule
    found = _cron_job(built) if isinstance(cron, str) else cron
    by_name = {run.metadata.name: run for run in runs}
    now = NOON + timedelta(seconds=after)
    return ScheduleObserved(built, now, found, tuple(ticks), by_name, upstream or {}, tuple(looks), PLACE)


def _cron_job(schedule: ScheduledGeneration) -> JsonObject | None:
    """As it should be."""
    if schedule.spec.schedule is None:
        return None
    return cron_job(schedule, cron_of(schedule), suspend=schedule.spec.suspend)
