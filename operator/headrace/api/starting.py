"""What the runs of a schedule wait for, besides the tick: the hours in which they may work, and objects that must be complete."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, Name, Rule

TimeZone = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")]
"""A name of the time zone database."""
TimeOfDay = Annotated[str, Field(min_length=5, max_length=5, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""On the clock of a time zone, such as 22:00."""


class Day(StrEnum):
    """A day of the week."""

    MONDAY = "Monday"
    TUESDAY = "Tuesday"
    WEDNESDAY = "Wednesday"
    THURSDAY = "Thursday"
    FRIDAY = "Friday"
    SATURDAY = "Saturday"
    SUNDAY = "Sunday"


class AllowedWindow(ApiModel):
    """A part of some days in which runs may work, such as the nights."""

    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7)] = tuple(Day)
    """On which it begins; by default on each."""
    start: TimeOfDay
    """When it begins, such as 22:00."""
    end: TimeOfDay
    """When it ends; on the next day when that is not after its start: from 22:00 to 06:00 is a night, from 00:00 to 00:00 a whole day."""
    time_zone: TimeZone | None = None
    """Of its clock; by default that of the schedule."""


class OnWindowEnd(StrEnum):
    """What becomes of a run that is not over when the window ends that it has begun in."""

    CONTINUE = "Continue"
    """It goes on."""
    SUSPEND = "Suspend"
    """It puts its work away and gives its GPUs back, and goes on when a window opens."""


class DependencyKind(StrEnum):
    """The kinds that a schedule may depend on."""

    INFERENCE_BATCH = "InferenceBatch"
    FAN_OUT_JOB = "FanOutJob"
    SCHEDULED_GENERATION = "ScheduledGeneration"


class Dependency(ApiModel):
    """An object of the same namespace that must be complete before a run may begin."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!self.sameWindow || self.kind == 'ScheduledGeneration'",
            message="sameWindow may only be set of a ScheduledGeneration: other kinds run once",
            check=lambda it: not it.same_window or it.kind == DependencyKind.SCHEDULED_GENERATION,
            field="sameWindow",
        ),
    )

    kind: DependencyKind
    """Its kind. An InferenceBatch or a FanOutJob must be Complete; of a ScheduledGeneration a run must have been."""
    name: Name
    """Its name."""
    same_window: bool = False
    """Of a ScheduledGeneration: its complete runs must cover the whole window of the run that waits; any earlier ones do not count."""
    max_age_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """It must not have been complete for longer than this."""


class OnUnmet(StrEnum):
    """What becomes of a tick while something that it depends on is not there."""

    WAIT = "Wait"
    """It waits, but not longer than startingDeadlineSeconds."""
    SKIP = "Skip"
    """It is passed over, and is not run."""
