"""A run that is wanted once, at a moment. Kubernetes has nothing that ticks once, so there is no CronJob, and no Job of the tick.

That the moment has come is written into the status when its run is seen, and a run stays until then. So it is made once, and not again
when it is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.core.conditions import Finding, false, true
from headrace.core.schedule.observed import ScheduleObserved, run_name
from headrace.core.schedule.times import is_too_late, moment_of


def is_remembered(observed: ScheduleObserved) -> bool:
    """Whether the status says already that the moment has come."""
    return observed.schedule.status.last_schedule_time == moment_of(observed.schedule)


def has_come(observed: ScheduleObserved) -> bool:
    """Whether its run is there, or was."""
    once = moment_of(observed.schedule)
    run = run_name(observed.schedule.metadata.name, once) if once is not None else None
    return is_remembered(observed) or run in observed.runs


def is_missed(observed: ScheduleObserved) -> bool:
    """Whether it is too late to begin the run."""
    once = moment_of(observed.schedule)
    return once is not None and not has_come(observed) and is_too_late(observed.schedule, once, observed.now)


def remembered(observed: ScheduleObserved, given_up: Collection[datetime]) -> dict[str, Any]:
    """The status field that says whether the moment has come; Jobs of a CronJob that there was before say nothing about it."""
    once, known = moment_of(observed.schedule), observed.schedule.status.last_schedule_time
    return {"last_schedule_time": once if once in given_up or has_come(observed) else known}


def is_news(observed: ScheduleObserved, status: ScheduledGenerationStatus) -> bool:
    """Whether the status says for the first time that the moment has come: there is more to be said about it then."""
    return moment_of(observed.schedule) is not None and status.last_schedule_time != (
        observed.schedule.status.last_schedule_time
    )


def readiness(observed: ScheduleObserved) -> Finding:
    """Whether the run will come, and why not."""
    deadline = observed.schedule.spec.starting_deadline_seconds
    if has_come(observed):
        return true(ConditionType.READY, Reason.RUN_AT_PASSED, "runAt has come; set another one for another run")
    if is_missed(observed):
        message = f"it could not begin within startingDeadlineSeconds ({deadline}) of runAt: set another one"
        return false(ConditionType.READY, Reason.MISSED, message)
    return true(ConditionType.READY, Reason.SCHEDULED, "it is run once")
