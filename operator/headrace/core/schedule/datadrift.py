"""A schedule whose data have drifted is suspended, where its spec says so: what its runs answer may not be worth much any more.

It goes on when a run is complete that has not drifted, such as one that somebody has asked for by hand, or when the spec is changed,
because somebody has looked after it then. What had drifted by then is not held against it again.
"""

from __future__ import annotations

from datetime import datetime

from headrace.api.kinds import OurObject
from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulepolicies import OnDrift
from headrace.core.schedule.observed import ScheduleObserved


def drifted(observed: ScheduleObserved) -> str | None:
    """What no more ticks come for: the run that has drifted, and how; None while they may come."""
    if observed.schedule.spec.on_drift != OnDrift.PAUSE:
        return None
    found = observed.schedule.status.condition(ConditionType.SUSPENDED)
    suspended = found is not None and found.status == ConditionStatus.TRUE
    if found is not None and suspended and found.observed_generation != observed.schedule.metadata.generation:
        return None  # its owner has looked after it
    last = _last_compared(observed, _since(observed))
    if last is None:  # history may have deleted the run that has drifted
        return found.message if found is not None and suspended and found.reason == Reason.PAUSED_BY_DRIFT else None
    change = last.status.condition(ConditionType.DATA_DRIFT)
    assert change is not None
    return f"{_PAUSED.format(last.metadata.name)}: {change.message}" if change.status == ConditionStatus.TRUE else None


_PAUSED = "no tick comes until a run is complete that has not drifted, or the spec is changed, for spec.onDrift is Pause and {} has drifted"


def _since(observed: ScheduleObserved) -> datetime | None:
    """What was complete before that is not held against the schedule: it is when it went on."""
    found = observed.schedule.status.condition(ConditionType.SUSPENDED)
    return found.last_transition_time if found is not None and found.status == ConditionStatus.FALSE else None


def _last_compared(observed: ScheduleObserved, since: datetime | None) -> OurObject | None:
    """The run that was complete last of those that could be compared."""
    compared: list[tuple[datetime, OurObject]] = []
    for run in observed.runs.values():
        drift, ended = run.status.condition(ConditionType.DATA_DRIFT), run.status.completion_time
        known = (
            drift is not None and drift.status != ConditionStatus.UNKNOWN and run.status.is_true(ConditionType.COMPLETE)
        )
        if known and ended is not None and (since is None or ended > since):
            compared.append((ended, run))
    return max(compared, key=lambda one: one[0], default=(None, None))[1]
