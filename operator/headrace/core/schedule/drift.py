"""By how much the runs of a schedule begin later than they are due: first record begun, less tick and jitter.

When a run was due stands on the run itself. So its drift stays what it was, whatever becomes of the schedule and of the Job of its tick.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from headrace.api import labels
from headrace.api.kinds import OurObject, OurStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.conditions import Finding, false, true
from headrace.core.schedule.observed import ScheduleObserved, latest_first


def due_of(run: OurObject) -> datetime | None:
    """When a run was to begin; None for one that no schedule has made."""
    told = run.metadata.annotations.get(labels.DUE)
    return datetime.fromisoformat(told) if told is not None else None


def drift(run: OurObject) -> timedelta | None:
    """By how much the first record of a run was begun late; None as long as none was. Clocks that differ make nothing begin early."""
    due, begun = due_of(run), run.status.first_record_time
    return max(timedelta(0), begun - due) if due is not None and begun is not None else None


def just_begun(run: OurObject, after: OurStatus) -> timedelta | None:
    """The drift of a run, where it is this status, written in place of the one that the run has, that makes it known."""
    known = run.status.first_record_time is not None
    return None if known else drift(run.model_copy(update={"status": after}))


def told(observed: ScheduleObserved) -> dict[str, Any]:
    """The status field that tells of the last run that was begun."""
    known = (late for run in latest_first(observed) if (late := drift(run)) is not None)
    last = next(known, None)
    return {"drift_seconds": seconds(last)} if last is not None else {}


def seconds(late: timedelta | None) -> int | None:
    """As a status says it."""
    return None if late is None else int(late.total_seconds())


def findings(observed: ScheduleObserved) -> tuple[Finding, ...]:
    """Whether the last run that was begun, or should have been by now, was begun too late."""
    limit, kind = _limit(observed), ConditionType.DRIFT_EXCEEDED
    if limit is None:
        known = observed.schedule.status.condition(kind) is not None
        return (false(kind, Reason.NO_LIMIT, "spec.maxDriftSeconds is not set"),) if known else ()
    for run in latest_first(observed):
        late, name = drift(run), run.metadata.name
        if late is not None:
            message = f"{name} was begun {seconds(late)} s after it was due; spec.maxDriftSeconds is {seconds(limit)}"
            return (
                true(kind, Reason.BEGUN_LATE, message) if late > limit else false(kind, Reason.BEGUN_IN_TIME, message),
            )
        at = _too_late_at(run, limit)
        if at is not None and observed.now >= at:
            message = f"{name} was due at {due_of(run):%Y-%m-%dT%H:%M:%SZ}, and no record of it has been begun: its conditions say why"
            return (true(kind, Reason.NOT_BEGUN, message),)
    return ()


def next_excess(observed: ScheduleObserved) -> datetime | None:
    """When the first run that is not begun yet will be too late."""
    limit = _limit(observed)
    if limit is None:
        return None
    moments = (
        at for run in observed.runs.values() if (at := _too_late_at(run, limit)) is not None and at > observed.now
    )
    return min(moments, default=None)


def _too_late_at(run: OurObject, limit: timedelta) -> datetime | None:
    """From when on a run is too late; None for one that was begun, or that is over without a record."""
    due = due_of(run)
    waits = run.status.first_record_time is None and not run.status.finished
    return due + limit + timedelta(seconds=1) if due is not None and waits else None


def _limit(observed: ScheduleObserved) -> timedelta | None:
    allowed = observed.schedule.spec.max_drift_seconds
    return timedelta(seconds=allowed) if allowed is not None else None
