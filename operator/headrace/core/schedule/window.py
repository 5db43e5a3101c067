"""The time whose data a run is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow
from headrace.core.schedule.times import tick_before
from headrace.core.schedule.trigger import cursor

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def window_of(schedule: ScheduledGeneration, tick: datetime) -> DataWindow:
    """That of a tick. Without a length it begins where that of the tick before ends, so that no moment is missed and none comes twice.

    Before the only run there was no tick: its window has all that was before it. That of a run for new objects has all since the last.
    """
    if schedule.spec.trigger is not None:
        return DataWindow(start_time=cursor(schedule), end_time=tick)
    wanted = schedule.spec.window
    delay = timedelta(seconds=wanted.delay_seconds)
    if wanted.length_seconds is not None:
        start = tick - delay - timedelta(seconds=wanted.length_seconds)
    elif schedule.spec.run_at is not None:
        start = _BEGINNING
    else:
        start = tick_before(schedule, tick) - delay
    return DataWindow(start_time=start, end_time=tick - delay)
