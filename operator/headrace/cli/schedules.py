"""ScheduledGenerations on the command line: the run of one tick, runs of past ticks, and what is to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from headrace.api.kinds import OurObject
from headrace.api.scheduledgeneration import ScheduledGeneration
from headrace.cli.dispatch import bad_input
from headrace.cli.exits import BAD_INPUT, CliError
from headrace.cli.options import JsonOutput, Where
from headrace.cli.place import load_manifests, open_target
from headrace.cli.run import run_manifests
from headrace.cli.target import Ref, Target
from headrace.cli.text import plural, remark, say, say_json, table
from headrace.cli.ticking import neighbours, shown, ticks_as_they_come
from headrace.cli.triggering import continued, place_of, refuse_too_soon
from headrace.core.observed import Installation
from headrace.core.schedule.check import schedule_problems
from headrace.core.schedule.children import run_by_hand
from headrace.core.schedule.dependencies import cycle_problems
from headrace.core.schedule.times import (
    due_after,
    effective,
    is_too_late,
    moment_of,
    tick_before,
    ticks_between,
    zone_of,
)
from headrace.core.schedule.timing import storms
from headrace.core.schedule.trigger import earliest_end, settled
from headrace.shells.manifests import LoadedBatch, LoadedSchedule, Manifests

Ticks = Callable[[ScheduledGeneration], Iterable[datetime]]
_BAR = 60
_SOMEWHERE = Installation(default_output="file:///somewhere")
"""A preview is of times; what the place can do is for `plan` to say."""


def runs_of(loaded: LoadedSchedule, ticks: Iterable[datetime]) -> list[LoadedBatch]:
    """The runs of these ticks, as if they had been written down where the template is."""
    kind = "fanOutJob" if loaded.schedule.branches else "inferenceBatch"
    source = replace(loaded.source, spec=f"spec.template.{kind}")
    return [LoadedBatch(run_by_hand(loaded.schedule, tick), source) for tick in ticks]


def with_runs(manifests: Manifests, ticks: Ticks) -> Manifests:
    """The objects with those runs in place of the schedules. Raises `CliError` when a schedule is wrong."""
    check(manifests.schedules, _SOMEWHERE)
    runs = [run for loaded in manifests.schedules for run in runs_of(loaded, ticks(loaded.schedule))]
    return replace(manifests, batches=(*manifests.batches, *runs), schedules=())


def check(schedules: Iterable[LoadedSchedule], place: Installation) -> None:
    """Raise `CliError` with all that is wrong with them."""
    now = datetime.now(UTC)
    schedules = list(schedules)
    found = [
        replace(loaded.source, spec="spec").problem(error)
        for loaded in schedules
        for error in (
            *schedule_problems(loaded.schedule, place, now),
            *cycle_problems(loaded.schedule, neighbours(schedules, loaded.schedule)),
        )
    ]
    if found:
        raise bad_input(tuple(found))


def last_tick(schedule: ScheduledGeneration) -> tuple[datetime]:
    """The one that has come last; of a trigger, the end of a window that has all there is."""
    if schedule.spec.trigger is not None:
        return (max(settled(schedule, datetime.now(UTC)), earliest_end(schedule)),)
    return (tick_before(schedule, datetime.now(UTC)),)


def run_once(where: Where, files: list[str], output: JsonOutput, *, quiet: bool) -> int:
    """Run the objects of some files, of each schedule the tick that has come last."""
    with open_target(where) as target:
        _refuse_cluster(where, "--once")
        manifests = load_manifests(target, files)
        check(manifests.schedules, _SOMEWHERE)
        going_on = tuple(continued(target, it) if it.schedule.spec.trigger else it for it in manifests.schedules)
        for loaded in going_on:
            if loaded.schedule.spec.trigger is not None:
                refuse_too_soon(loaded.schedule)
        manifests = with_runs(replace(manifests, schedules=going_on), last_tick)
        return run_manifests(target, manifests, output, quiet=quiet, replace=False)


def run_watch(where: Where, files: list[str], output: JsonOutput, *, quiet: bool) -> int:
    """Run each tick of the schedules of some files as it comes, one after the other, until a signal ends it, or none can come any more."""
    with open_target(where) as target:
        _refuse_cluster(where, "--watch")
        manifests = load_manifests(target, files)
        check(manifests.schedules, _SOMEWHERE)
        if not manifests.schedules:
            raise CliError("NoObjects", f"there is no ScheduledGeneration in {', '.join(files)}", BAD_INPUT)
        for loaded in manifests.schedules:
            if loaded.schedule.spec.trigger is not None:
                check([loaded], place_of(target, loaded.schedule))
        coming = [it for it in manifests.schedules if not _is_over(target, it)]
        codes = [0]
        for due, loaded in ticks_as_they_come(target, coming):
            alone = Manifests(tuple(runs_of(loaded, [due.tick])), config_maps=manifests.config_maps)
            codes.append(run_manifests(target, alone, output, quiet=quiet, replace=False))
    return max(codes)


def _is_over(target: Target, loaded: LoadedSchedule) -> bool:
    """Whether a schedule of one run has had it, or has missed it."""
    schedule, once = loaded.schedule, moment_of(loaded.schedule)
    if once is None:
        return False
    (run,) = runs_of(loaded, [once])
    if target.lookup(Ref.of(run.batch)) is not None or not is_too_late(schedule, once, datetime.now(UTC)):
        return _is_there(target, run.batch)
    deadline = schedule.spec.starting_deadline_seconds
    remark(f"{schedule.metadata.name} is not run: runAt was more than startingDeadlineSeconds ({deadline}) ago")
    return True


def backfill(
    where: Where, files: list[str], span: tuple[str, str], output: JsonOutput, *, most: int, quiet: bool
) -> int:
    """Run the past ticks of a time, the oldest first, each once and with its own window; the exit code of the worst."""
    with open_target(where) as target:
        manifests = load_manifests(target, files)
        check(manifests.schedules, _SOMEWHERE)
        if not manifests.schedules:
            raise CliError("NoObjects", f"there is no ScheduledGeneration in {', '.join(files)}", BAD_INPUT)
        codes = [0]
        for loaded in manifests.schedules:
            for run in runs_of(loaded, _ticks(loaded.schedule, span, most)):
                if not _is_there(target, run.batch):
                    alone = Manifests((run,), config_maps=manifests.config_maps)
                    codes.append(run_manifests(target, alone, output, quiet=quiet, replace=False))
    return max(codes)


def preview(where: Where, files: list[str], output: JsonOutput, *, count: int, hours: int) -> int:
    """Show when schedules run next, and how many runs begin in the same minute."""
    with open_target(where) as target:
        manifests = load_manifests(target, files)
    check(manifests.schedules, _SOMEWHERE)
    now = datetime.now(UTC)
    ends = now + timedelta(hours=hours)
    schedules = [loaded.schedule for loaded in manifests.schedules]
    starts = storms(due for schedule in schedules for due in _until(due_after(schedule, now), ends))
    if output == JsonOutput.JSON:
        found = [
            {**_named(it), "nextScheduleTimes": [shown(due) for due in islice(due_after(it, now), count)]}
            for it in schedules
        ]
        say_json({"schedules": found, "hours": hours, "startsPerMinute": {f"{m:02}": n for m, n in starts.items()}})
        return 0
    rows = [(it.metadata.name, effective(it), *_columns(it, now, count)) for it in schedules]
    say(table([("NAME", "SCHEDULE", "NEXT", *[""] * (count - 1)), *rows]))
    say(f"\nstarts in the same minute, at most, within {plural(hours, 'hour')}:")
    say("\n".join(_bars(starts)) or "none")
    return 0


def _columns(schedule: ScheduledGeneration, now: datetime, count: int) -> list[str]:
    """The next times, and blanks where no more will come."""
    times = [shown(due) for due in islice(due_after(schedule, now), count)]
    return times + [""] * (count - len(times))


def _bars(starts: dict[int, int]) -> Iterable[str]:
    most = max(starts.values())
    return (f":{minute:02}  {'█' * max(1, n * _BAR // max(most, _BAR))} {n}" for minute, n in starts.items() if n)


def _until(moments: Iterable[datetime], end: datetime) -> Iterable[datetime]:
    for moment in moments:
        if moment >= end:
            return
        yield moment


def _named(schedule: ScheduledGeneration) -> dict[str, str]:
    metadata = schedule.metadata
    return {"namespace": metadata.namespace, "name": metadata.name, "effectiveSchedule": effective(schedule)}


def _ticks(schedule: ScheduledGeneration, span: tuple[str, str], most: int) -> list[datetime]:
    """Those of the time that is meant; on the clock of the schedule where no zone is named."""
    start, end = (_moment(schedule, flag, text) for flag, text in zip(("--from", "--to"), span, strict=True))
    if end > datetime.now(UTC):
        raise CliError("UsageError", "--to must not be in the future: those ticks come by themselves", BAD_INPUT)
    found = list(islice(ticks_between(schedule, start, end), most + 1))
    if len(found) > most:
        why = f"there are more than {most} ticks of {schedule.metadata.name} in that time"
        raise CliError("TooManyTicks", f"{why}: name a shorter one, or allow more with --max", BAD_INPUT)
    if not found:
        remark(f"{schedule.metadata.name} has no tick in that time")
    return found


def _moment(schedule: ScheduledGeneration, flag: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{flag} must be a time such as 2026-01-15T12:00 or 2026-01-15T12:00:00Z, not {text}"
        raise CliError("UsageError", message, BAD_INPUT) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=zone_of(schedule))


def _is_there(target: Target, run: OurObject) -> bool:
    """Whether the tick has had its run already, which is not run twice. One of our own that was interrupted goes on."""
    found = target.lookup(Ref.of(run))
    owned = found is not None and any(owner.controller for owner in found.metadata.owner_references)
    if found is None or not (owned or found.status.finished):
        return False
    remark(f"{run.metadata.name} is there already: {found.status.summary.state}")
    return True


def _refuse_cluster(where: Where, flag: str) -> None:
    if where.in_cluster:
        message = f"{flag} is for this machine: in a cluster kubectl apply the schedule, and its CronJob ticks"
        raise CliError("NotSupported", message, BAD_INPUT)
