"""Ticks of schedules on one machine, where no CronJob ticks: each comes when it is due, in an allowed window, and after what it depends on.

They are run one after the other. So a tick of a schedule is passed over while an earlier one of it runs or waits, as with the
concurrency policy Forbid.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from headrace.api import labels
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.starting import DependencyKind, OnUnmet
from headrace.cli.exits import CliError
from headrace.cli.signals import Signals
from headrace.cli.target import Target
from headrace.cli.text import remark
from headrace.cli.triggering import Watch
from headrace.core.schedule.dependencies import unmet
from headrace.core.schedule.observed import Reference, Upstream
from headrace.core.schedule.times import Due, begins, dues_after, is_too_late, moment_of
from headrace.core.schedule.trigger import name_of
from headrace.shells.manifests import LoadedSchedule

_NAP_SECONDS = 0.2
_LOOK = timedelta(seconds=1)
"""How often to look at what a tick depends on: another process may work on it."""


class Ticked(NamedTuple):
    """A tick, and whose it is."""

    due: Due
    loaded: LoadedSchedule

    @property
    def name(self) -> str:
        """What its run is called."""
        return name_of(self.loaded.schedule, self.due.tick)


def ticks_as_they_come(target: Target, schedules: Iterable[LoadedSchedule]) -> Iterator[Ticked]:
    """Each tick when its run may begin, or new objects are there, until none can come any more.

    Raises `CliError` when a signal comes while it waits.
    """
    all_, waiting = list(schedules), _Waiting(target, list(schedules))
    coming = [it for it in all_ if it.schedule.spec.trigger is None]
    watches = [Watch(target, it) for it in all_ if it.schedule.spec.trigger is not None]
    while coming or waiting.ticks or watches:
        yield from waiting.ready()
        soonest = min((_next(it) for it in coming if not waiting.has(it)), key=lambda it: it.due.begins, default=None)
        if soonest is not None and not waiting.ticks:
            waiting.tell(soonest.loaded, f"the next run is due at {shown(soonest.due.begins)}")
        until = [soonest.due.begins] if soonest is not None else []
        until += [datetime.now(UTC) + _LOOK] if waiting.ticks else []
        until += [it.next for it in watches if not waiting.has(it.loaded)]
        _wait_for(min(until, default=datetime.now(UTC)))
        looks = [it.look() for it in watches if not waiting.has(it.loaded)]
        waiting.ticks += [Ticked(*found) for found in looks if found is not None]
        if soonest is not None and soonest.due.begins <= datetime.now(UTC):
            waiting.ticks.append(soonest)
            coming = [it for it in coming if it is not soonest.loaded or moment_of(it.schedule) is None]


class _Waiting:
    """Ticks that have come, and wait for what they depend on."""

    def __init__(self, target: Target, schedules: list[LoadedSchedule]) -> None:
        self._target, self._schedules = target, schedules
        self.ticks: list[Ticked] = []
        self._told: dict[str, str] = {}

    def has(self, loaded: LoadedSchedule) -> bool:
        """Whether a tick of that schedule waits."""
        return any(one.loaded.schedule.key == loaded.schedule.key for one in self.ticks)

    def tell(self, loaded: LoadedSchedule, message: str) -> None:
        """Say something of a schedule, unless it was the last that was said of it."""
        name = loaded.schedule.metadata.name
        if self._told.get(name) != message:
            self._told[name] = message
            remark(f"{name}: {message}")

    def ready(self) -> Iterator[Ticked]:
        """Those that wait for nothing any more, as they become so; those that are given up are named."""
        for one in list(self.ticks):
            schedule, now = one.loaded.schedule, datetime.now(UTC)
            why = unmet(schedule, one.due.tick, self._upstream(schedule), now)
            gives_up = schedule.spec.on_unmet == OnUnmet.SKIP or is_too_late(schedule, one.due.tick, now)
            if why and not gives_up:
                self._tell(one, f"waits: {why}")
                continue
            self.ticks.remove(one)
            if why:
                self._tell(one, f"is not run: {why}")
            else:
                yield one

    def _tell(self, one: Ticked, message: str) -> None:
        """Say it, unless it was the last that was said."""
        if self._told.get(one.name) != message:
            self._told[one.name] = message
            remark(f"{one.name} {message}")

    def _upstream(self, schedule: ScheduledGeneration) -> dict[Reference, Upstream]:
        """What a schedule depends on, as far as this machine knows it."""
        if not schedule.spec.depends_on:
            return {}
        seen = [one.batch for one in self._target.find_all(schedule.metadata.namespace)]
        known: Mapping[str, ScheduledGeneration] = neighbours(self._schedules, schedule)
        found: dict[Reference, Upstream] = {}
        for one in schedule.spec.depends_on:
            if one.kind == DependencyKind.SCHEDULED_GENERATION:
                ticked = (it for it in seen if labels.TICK in it.metadata.annotations)
                runs = tuple(it for it in ticked if it.metadata.name.rpartition("-")[0] == one.name)
                found[one.kind, one.name] = Upstream(known.get(one.name), runs)
            else:
                work = (it for it in seen if it.kind == str(one.kind) and it.metadata.name == one.name)
                found[one.kind, one.name] = Upstream(next(work, None))
        return found


def neighbours(schedules: Iterable[LoadedSchedule], one: ScheduledGeneration) -> dict[str, ScheduledGeneration]:
    """The schedules of the same namespace, by their names."""
    found = (loaded.schedule for loaded in schedules)
    return {it.metadata.name: it for it in found if it.metadata.namespace == one.metadata.namespace}


def shown(moment: datetime) -> str:
    """A moment as Kubernetes writes it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _next(loaded: LoadedSchedule) -> Ticked:
    """What is run next. The moment of the only run may have passed, and then it is as soon as it may be."""
    schedule, now = loaded.schedule, datetime.now(UTC)
    once = moment_of(schedule)
    due = Due(once, begins(schedule, once, now)) if once is not None else next(dues_after(schedule, now))
    return Ticked(due, loaded)


def _wait_for(moment: datetime) -> None:
    """Sleep until then. Raises `CliError` when a signal comes."""
    with Signals() as signals:
        while datetime.now(UTC) < moment:
            if signals.requested:
                raise CliError("Interrupted", "stopped; nothing was running", signals.exit_code)
            time.sleep(_NAP_SECONDS)
