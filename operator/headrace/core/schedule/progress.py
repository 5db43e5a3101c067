"""What a person wants to read about a ScheduledGeneration, and how it stands in few words."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulestatus import ScheduledGenerationStatus, ScheduleSummary


class Standing(StrEnum):
    """How a schedule stands; of several that are true, the first."""

    NOT_READY = "NotReady"
    PAUSED = "Paused"
    """Suspended, because too many runs in a row have failed."""
    DRIFTED = "Drifted"
    """Suspended, because its data have drifted."""
    SUSPENDED = "Suspended"
    LATE = "Late"
    """Its runs are begun too late."""
    SCHEDULED = "Scheduled"


def standing(status: ScheduledGenerationStatus) -> Standing:
    """How a schedule of that status stands."""
    if not status.is_true(ConditionType.READY):
        return Standing.NOT_READY
    suspended = status.condition(ConditionType.SUSPENDED)
    if suspended is not None and status.is_true(ConditionType.SUSPENDED):
        return _PAUSES.get(suspended.reason, Standing.SUSPENDED)
    return Standing.LATE if status.is_true(ConditionType.DRIFT_EXCEEDED) else Standing.SCHEDULED


_PAUSES: Mapping[str, Standing] = {
    Reason.PAUSED_BY_FAILURES: Standing.PAUSED,
    Reason.PAUSED_BY_DRIFT: Standing.DRIFTED,
}


def summary(status: ScheduledGenerationStatus) -> ScheduleSummary:
    """The display columns for a status."""
    next_time = next(iter(status.next_schedule_times), None)
    return ScheduleSummary(
        state=_state(status), next=f"{next_time:%Y-%m-%dT%H:%M:%SZ}" if next_time is not None else ""
    )


def _state(status: ScheduledGenerationStatus) -> str:
    ready = status.condition(ConditionType.READY)
    if not status.is_true(ConditionType.READY):
        return str(ready.reason) if ready is not None else ""
    if standing(status) in (Standing.PAUSED, Standing.DRIFTED, Standing.SUSPENDED):
        return str(standing(status))
    waits = status.condition(ConditionType.WAITING)
    if waits is not None and status.is_true(ConditionType.WAITING):
        return str(waits.reason)
    listed = status.condition(ConditionType.INPUT_LISTED)
    if listed is not None and listed.status == ConditionStatus.FALSE:
        return str(listed.reason)
    return "Running" if status.active or ready is None else str(ready.reason)
