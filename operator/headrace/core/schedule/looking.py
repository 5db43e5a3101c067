"""When to look at what is new, and when that is enough for a run.

A look is a Job that lists the objects from the cursor up to a moment that has settled, and says how many there are and how old the oldest
is. It stays until the next one is due: it is what remembers, across a restart, what was found and when. There is one at a time, and none
while no run could begin anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulepolicies import ConcurrencyPolicy
from headrace.api.trigger import NewObjects, TriggerStatus
from headrace.api.window import DataWindow
from headrace.core.conditions import Finding, false, true, unknown
from headrace.core.schedule.failures import paused
from headrace.core.schedule.observed import Listing, ScheduleObserved
from headrace.core.schedule.retries import is_over
from headrace.core.schedule.times import hours_of
from headrace.core.schedule.timing import opening
from headrace.core.schedule.trigger import cursor, earliest_end, is_unremembered, reached, remembered, settled, watched

FAILED_LOOK = timedelta(minutes=5)
"""The least time from a look that has failed to the next: its pods have been tried again already."""


def ripe(observed: ScheduleObserved) -> tuple[DataWindow, datetime] | None:
    """The window of the run that may begin, and since when it may; None while there is none."""
    wanted, found = watched(observed.schedule), _newest(observed)
    if wanted is None or found is None or found.window is None or not _may_begin(observed) or _is_stale(observed):
        return None
    since = _ripe_from(wanted, found)
    return (found.window, since) if since is not None and since <= observed.now else None


def to_list(observed: ScheduleObserved) -> DataWindow | None:
    """What the Job lists that there should be: something new when a look is due, or else what the last one did."""
    schedule, found, due = observed.schedule, _newest(observed), next_look(observed)
    if due is not None and due <= observed.now:
        return DataWindow(start_time=cursor(schedule), end_time=settled(schedule, observed.now))
    if found is None:
        return None
    # The Job is known by its end; until it has said where it begins, nothing is decided by that.
    start = min(cursor(schedule), found.until - timedelta(seconds=1))
    return found.window or DataWindow(start_time=start, end_time=found.until)


def next_look(observed: ScheduleObserved) -> datetime | None:
    """When to look at what is new; None while something else must happen first."""
    wanted, found = watched(observed.schedule), _newest(observed)
    at_work = found is not None and not found.finished
    if wanted is None or at_work or not _may_begin(observed) or ripe(observed) is not None:
        return None
    due = earliest_end(observed.schedule) + timedelta(seconds=wanted.settle_seconds)
    if found is not None:
        pause = timedelta(seconds=wanted.poll_seconds)
        due = max(due, found.made + (max(pause, FAILED_LOOK) if found.failed else pause))
    return opening(hours_of(observed.schedule), max(due, observed.now))


def changes(observed: ScheduleObserved) -> Iterator[datetime]:
    """When there is something to be done, as far as the clock has a say."""
    wanted, found, look = watched(observed.schedule), _newest(observed), next_look(observed)
    if look is not None:
        yield look
    if wanted is not None and found is not None and _may_begin(observed) and not _is_stale(observed):
        since = _ripe_from(wanted, found)
        if since is not None and since > observed.now:
            yield since


def told(observed: ScheduleObserved) -> dict[str, Any]:
    """The status fields that tell of new objects."""
    schedule, found, at = observed.schedule, _newest(observed), reached(observed)
    before = schedule.status.trigger or TriggerStatus()
    is_known = found is not None and at == remembered(schedule) and not _is_stale(observed)
    report = found.report if found is not None and is_known else None
    status = TriggerStatus(
        cursor_time=at,
        look_time=found.made if found is not None and found.finished else before.look_time,
        objects=report.objects if report is not None else None,
        oldest_time=report.oldest_time if report is not None else None,
    )
    return {"trigger": status, "last_schedule_time": at or schedule.status.last_schedule_time}


def findings(observed: ScheduleObserved) -> tuple[Finding, ...]:
    """How the last look has gone; what is known stays true while the next one is under way."""
    found, kind = _newest(observed), ConditionType.INPUT_LISTED
    if found is not None and found.obstacle is not None and not found.finished:
        return (unknown(kind, found.obstacle, f"the pod of {found.name} does not start: {found.why}"),)
    if found is not None and found.failed:
        return (false(kind, Reason.LISTING_FAILED, f"what is new could not be listed: {found.why or 'its pods died'}"),)
    if found is not None and found.report is not None and found.window is not None:
        message = (
            f"{found.report.objects} new objects were found that were modified before {_shown(found.window.end_time)}"
        )
        return (true(kind, Reason.OBJECTS_LISTED, message),)
    known = observed.schedule.status.condition(kind) is not None
    return () if known else (unknown(kind, Reason.LISTING, "it is not known yet what is new"),)


def _may_begin(observed: ScheduleObserved) -> bool:
    """Whether a run could begin at all; where none can, nothing is looked at either."""
    schedule, runs = observed.schedule, observed.runs.values()
    if schedule.spec.suspend or paused(observed) or any(is_unremembered(observed, run) for run in runs):
        return False
    beside_others = schedule.spec.concurrency_policy == ConcurrencyPolicy.ALLOW
    return beside_others or all(is_over(observed, run) for run in runs)


def _ripe_from(wanted: NewObjects, found: Listing) -> datetime | None:
    """From when on what was found is to be run; None when it is not enough, and may wait for more for ever."""
    report = found.report
    if report is None or not report.objects:
        return None
    if report.objects >= wanted.at_least:
        return found.made
    if wanted.max_wait_seconds is None or report.oldest_time is None:
        return None
    return max(found.made, report.oldest_time + timedelta(seconds=wanted.max_wait_seconds))


def _newest(observed: ScheduleObserved) -> Listing | None:
    return max(observed.listings, key=lambda it: (it.made, it.name), default=None)


def _is_stale(observed: ScheduleObserved) -> bool:
    """Whether what was found has had its run since, or is not what would be run now."""
    found = _newest(observed)
    return found is None or found.window is None or found.window.start_time != cursor(observed.schedule)


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
