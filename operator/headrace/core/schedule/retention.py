"""Whether a schedule that others depend on keeps its runs long enough: those that are to cover a window together must all be there at once.

Else a run would wait for ever, and nothing would say so before its first tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import chain, islice

from headrace.api.base import FieldError
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.window import DataWindow
from headrace.core.schedule.cron import BadCron
from headrace.core.schedule.observed import ScheduleObserved
from headrace.core.schedule.times import cron_of, dues_after, zone_of
from headrace.core.schedule.window import window_of

_RUNS = 3
"""So many next runs would all have to wait: where ticks are uneven, such as on weekdays, only some windows may be too long."""


def retention_problems(observed: ScheduleObserved) -> tuple[FieldError, ...]:
    """That the windows of the next runs are longer than what the runs cover that are kept; only where nothing else is wrong."""
    return tuple(_problems(observed.schedule, observed.schedules, observed.now))


def _problems(
    schedule: ScheduledGeneration, others: Mapping[str, ScheduledGeneration], now: datetime
) -> Iterator[FieldError]:
    if schedule.spec.schedule is None:
        return
    for number, one in enumerate(schedule.spec.depends_on):
        upstream = others.get(one.name) if one.same_window else None
        if upstream is None or not _ticks_are_known(upstream):
            continue
        windows = [window_of(schedule, due.tick) for due in islice(dues_after(schedule, now), _RUNS)]
        if not any(_can_cover(upstream, window) for window in windows):
            keeps, shown = upstream.spec.successful_jobs_history_limit, windows[0]
            message = (
                f"the window of a run ({shown.start_time:%Y-%m-%dT%H:%M:%SZ} to {shown.end_time:%Y-%m-%dT%H:%M:%SZ}) is longer than what "
                f"{one.name} keeps, which is {keeps} runs: raise its successfulJobsHistoryLimit, or make spec.window shorter"
            )
            yield FieldError(f"spec.dependsOn[{number}]", message)


def _ticks_are_known(upstream: ScheduledGeneration) -> bool:
    """Whether a clock begins its runs, and it is understood which."""
    if upstream.spec.schedule is None or zone_of(upstream) is None:
        return False
    try:
        cron_of(upstream)
    except BadCron:
        return False
    return True


def _can_cover(upstream: ScheduledGeneration, wanted: DataWindow) -> bool:
    """Whether as many runs as are kept reach back to the beginning of a window, when the first is complete that reaches its end."""
    cron, zone = cron_of(upstream), zone_of(upstream)
    assert zone is not None
    end = wanted.end_time + timedelta(seconds=upstream.spec.window.delay_seconds)
    last = next(cron.after(end - timedelta(microseconds=1), zone))
    kept = list(islice(chain((last,), cron.before(last, zone)), upstream.spec.successful_jobs_history_limit))
    return bool(kept) and window_of(upstream, kept[-1]).start_time <= wanted.start_time
