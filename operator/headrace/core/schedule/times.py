"""The expression and the time zone of a ScheduledGeneration, or its one moment, understood, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import groupby, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.schedulepolicies import ConcurrencyPolicy
from headrace.api.starting import Day
from headrace.core.schedule.cron import Cron, parse
from headrace.core.schedule.timing import Hours, closed_since, offset, opening
from headrace.core.schedule.trigger import begins_when

_MOMENT = timedelta(microseconds=1)


class Due(NamedTuple):
    """A tick, and when its run may begin."""

    tick: datetime
    begins: datetime


def cron_of(schedule: ScheduledGeneration) -> Cron:
    """The expression, understood; only of a schedule that has one. Raises `BadCron`."""
    assert schedule.spec.schedule is not None
    return parse(schedule.spec.schedule, schedule.key)


def moment_of(schedule: ScheduledGeneration) -> datetime | None:
    """The moment of the only run, in whole seconds, as it is written down; None of a schedule that has an expression."""
    wanted = schedule.spec.run_at
    return wanted.astimezone(UTC).replace(microsecond=0) if wanted is not None else None


def zone_of(schedule: ScheduledGeneration) -> ZoneInfo | None:
    """The time zone; None when there is none of that name."""
    return zone_named(schedule.spec.time_zone)


def zone_named(name: str) -> ZoneInfo | None:
    """The time zone of that name; None when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def late(schedule: ScheduledGeneration) -> timedelta:
    """By how much each run is late on purpose."""
    return offset(schedule.metadata.namespace, schedule.metadata.name, schedule.spec.jitter_seconds)


def hours_of(schedule: ScheduledGeneration) -> tuple[Hours, ...]:
    """The allowed windows; none when runs may begin at any time. Only of a schedule in which nothing is wrong."""
    return tuple(_hours(schedule))


def begins(schedule: ScheduledGeneration, tick: datetime, now: datetime | None = None) -> datetime:
    """When the run of a tick may begin, as far as the clock has a say; with `now`: not earlier than that."""
    due = tick + late(schedule)
    return opening(hours_of(schedule), due if now is None else max(due, now))


def deadline_of(schedule: ScheduledGeneration, tick: datetime) -> datetime | None:
    """Until when the run of a tick may begin; None when it may for ever."""
    seconds = schedule.spec.starting_deadline_seconds
    return begins(schedule, tick) + timedelta(seconds=seconds) if seconds is not None else None


def is_too_late(schedule: ScheduledGeneration, tick: datetime, now: datetime) -> bool:
    """Whether startingDeadlineSeconds is over for a tick."""
    deadline = deadline_of(schedule, tick)
    return deadline is not None and now > deadline


def due_after(schedule: ScheduledGeneration, moment: datetime) -> Iterator[datetime]:
    """When runs begin after a moment: without end where there is an expression, and nobody knows where there is a trigger.

    Only of a schedule in which nothing is wrong.
    """
    return (due.begins for due in dues_after(schedule, moment))


def dues_after(schedule: ScheduledGeneration, moment: datetime) -> Iterator[Due]:
    """The same with the ticks that they are of."""
    since = closed_since(hours_of(schedule), moment) - late(schedule) - _MOMENT
    coming = (Due(tick, begins(schedule, tick)) for tick in _ticks_after(schedule, since))
    return _let_be(schedule.spec.concurrency_policy, (due for due in coming if due.begins > moment))


def tick_before(schedule: ScheduledGeneration, moment: datetime) -> datetime:
    """The last tick before a moment; the only one in any case. Only of a schedule that has some and in which nothing is wrong."""
    once, zone = moment_of(schedule), zone_of(schedule)
    if once is not None:
        return once
    assert zone is not None
    return next(cron_of(schedule).before(moment, zone))


def effective(schedule: ScheduledGeneration) -> str:
    """The schedule as the CronJob has it and its time zone, the one moment, or what begins a run; and the lateness that is on purpose."""
    once = moment_of(schedule)
    if schedule.spec.trigger is not None:
        return begins_when(schedule.spec.trigger.new_objects)
    plain = (
        f"{cron_of(schedule).text} {schedule.spec.time_zone}" if once is None else f"once, {once:%Y-%m-%dT%H:%M:%SZ}"
    )
    return f"{plain} + {int(late(schedule).total_seconds())} s" if schedule.spec.jitter_seconds else plain


def ticks_between(schedule: ScheduledGeneration, start: datetime, end: datetime) -> Iterator[datetime]:
    """Ticks from a moment on and before another, the oldest first. Only of a schedule in which nothing is wrong."""
    return takewhile(lambda tick: tick < end, _ticks_after(schedule, start - _MOMENT))


def _let_be(policy: ConcurrencyPolicy, dues: Iterable[Due]) -> Iterator[Due]:
    """Of the ticks that wait for one opening, those that the CronJob does not pass over or replace until then."""
    for _, together in groupby(dues, key=lambda due: due.begins):
        found = list(together)
        yield from (
            found
            if policy == ConcurrencyPolicy.ALLOW
            else found[:1]
            if policy == ConcurrencyPolicy.FORBID
            else found[-1:]
        )


def _hours(schedule: ScheduledGeneration) -> Iterator[Hours]:
    numbers = {day: number for number, day in enumerate(Day)}
    for window in schedule.spec.allowed_windows:
        zone = zone_named(window.time_zone or schedule.spec.time_zone)
        assert zone is not None
        days = frozenset(numbers[day] for day in window.days)
        yield Hours(days, time.fromisoformat(window.start), time.fromisoformat(window.end), zone)


def _ticks_after(schedule: ScheduledGeneration, moment: datetime) -> Iterator[datetime]:
    once, zone = moment_of(schedule), zone_of(schedule)
    if once is not None:
        return iter([once] if once > moment else [])
    if schedule.spec.trigger is not None:
        return iter([])
    assert zone is not None
    return cron_of(schedule).after(moment, zone)
