"""Which runs stay, and what the status tells of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from headrace.api.kinds import OurObject
from headrace.api.reasons import ConditionType
from headrace.api.schedulestatus import SHOWN_RUNS, Run
from headrace.core.schedule.carrying import last_begun
from headrace.core.schedule.drift import drift, seconds
from headrace.core.schedule.failures import counting, last_success, latest
from headrace.core.schedule.observed import ScheduleObserved, latest_first, run_name, tick_of
from headrace.core.schedule.once import is_remembered
from headrace.core.schedule.retries import is_over, retry_time
from headrace.core.schedule.times import moment_of
from headrace.core.schedule.trigger import is_unremembered


def kept(observed: ScheduleObserved) -> tuple[OurObject, ...]:
    """All runs but the ended ones that are more than the spec says. A run stays until the Job of its tick tells how it has ended."""
    spec, needed = observed.schedule.spec, _needed(observed)
    ended = [run for run in latest_first(observed) if is_over(observed, run)]
    complete = [run for run in ended if run.status.is_true(ConditionType.COMPLETE)]
    failed = [run for run in ended if not run.status.is_true(ConditionType.COMPLETE)]
    surplus = (*complete[spec.successful_jobs_history_limit :], *failed[spec.failed_jobs_history_limit :])
    names = {run.metadata.name for run in surplus} - needed
    return tuple(run for name, run in observed.runs.items() if name not in names)


def _needed(observed: ScheduleObserved) -> set[str]:
    """Runs that tell something: how a tick has ended, when one was complete, that some have failed in a row, what is left to do."""
    last = last_begun(observed) if observed.schedule.spec.carry_failed_records else None
    status, most = observed.schedule.status, observed.schedule.spec.suspend_after_failures or 0
    told_of = status.last_successful_time
    news = (
        run.metadata.name
        for run in observed.runs.values()
        if (ended := _completed(run)) is not None and (told_of is None or ended > told_of)
    )
    untold = (tick.name for tick in observed.ticks if not tick.finished)
    chain = () if last is None else (last.metadata.name,)
    return {*untold, *news, *chain, *_unremembered(observed), *(run.metadata.name for run in counting(observed)[:most])}


def _unremembered(observed: ScheduleObserved) -> set[str]:
    """Runs that would be made again if they were gone: the status does not say yet that they were there."""
    once = moment_of(observed.schedule)
    open_ = [*observed.schedule.status.missed, *([once] if once is not None and not is_remembered(observed) else ())]
    triggered = (name for name, run in observed.runs.items() if is_unremembered(observed, run))
    return {*triggered, *(run_name(observed.schedule.metadata.name, tick) for tick in open_)}


def told(observed: ScheduleObserved) -> dict[str, Any]:
    """The status fields that tell of runs."""
    before, runs = observed.schedule.status, latest_first(observed)
    return {
        "active": sum(not is_over(observed, run) for run in runs),
        "runs": tuple(_shown(observed, run) for run in runs[:SHOWN_RUNS]),
        "last_schedule_time": latest(
            (before.last_schedule_time, *(it.time for it in observed.ticks if not it.asked_for))
        ),
        "last_successful_time": last_success(observed),
    }


def _shown(observed: ScheduleObserved, run: OurObject) -> Run:
    window, tick = run.spec.input.window, tick_of(run) or observed.now
    return Run(
        name=run.metadata.name,
        tick=tick,
        window_start=window.start_time if window is not None else tick,
        window_end=window.end_time if window is not None else tick,
        state=run.status.summary.state or "Pending",
        records=run.status.records,
        completion_time=run.status.completion_time,
        drift_seconds=seconds(drift(run)),
        retries=run.status.retries,
        retry_time=retry_time(observed, run),
    )


def _completed(run: OurObject) -> datetime | None:
    return run.status.completion_time if run.status.is_true(ConditionType.COMPLETE) else None
