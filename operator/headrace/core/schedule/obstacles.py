"""What keeps ticks from becoming runs, and runs from working, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.api.meta import ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.conditions import Finding, false, true
from headrace.core.schedule.observed import ScheduleObserved
from headrace.core.schedule.offpeak import at_rest
from headrace.core.schedule.times import hours_of, late
from headrace.core.schedule.timing import is_open, opening
from headrace.core.schedule.waiting import waiting

_SHOWN = 3


def waits(observed: ScheduleObserved) -> tuple[Finding, ...]:
    """Whether something waits, and for what. It is worth a word only once something has."""
    found = next(_obstacles(observed), None)
    if found is not None:
        return (found,)
    before = observed.schedule.status.condition(ConditionType.WAITING)
    if before is None or before.status == ConditionStatus.FALSE:
        return ()
    return (false(ConditionType.WAITING, Reason.NOTHING_WAITS, "nothing waits"),)


def _obstacles(observed: ScheduleObserved) -> Iterator[Finding]:
    """Each of them, the one that is most worth knowing first."""
    unmet = [one for one in waiting(observed) if one.unmet]
    waits_on = [f"{one.name} waits: {one.unmet}" for one in unmet if not one.given_up]
    if waits_on:
        yield true(ConditionType.WAITING, Reason.DEPENDENCY_NOT_MET, _listed(waits_on))
    yield from _outside_window(observed)
    if unmet:
        passed_over = [f"{one.name} was not run: {one.unmet}" for one in unmet]
        yield false(ConditionType.WAITING, Reason.DEPENDENCY_NOT_MET, _listed(passed_over))


def _outside_window(observed: ScheduleObserved) -> Iterator[Finding]:
    hours = hours_of(observed.schedule)
    if is_open(hours, observed.now):
        return
    ripe = [one for one in waiting(observed) if one.tick + late(observed.schedule) <= observed.now < one.begins]
    told = [*(f"{name} is put away" for name in at_rest(observed)), *(f"{one.name} waits" for one in ripe)]
    if told:
        opens = f"{opening(hours, observed.now):%Y-%m-%dT%H:%M:%SZ}"
        message = f"no allowed window is open before {opens}: {_listed(told)}"
        yield true(ConditionType.WAITING, Reason.OUTSIDE_WINDOW, message)


def _listed(told: Sequence[str]) -> str:
    """The first of them, and how many there are besides."""
    more = len(told) - _SHOWN
    return "; ".join(told[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
