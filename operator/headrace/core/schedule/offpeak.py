"""Runs at the end of an allowed window: they put their work away if the schedule says so, and go on when a window opens.

A run that begins in a window is marked, and only marked ones are touched: who asks for a run by hand wants it at any hour. The mark also
says what was done here, and only that is taken back. So a run that its owner has suspended stays suspended, and one that its owner
resumes outside the windows goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headrace.api import labels
from headrace.api.kinds import OurObject
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.starting import OnWindowEnd
from headrace.core.schedule.observed import ScheduleObserved
from headrace.core.schedule.times import hours_of
from headrace.core.schedule.timing import is_open

OPEN, CLOSED = "open", "closed"


def mark(schedule: ScheduledGeneration) -> dict[str, str]:
    """The annotations of a run that begins in a window."""
    return {labels.ALLOWED_WINDOW: OPEN} if schedule.spec.allowed_windows else {}


def news_for(observed: ScheduleObserved, run: OurObject) -> str | None:
    """What is to be done with a run: OPEN, it goes on; CLOSED, it puts its work away; None, nothing."""
    marked = _mark_of(run)
    wanted = CLOSED if _is_closed(observed) else OPEN
    if marked in (None, wanted) or run.status.finished:
        return None
    is_its_owners = wanted == CLOSED and run.spec.suspend
    return None if is_its_owners else wanted


def at_rest(observed: ScheduleObserved) -> list[str]:
    """Names of the runs that were suspended because their window has ended."""
    runs = observed.runs.items()
    return [name for name, run in runs if _mark_of(run) == CLOSED and run.spec.suspend and not run.status.finished]


def changes(observed: ScheduleObserved) -> Iterator[datetime]:
    """When something is to be done with runs next, as far as the clock has a say."""
    marked = any(_mark_of(run) is not None and not run.status.finished for run in observed.runs.values())
    if marked and observed.schedule.spec.on_window_end == OnWindowEnd.SUSPEND:
        yield from (one.next_change(observed.now) for one in hours_of(observed.schedule))


def _is_closed(observed: ScheduleObserved) -> bool:
    ends = observed.schedule.spec.on_window_end == OnWindowEnd.SUSPEND
    return ends and not is_open(hours_of(observed.schedule), observed.now)


def _mark_of(run: OurObject) -> str | None:
    return run.metadata.annotations.get(labels.ALLOWED_WINDOW)
