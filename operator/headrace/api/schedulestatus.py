"""What a ScheduledGeneration says of itself: what has run, and what is due."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, Count, Name, ShortText, Time
from headrace.api.batchstatus import RecordCounts
from headrace.api.meta import Conditions, ConditionsStatus
from headrace.api.trigger import TriggerStatus

SHOWN_RUNS = 10


class Run(ApiModel):
    """One run, as the status tells of it."""

    name: Name
    """Of the InferenceBatch or FanOutJob."""
    tick: Time
    """The time of the schedule that it is for; of a trigger, the end of its window."""
    window_start: Time
    """The first moment of its data."""
    window_end: Time
    """The first moment after them."""
    state: ShortText = "Pending"
    """What it is doing. For people: no program may read it."""
    records: RecordCounts = Field(default_factory=RecordCounts)
    completion_time: Time | None = None
    """When it was Complete or Failed."""
    drift_seconds: Count | None = None
    """How late its first record was begun, jitter not counted; none before that."""
    retries: Count = 0
    """How often it has been tried again."""
    retry_time: Time | None = None
    """When it is tried again, after it has failed."""


class ScheduleSummary(ApiModel):
    """What `get` shows. For people: no program may read it."""

    state: ShortText = ""
    """What the schedule is doing."""
    next: ShortText = ""
    """When the next run is due."""


class ScheduledGenerationStatus(ConditionsStatus):
    """What was observed."""

    conditions: Conditions = ()
    """Ready, Suspended, DriftExceeded, Waiting, InputListed."""
    effective_schedule: Annotated[str, Field(max_length=1024)] | None = None
    """The schedule as the CronJob has it and its time zone, the one moment, or what begins a run; and by how much each run is late on
    purpose."""
    next_schedule_times: Annotated[
        tuple[Annotated[Time, Field(description="When one run is due.")], ...],
        Field(max_length=3, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """When the next runs are due, jitter and allowed windows included."""
    last_schedule_time: Time | None = None
    """The last tick that has come; of a runAt, the last one that was run; of a trigger, where the window of the last run ends."""
    last_successful_time: Time | None = None
    """When a run was last complete."""
    failures: Count = 0
    """Runs in a row that have failed."""
    failures_since: Time | None = None
    """What failed before that is not counted: it is when a schedule that was suspended after failures went on by the will of its owner."""
    missed: Annotated[
        tuple[Annotated[Time, Field(description="A tick.")], ...],
        Field(max_length=100, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Ticks that were missed and are still to be run, the oldest first."""
    watched_time: Time | None = None
    """Where missed ticks are made up for: since when. Before that the schedule was another, or suspended, or was not there."""
    trigger: TriggerStatus | None = None
    """Of a trigger: up to where objects have had their run, and what has come since."""
    active: Count = 0
    """Runs that are not over."""
    drift_seconds: Count | None = None
    """That of the last run in which a record was begun."""
    runs: Annotated[
        tuple[Run, ...],
        Field(
            max_length=SHOWN_RUNS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """The last runs, the latest first."""
    summary: ScheduleSummary = Field(default_factory=ScheduleSummary)
