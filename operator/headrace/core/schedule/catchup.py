"""Ticks that nobody was there to notice: the API server or its controllers were down. The CronJob itself makes up for the last one at most.

What was missed is written into the status before anything is run, and taken out of it when its run is seen. So each is run once,
whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.schedulepolicies import CatchUpPolicy
from headrace.core.schedule.failures import paused
from headrace.core.schedule.observed import ScheduleObserved, run_name
from headrace.core.schedule.times import effective, ticks_between

PROMPT_SECONDS = 60
"""A tick whose Job is made later than this counts as missed, where missed ticks are not to be made up for."""


def starting_deadline_seconds(schedule: ScheduledGeneration) -> int | None:
    """How late the CronJob may begin a tick."""
    if schedule.spec.catch_up.policy == CatchUpPolicy.NONE:
        return schedule.spec.starting_deadline_seconds or PROMPT_SECONDS
    return schedule.spec.starting_deadline_seconds


def next_missed(observed: ScheduleObserved) -> datetime | None:
    """The missed tick that is to be run now: the oldest that has no run, once no other of them is being run."""
    jobs = {tick.name for tick in observed.ticks}
    busy = any(not run.status.finished for name, run in observed.runs.items() if name not in jobs)
    name = observed.schedule.metadata.name
    open_ = (tick for tick in observed.schedule.status.missed if run_name(name, tick) not in observed.runs)
    return None if busy else next(open_, None)


def told(observed: ScheduleObserved, given_up: Collection[datetime] = ()) -> dict[str, Any]:
    """The status fields that remember what was missed, without the ticks that are not to be run after all."""
    schedule = observed.schedule
    if schedule.spec.catch_up.policy != CatchUpPolicy.ALL or schedule.spec.schedule is None:
        return {"missed": (), "watched_time": None}
    since = schedule.status.watched_time
    if since is None or _begins_anew(observed):
        return {"missed": _without_runs(observed, schedule.status.missed), "watched_time": observed.now}
    missed = (tick for tick in schedule.status.missed if tick not in given_up)
    found = _without_runs(observed, (*missed, *_noticed(observed, since)))
    return {"missed": found[-schedule.spec.catch_up.max :], "watched_time": since}


def _begins_anew(observed: ScheduleObserved) -> bool:
    """While a schedule is suspended nothing is missed, and one that was changed has missed nothing of what it says now."""
    schedule = observed.schedule
    return schedule.spec.suspend or paused(observed) or schedule.status.effective_schedule != effective(schedule)


def _noticed(observed: ScheduleObserved, since: datetime) -> tuple[datetime, ...]:
    """Ticks between the last one that had come before and the newest one: Jobs come in order, so what is not there was never made."""
    status, native = observed.schedule.status, [tick for tick in observed.ticks if not tick.asked_for]
    newest = max((tick.time for tick in native), default=None)
    last = max(since, status.last_schedule_time or since)
    if newest is None or newest <= last:
        return ()
    come = {tick.time for tick in native}
    between = ticks_between(observed.schedule, last + timedelta(microseconds=1), newest)
    return tuple(tick for tick in between if tick not in come)


def _without_runs(observed: ScheduleObserved, ticks: tuple[datetime, ...]) -> tuple[datetime, ...]:
    name = observed.schedule.metadata.name
    return tuple(tick for tick in ticks if run_name(name, tick) not in observed.runs)
