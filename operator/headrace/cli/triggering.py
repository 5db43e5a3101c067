"""Schedules that new objects begin, on one machine: what a cluster does with Jobs is done here by this process, one look after the other.

Nothing is remembered but the runs. So `run --watch` that was stopped goes on where it was: first with the run that is not over.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from headrace.api import labels
from headrace.api.kinds import OurObject
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.api.trigger import TriggerStatus
from headrace.api.window import DataWindow
from headrace.cli.exits import CliError
from headrace.cli.signals import Signals
from headrace.cli.target import Target
from headrace.cli.text import remark
from headrace.core.observed import Installation
from headrace.core.schedule.listing import lister
from headrace.core.schedule.looking import changes, next_look, ripe, to_list
from headrace.core.schedule.observed import Listing, ScheduleObserved, listing_name
from headrace.core.schedule.times import Due, hours_of
from headrace.core.schedule.timing import opening
from headrace.core.schedule.trigger import earliest_end, reached, settled, window_end
from headrace.shells.local.listing import list_objects
from headrace.shells.manifests import LoadedSchedule


class Watch:
    """One schedule, and the last look at what is new."""

    def __init__(self, target: Target, loaded: LoadedSchedule) -> None:
        self.loaded = loaded
        self._target, self._place = target, place_of(target, loaded.schedule)
        self._last: tuple[Listing, ...] = ()
        self._told = ""

    @property
    def next(self) -> datetime:
        """When there is something to be done."""
        now = datetime.now(UTC)
        if _unfinished(self._target, self.loaded.schedule) is not None:
            return now
        observed = self._observed(continued(self._target, self.loaded), now)
        return _may_begin(observed) if ripe(observed) is not None else min(changes(observed), default=now)

    def look(self) -> tuple[Due, LoadedSchedule] | None:
        """The run that may begin, once there is one; looks at what is new when that is due. Raises `CliError` when a signal comes."""
        left, now = _unfinished(self._target, self.loaded.schedule), datetime.now(UTC)
        if left is not None:
            return Due(left.end_time, now), _at(self.loaded, left.start_time)
        resumed = continued(self._target, self.loaded)
        observed = self._observed(resumed, now)
        due, window = next_look(observed), to_list(observed)
        if due is not None and due <= now and window is not None:
            self._last = (self._listed(resumed.schedule, window, now),)
            now = datetime.now(UTC)
            observed = self._observed(resumed, now)
        found = ripe(observed)
        return (Due(found[0].end_time, now), resumed) if found is not None and _may_begin(observed) <= now else None

    def _observed(self, loaded: LoadedSchedule, now: datetime) -> ScheduleObserved:
        """Runs follow each other here, and all that they tell is where the next one begins: that is in the status already."""
        spec = loaded.schedule.spec.model_copy(update={"suspend": False})
        schedule = loaded.schedule.model_copy(update={"spec": spec})
        return ScheduleObserved(schedule, now, listings=self._last, installation=self._place)

    def _listed(self, schedule: ScheduledGeneration, window: DataWindow, now: datetime) -> Listing:
        name = listing_name(schedule.metadata.name, window.end_time)
        with Signals() as signals:
            found = list_objects(schedule, self._place, window, signals)
            if signals.requested:
                raise CliError("Interrupted", "stopped; nothing was running", signals.exit_code)
        if isinstance(found, str):
            self._tell(f"{schedule.metadata.name}: what is new could not be listed: {found}")
            return Listing(name, now, finished=True, failed=True, why=found)
        self._tell(f"{schedule.metadata.name}: {found.objects} new objects")
        return Listing(name, now, finished=True, report=found)

    def _tell(self, message: str) -> None:
        """Say it, unless it was the last that was said."""
        if self._told != message:
            self._told = message
            remark(message)


def place_of(target: Target, schedule: ScheduledGeneration) -> Installation:
    """What can be read at that place."""
    end = earliest_end(schedule)
    return target.installation(lister(schedule, DataWindow(start_time=datetime.fromtimestamp(0, UTC), end_time=end)))


def continued(target: Target, loaded: LoadedSchedule) -> LoadedSchedule:
    """A schedule with a status that says where its last run has ended, as the runs that are known at that place tell."""
    at = reached(ScheduleObserved(loaded.schedule, datetime.now(UTC), runs=_runs(target, loaded.schedule)))
    return loaded if at is None else _at(loaded, at)


def refuse_too_soon(schedule: ScheduledGeneration) -> None:
    """Raise `CliError` when nothing can have settled since the last run."""
    if settled(schedule, datetime.now(UTC)) < earliest_end(schedule):
        why = f"{schedule.metadata.name} has had a run a moment ago, or newObjects.since is still to come"
        raise CliError("TooSoon", f"{why}: what is new must have settled, and a minute must be between two runs")


def _at(loaded: LoadedSchedule, cursor: datetime) -> LoadedSchedule:
    status = loaded.schedule.status.model_copy(update={"trigger": TriggerStatus(cursor_time=cursor)})
    return replace(loaded, schedule=loaded.schedule.model_copy(update={"status": status}))


def _may_begin(observed: ScheduleObserved) -> datetime:
    """When a run may begin, as far as the clock has a say."""
    return opening(hours_of(observed.schedule), observed.now)


def _unfinished(target: Target, schedule: ScheduledGeneration) -> DataWindow | None:
    """The window of a run that is not over, because an earlier process was stopped."""
    left = (run for run in _runs(target, schedule).values() if not run.status.finished)
    return next((run.spec.input.window for run in left if window_end(schedule, run) is not None), None)


def _runs(target: Target, schedule: ScheduledGeneration) -> dict[str, OurObject]:
    """Those of a schedule, by name."""
    seen = (one.batch for one in target.find_all(schedule.metadata.namespace))
    ticked = (run for run in seen if labels.TICK in run.metadata.annotations)
    return {run.metadata.name: run for run in ticked if run.metadata.name.rpartition("-")[0] == schedule.metadata.name}
