"""Runs that begin when there is new input: which window the next one has, and what it is called.

Windows follow each other: each begins where the last one ends, at the *cursor*. A run reads what was last modified in its own. So each
object is in the one window that has the moment of its modification, whatever decides when runs begin.

A run is called after the beginning of its window. So of two operators that do not know of each other, only one can begin a run at a cursor.
The cursor is in the status, and moves when the run is seen; until then nothing else begins, and history keeps the run.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace.api.base import FieldError
from headrace.api.kinds import OurObject
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.trigger import NewObjects
from headrace.core.schedule.observed import ScheduleObserved, run_name

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


def watched(schedule: ScheduledGeneration) -> NewObjects | None:
    """What begins its runs; None of a schedule that a clock begins."""
    trigger = schedule.spec.trigger
    return trigger.new_objects if trigger is not None else None


def cursor(schedule: ScheduledGeneration) -> datetime:
    """Where the window of the next run begins."""
    wanted = watched(schedule)
    known = (remembered(schedule), wanted.since if wanted is not None else None)
    moments = (moment.astimezone(UTC).replace(microsecond=0) for moment in known if moment is not None)
    return max(moments, default=_BEGINNING)


def remembered(schedule: ScheduledGeneration) -> datetime | None:
    """Where the window of the last run ends that the status knows of; None before the first."""
    status = schedule.status.trigger
    return status.cursor_time if status is not None else None


def reached(observed: ScheduleObserved) -> datetime | None:
    """Where the window of the last run ends, as the status and the runs that there are tell; None before the first."""
    known = remembered(observed.schedule)
    ends = (end for run in observed.runs.values() if (end := window_end(observed.schedule, run)) is not None)
    return max((*(() if known is None else (known,)), *ends), default=None)


def is_unremembered(observed: ScheduleObserved, run: OurObject) -> bool:
    """Whether the status does not know of a run yet: if it were gone, its objects would have another one."""
    end = window_end(observed.schedule, run)
    return watched(observed.schedule) is not None and end is not None and end > cursor(observed.schedule)


def settled(schedule: ScheduledGeneration, now: datetime) -> datetime:
    """Up to when nothing more will come, in whole seconds: stores tell no finer, and a border must not part what they call equal."""
    wanted = watched(schedule)
    assert wanted is not None
    return now.astimezone(UTC).replace(microsecond=0) - timedelta(seconds=wanted.settle_seconds)


def earliest_end(schedule: ScheduledGeneration) -> datetime:
    """When the next window may end: the one after it begins there, and must be in another minute to have a name of its own."""
    return cursor(schedule).replace(second=0) + _MINUTE


def name_of(schedule: ScheduledGeneration, tick: datetime) -> str:
    """What the run of a tick is called; of a trigger, the next one, whose window ends then."""
    return run_name(schedule.metadata.name, tick if watched(schedule) is None else cursor(schedule))


def begins_when(wanted: NewObjects) -> str:
    """What begins a run, in words."""
    enough = "1 new object" if wanted.at_least == 1 else f"{wanted.at_least} new objects"
    waited = "" if wanted.max_wait_seconds is None else f", or when one has waited {wanted.max_wait_seconds} s"
    return f"on {enough}{waited}"


def name_problems(observed: ScheduleObserved) -> tuple[FieldError, ...]:
    """That another run has the name of the next one: of a tick, from when this schedule had some."""
    schedule = observed.schedule
    name = run_name(schedule.metadata.name, cursor(schedule))
    there = observed.runs.get(name) if watched(schedule) is not None else None
    if there is None or window_end(schedule, there) is not None:
        return ()
    message = (
        f"the next run would be called {name}, and there is one already, of a tick: delete it, or name another minute"
    )
    return (FieldError("spec.trigger.newObjects.since", message),)


def window_end(schedule: ScheduledGeneration, run: OurObject) -> datetime | None:
    """Where the window of a run ends that is called after the beginning of it; None of one of a tick, which is called after the tick."""
    window = run.spec.input.window
    if window is None or run.metadata.name != run_name(schedule.metadata.name, window.start_time):
        return None
    return window.end_time
