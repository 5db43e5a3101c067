"""What a run must not begin without: other objects that are complete, and recent enough, and about the same time.

A run of another schedule is known by its window, and several of them may cover one: a daily run waits for twenty-four hourly ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from headrace.api.base import FieldError
from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.starting import Dependency, DependencyKind
from headrace.api.window import DataWindow
from headrace.core.schedule.observed import Reference, Upstream
from headrace.core.schedule.window import window_of

_SHOWN_NAMES = 8


def unmet(schedule: ScheduledGeneration, tick: datetime, upstream: Mapping[Reference, Upstream], now: datetime) -> str:
    """What the run of a tick depends on and is not so, in words; empty when it may begin."""
    return ", ".join(_unmet(schedule, tick, upstream, now))


def cycle_problems(schedule: ScheduledGeneration, others: Mapping[str, ScheduledGeneration]) -> tuple[FieldError, ...]:
    """That schedules depend on each other in a circle, this one among them; `others` are known by their names."""
    way = _way_back(schedule, others)
    if way is None:
        return ()
    shown = (schedule.metadata.name, *way) if len(way) <= _SHOWN_NAMES else (*way[:_SHOWN_NAMES], "...", way[-1])
    return (
        FieldError(
            "spec.dependsOn", f"must not lead back to this schedule, for then none could begin: {' -> '.join(shown)}"
        ),
    )


def _way_back(schedule: ScheduledGeneration, others: Mapping[str, ScheduledGeneration]) -> tuple[str, ...] | None:
    """The names on the shortest way from a schedule along what it depends on to itself; None when there is no way."""
    ways: deque[tuple[str, ...]] = deque((name,) for name in schedule.upstream)
    seen: set[str] = set()
    while ways:
        way = ways.popleft()
        if way[-1] == schedule.metadata.name:
            return way
        if way[-1] in others and way[-1] not in seen:
            seen.add(way[-1])
            ways.extend((*way, name) for name in others[way[-1]].upstream)
    return None


def _unmet(
    schedule: ScheduledGeneration, tick: datetime, upstream: Mapping[Reference, Upstream], now: datetime
) -> Iterator[str]:
    for one in schedule.spec.depends_on:
        known, oldest = upstream.get((one.kind, one.name), Upstream()), _oldest(one, now)
        if one.kind != DependencyKind.SCHEDULED_GENERATION:
            why = _why_work(one, known.found, oldest)
        elif one.same_window:
            why = _why_window(one, known, oldest, window_of(schedule, tick))
        else:
            why = _why_runs(one, known, oldest)
        if why:
            yield f"{one.kind} {one.name} {why}"


def _oldest(one: Dependency, now: datetime) -> datetime | None:
    return now - timedelta(seconds=one.max_age_seconds) if one.max_age_seconds is not None else None


def _why_work(one: Dependency, found: OurObject | ScheduledGeneration | None, oldest: datetime | None) -> str:
    """What keeps a batch or a fan-out from counting."""
    if found is None or isinstance(found, ScheduledGeneration):
        return "does not exist"
    if not found.status.is_true(ConditionType.COMPLETE):
        return f"is not Complete ({found.status.summary.state or 'Pending'})"
    at = found.status.completion_time
    if at is not None and oldest is not None and at < oldest:
        return f"was Complete at {_shown(at)}, which is more than {one.max_age_seconds} s ago"
    return ""


def _why_runs(one: Dependency, known: Upstream, oldest: datetime | None) -> str:
    """What keeps a schedule from counting whose last complete run is meant."""
    ends = [run.status.completion_time for run in known.runs if run.status.is_true(ConditionType.COMPLETE)]
    if isinstance(known.found, ScheduledGeneration):
        ends.append(known.found.status.last_successful_time)  # also when history has deleted that run
    last = max((end for end in ends if end is not None), default=None)
    if last is None:
        return "does not exist" if known == Upstream() else "has not had a complete run"
    if oldest is not None and last < oldest:
        return f"was last Complete at {_shown(last)}, which is more than {one.max_age_seconds} s ago"
    return ""


def _why_window(one: Dependency, known: Upstream, oldest: datetime | None, wanted: DataWindow) -> str:
    """What keeps a schedule from counting whose runs are to cover a window."""
    if known == Upstream():
        return "does not exist"
    complete = [
        run.spec.input.window
        for run in known.runs
        if run.status.is_true(ConditionType.COMPLETE) and not _is_older(run, oldest)
    ]
    gap = _first_gap(wanted, (window for window in complete if window is not None))
    if gap is None:
        return ""
    recent = f" of the last {one.max_age_seconds} s" if oldest is not None else ""
    return f"has no complete run{recent} that covers {_shown(gap)} (wanted: {_shown(wanted.start_time)} to {_shown(wanted.end_time)})"


def _is_older(run: OurObject, oldest: datetime | None) -> bool:
    at = run.status.completion_time
    return at is not None and oldest is not None and at < oldest


def _first_gap(wanted: DataWindow, covering: Iterable[DataWindow]) -> datetime | None:
    """The first moment of a window that none of the others covers; None when they cover it all."""
    reached = wanted.start_time
    for window in sorted(covering, key=lambda it: it.start_time):
        if window.start_time <= reached:
            reached = max(reached, window.end_time)
    return reached if reached < wanted.end_time else None


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
