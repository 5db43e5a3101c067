"""A schedule whose runs fail one after the other is suspended, so that it burns no GPU night after night.

It goes on when a run is complete, such as one that somebody has asked for by hand, or when the spec is changed, because somebody has
looked after it then. Failures are counted from the runs that there are, so those that count are kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from headrace.api.kinds import OurObject
from headrace.api.meta import Condition
from headrace.api.reasons import ConditionType, Reason
from headrace.core.schedule.observed import ScheduleObserved, latest_first
from headrace.core.schedule.retries import failure, is_over


def paused(observed: ScheduleObserved) -> bool:
    """Whether no more ticks are to come because too many runs in a row have failed."""
    limit, pause = observed.schedule.spec.suspend_after_failures, _pause(observed)
    if limit is None:
        return False
    if pause is not None and not _looked_after(observed, pause):
        success = last_success(observed)
        return success is None or success <= pause.last_transition_time
    return len(counting(observed)) >= limit


def counting(observed: ScheduleObserved) -> list[OurObject]:
    """The runs in a row that have failed, the latest first. One that was cancelled, or replaced, says nothing."""
    since = latest((last_success(observed), _since(observed)))
    return [
        run
        for run in latest_first(observed)
        if failure(run) not in (None, Reason.CANCELLED) and is_over(observed, run) and _ended_after(run, since)
    ]


def told(observed: ScheduleObserved) -> dict[str, Any]:
    """The status fields that tell of failures."""
    return {"failures": len(counting(observed)), "failures_since": _since(observed)}


def last_success(observed: ScheduleObserved) -> datetime | None:
    """When a run was last complete."""
    complete = (run.status for run in observed.runs.values() if run.status.is_true(ConditionType.COMPLETE))
    return latest((observed.schedule.status.last_successful_time, *(status.completion_time for status in complete)))


def latest(moments: Iterable[datetime | None]) -> datetime | None:
    """The last of those that are known; None when none is."""
    return max((moment for moment in moments if moment is not None), default=None)


def _pause(observed: ScheduleObserved) -> Condition | None:
    """The condition that says that it was suspended after failures; None when it was not."""
    status = observed.schedule.status
    found = status.condition(ConditionType.SUSPENDED) if status.is_true(ConditionType.SUSPENDED) else None
    return found if found is not None and found.reason == Reason.PAUSED_BY_FAILURES else None


def _looked_after(observed: ScheduleObserved, pause: Condition) -> bool:
    return pause.observed_generation != observed.schedule.metadata.generation


def _since(observed: ScheduleObserved) -> datetime | None:
    pause = _pause(observed)
    resumed = pause is not None and _looked_after(observed, pause)
    return observed.now if resumed else observed.schedule.status.failures_since


def _ended_after(run: OurObject, moment: datetime | None) -> bool:
    ended = run.status.completion_time
    return moment is None or ended is None or ended > moment
