"""Another try for a run that has failed, as the schedule's `failureBackoff` says.

The Job of its tick stays open meanwhile: as with any Job that tries its pods again, the tick has not failed before its last try has. So
`Forbid` lets no later tick begin between two tries, and a run whose Job is gone or has ended is never tried again. A run that new objects
have begun has no such Job; it is tried again as long as it is there.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.api import labels
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulepolicies import FailureBackoff
from headrace.core.schedule.observed import ScheduleObserved
from headrace.core.schedule.trigger import window_end

_FOR_GOOD = frozenset({Reason.CANCELLED, Reason.INVALID_SPEC, Reason.INPUT_INVALID, Reason.BUDGET_EXCEEDED})
"""What no other try would change."""


def is_over(observed: ScheduleObserved, run: OurObject) -> bool:
    """Whether nothing more will come of a run: it has ended, and nobody tries it again."""
    return run.status.finished and not run.retry_asked and retry_time(observed, run) is None


def retry_time(observed: ScheduleObserved, run: OurObject) -> datetime | None:
    """When a run that has failed is tried again; None for one that has not failed, or has had its last try."""
    wanted, failed, ended = observed.schedule.spec.failure_backoff, failure(run), run.status.completion_time
    if wanted is None or failed is None or ended is None or run.retry_asked:
        return None
    tries = own_retries(run)
    if failed in _FOR_GOOD or tries >= wanted.limit or not _tick_is_open(observed, run):
        return None
    return ended + delay(wanted, tries)


def failure(run: OurObject) -> str | None:
    """The reason for which a run has failed; None when it has not."""
    found = run.status.condition(ConditionType.FAILED)
    return found.reason if found is not None and run.status.is_true(ConditionType.FAILED) else None


def own_retries(run: OurObject) -> int:
    """How often the schedule has had a run tried again; what others have asked for is not in it."""
    told = run.metadata.labels.get(labels.ROUND, "0")
    return int(told) if told.isascii() and told.isdecimal() else 0


def delay(wanted: FailureBackoff, tries: int) -> timedelta:
    """How long after its end a run is tried again that has been tried again so often. No large power is ever formed."""
    seconds = wanted.base_seconds
    for _ in range(tries):
        seconds = min(seconds * wanted.factor, wanted.cap_seconds)
    return timedelta(seconds=seconds)


def _tick_is_open(observed: ScheduleObserved, run: OurObject) -> bool:
    schedule = observed.schedule
    if schedule.spec.trigger is not None and window_end(schedule, run) is not None:
        return True
    return any(tick.name == run.metadata.name and not tick.finished for tick in observed.ticks)
