"""Ticks that have no run yet, whatever brings them: a Job, an outage that is made up for, the moment of the only run, or new objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from headrace.api.inferencebatch import MAX_NAME_LENGTH
from headrace.api.starting import OnUnmet
from headrace.core.schedule.catchup import next_missed
from headrace.core.schedule.dependencies import unmet
from headrace.core.schedule.looking import ripe
from headrace.core.schedule.observed import ScheduleObserved, Tick, run_name
from headrace.core.schedule.once import has_come, is_missed
from headrace.core.schedule.times import begins, hours_of, is_too_late, moment_of
from headrace.core.schedule.timing import opening


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tick that is to become a run."""

    tick: datetime
    name: str
    """What the run will be called."""
    due: datetime
    """When it was to begin, and would have begun if nothing had been in the way."""
    begins: datetime
    """When that may be."""
    asked_for: bool = False
    """A user has asked for it, and it waits for nothing."""
    has_deadline: bool = True
    """Whether it is given up after startingDeadlineSeconds; what is made up for is late anyway."""
    unmet: str = ""
    """What it depends on and is not so, in words, once it may begin as far as the clock has a say."""
    given_up: bool = False
    """It is not run, for it depends on that."""


def waiting(observed: ScheduleObserved) -> tuple[Waiting, ...]:
    """All of them, the one that may begin first before the others; none may outside the allowed windows."""
    found = (*_ticks(observed), *_caught_up(observed), *_only(observed), *_triggered(observed))
    return tuple(sorted((_judged(observed, one) for one in found), key=lambda one: (one.begins, one.name)))


def fits(observed: ScheduleObserved, tick: Tick) -> bool:
    """Whether a run can be called as the Job is. Only one that a user has made can have a name that is too long."""
    longest = max((len(branch.name) + 1 for branch in observed.schedule.branches), default=0)
    return len(tick.name) + longest <= MAX_NAME_LENGTH and "." not in tick.name


def _judged(observed: ScheduleObserved, one: Waiting) -> Waiting:
    """With what it depends on."""
    schedule, now = observed.schedule, observed.now
    if one.asked_for or one.begins > now:
        return one
    why = unmet(schedule, one.tick, observed.upstream, now)
    too_late = one.has_deadline and is_too_late(schedule, one.tick, now)
    return replace(one, unmet=why, given_up=bool(why) and (too_late or schedule.spec.on_unmet == OnUnmet.SKIP))


def _ticks(observed: ScheduleObserved) -> Iterator[Waiting]:
    """Those of Jobs."""
    for tick in observed.ticks:
        if not tick.finished and tick.name not in observed.runs and fits(observed, tick):
            if tick.asked_for:
                yield Waiting(tick.time, tick.name, due=tick.time, begins=tick.time, asked_for=True)
            else:
                yield replace(_by_the_clock(observed, tick.time), name=tick.name)


def _caught_up(observed: ScheduleObserved) -> Iterator[Waiting]:
    missed = next_missed(observed)
    if missed is not None:
        yield replace(_by_the_clock(observed, missed), has_deadline=False)


def _only(observed: ScheduleObserved) -> Iterator[Waiting]:
    schedule, once = observed.schedule, moment_of(observed.schedule)
    if once is not None and not (schedule.spec.suspend or has_come(observed) or is_missed(observed)):
        yield _by_the_clock(observed, once)


def _triggered(observed: ScheduleObserved) -> Iterator[Waiting]:
    """The one for what is new; its tick is the end of its window, and it is called after the beginning."""
    found = ripe(observed)
    if found is not None:
        window, due = found
        name = run_name(observed.schedule.metadata.name, window.start_time)
        when = opening(hours_of(observed.schedule), observed.now)
        yield Waiting(window.end_time, name, due=due, begins=when, has_deadline=False)


def _by_the_clock(observed: ScheduleObserved, tick: datetime) -> Waiting:
    schedule = observed.schedule
    name = run_name(schedule.metadata.name, tick)
    return Waiting(tick, name, begins(schedule, tick), begins(schedule, tick, observed.now))
