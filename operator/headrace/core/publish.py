"""When a status is worth writing: a transition at once, mere progress at most every five seconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

from headrace.api.batchstatus import InferenceBatchStatus
from headrace.api.kinds import OurStatus
from headrace.api.schedulestatus import ScheduledGenerationStatus

PROGRESS_INTERVAL = timedelta(seconds=5)


Status: TypeAlias = OurStatus | ScheduledGenerationStatus


def write_due(written: Status, desired: Status, last_write: datetime | None, now: datetime) -> timedelta | None:
    """How long to wait before writing; zero for now, None when there is nothing new to write."""
    if written == desired:
        return None
    if last_write is None or _transition(written, desired):
        return timedelta(0)
    # A clock that was set back must not hold the status back for as long.
    return min(PROGRESS_INTERVAL, max(timedelta(0), last_write + PROGRESS_INTERVAL - now))


def _transition(written: Status, desired: Status) -> bool:
    return _essence(written) != _essence(desired)


def _essence(status: Status) -> object:
    conditions = tuple((c.type, c.status, c.reason, c.observed_generation) for c in status.conditions)
    if isinstance(status, ScheduledGenerationStatus):
        runs = tuple((run.name, run.completion_time) for run in status.runs)
        cursor = status.trigger.cursor_time if status.trigger is not None else None
        times = (status.next_schedule_times, status.missed, status.watched_time, cursor)
        return conditions, status.observed_generation, status.effective_schedule, times, runs
    return (
        conditions,
        status.observed_generation,
        status.retries,
        _parts(status),
        status.output,
        status.validation,
    )


def _parts(status: OurStatus) -> object:
    """The parts that there are and what they hold, and for branches how they stand."""
    if isinstance(status, InferenceBatchStatus):
        return status.shards.total, status.admission, status.parking, tuple((e.name, e.state) for e in status.endpoints)
    return status.branch_counts
