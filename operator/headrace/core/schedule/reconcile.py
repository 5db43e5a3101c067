"""The decision: from one look at a ScheduledGeneration to what there should be.

There is one CronJob, and it decides when something begins. Its Jobs are ours to begin and to end: each that is due becomes one run, and
ends as the run does. So concurrency, deadlines and history are the CronJob's, and all that is known about running is the run's. What is
to run once has no CronJob, and one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from headrace.api.base import JsonObject
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulepolicies import ConcurrencyPolicy
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.core.conditions import Finding, false, transition_events, true, unknown, with_findings
from headrace.core.plan import Plan
from headrace.core.progress import earliest
from headrace.core.schedule import drift, failures, looking, offpeak, once
from headrace.core.schedule.carrying import carried_from, must_wait
from headrace.core.schedule.catchup import told as remembered
from headrace.core.schedule.check import schedule_problems
from headrace.core.schedule.children import as_it_is, cron_job, is_ours_to_end, paused, run_of
from headrace.core.schedule.datadrift import drifted
from headrace.core.schedule.dependencies import cycle_problems
from headrace.core.schedule.history import kept, told
from headrace.core.schedule.listing import listing_job
from headrace.core.schedule.observed import ScheduleObserved
from headrace.core.schedule.obstacles import waits
from headrace.core.schedule.progress import summary
from headrace.core.schedule.retention import retention_problems
from headrace.core.schedule.retries import retry_time
from headrace.core.schedule.ticks import job_statuses, replaced
from headrace.core.schedule.times import cron_of, deadline_of, due_after, effective, moment_of
from headrace.core.schedule.trigger import name_problems
from headrace.core.schedule.waiting import waiting
from headrace.core.step import Step

SHOWN_TIMES = 3
_AFTER = timedelta(seconds=1)
"""After a deadline: when it is surely over."""
_TOO_OLD = (
    "its CronJob has lost jobTemplate.spec.managedBy, without which Kubernetes would start pods for each tick: Kubernetes must be 1.32 "
    "or newer; where it is, somebody has edited the CronJob: delete it"
)

_PAUSED = (
    "no tick comes: spec.suspendAfterFailures runs in a row have failed, and status.runs tells of what; mend it, then have a run made "
    "by hand with kubectl create job NAME --from=cronjob/SCHEDULE, or change the spec"
)


def reconcile(observed: ScheduleObserved) -> Plan[ScheduledGenerationStatus]:
    """What there should be: children, the statuses of Jobs, status, events, and when to look again."""
    schedule = observed.schedule
    if schedule.metadata.deletion_timestamp is not None:
        return Plan(status=schedule.status, children=None)  # owner references take the children along
    return _plan(observed, _next_step(observed))


def _next_step(observed: ScheduleObserved) -> Step:
    problems = (
        *schedule_problems(observed.schedule, observed.installation, observed.now),
        *cycle_problems(observed.schedule, observed.schedules),
        *name_problems(observed),
    ) or retention_problems(observed)
    if problems:
        return _halted(observed, false(ConditionType.READY, Reason.INVALID_SPEC, "; ".join(map(str, problems))))
    if moment_of(observed.schedule) is not None:
        return _once(observed)
    if observed.schedule.spec.trigger is not None:
        return _triggered(observed)
    if observed.cron_job is None:
        # Let no tick come before it is known that Kubernetes will leave it to us.
        checking = unknown(ConditionType.READY, Reason.CHECKING_KUBERNETES, "the CronJob is being made")
        return Step((_cron_job(observed, suspend=True), *_runs(observed)), (checking,))
    if not is_ours_to_end(observed.cron_job):
        return _halted(observed, false(ConditionType.READY, Reason.KUBERNETES_TOO_OLD, _TOO_OLD))
    return _scheduled(observed)


def _halted(observed: ScheduleObserved, why: Finding) -> Step:
    """No more ticks, and no more runs; those that have begun go on."""
    children = (*_paused(observed), *_runs(observed, keep_to_windows=False))
    return Step(children, (why,), {"next_schedule_times": (), "watched_time": None})


def _scheduled(observed: ScheduleObserved) -> Step:
    rests = _rests(observed)
    children = (_cron_job(observed, suspend=rests), *_runs(observed), *_begun(observed))
    message = "no tick comes: it is suspended" if rests else "each tick becomes a run"
    ready = true(ConditionType.READY, Reason.SCHEDULED, message)
    findings = (ready, *_suspension(observed), *waits(observed))
    return Step(children, findings, {**_next_times(observed), **remembered(observed, _given_up(observed))})


def _once(observed: ScheduleObserved) -> Step:
    """A CronJob that is left of a schedule that this has been ticks no more."""
    children = (*_paused(observed), *_runs(observed), *_begun(observed))
    findings = (once.readiness(observed), *_suspension(observed), *waits(observed))
    changes = {**_next_times(observed), **remembered(observed), **once.remembered(observed, _given_up(observed))}
    return Step(children, findings, changes)


def _triggered(observed: ScheduleObserved) -> Step:
    """Runs begin by what is listed. While one does, the Job that has found its objects stays: it says the same again after a restart."""
    window = looking.to_list(observed)
    looks = (listing_job(observed.schedule, observed.installation, window),) if window is not None else ()
    children = (*_paused(observed), *_runs(observed), *_begun(observed), *looks)
    message = "no run begins: it is suspended" if _rests(observed) else f"a run begins {effective(observed.schedule)}"
    ready = true(ConditionType.READY, Reason.WATCHING, message)
    findings = (ready, *_suspension(observed), *looking.findings(observed), *waits(observed))
    changes = {**_next_times(observed), **remembered(observed), **looking.told(observed)}
    return Step(children, findings, changes)


def _begun(observed: ScheduleObserved) -> tuple[JsonObject, ...]:
    """The runs that begin now: those of all ticks that may, or one after the other where each takes up what the last has left."""
    ready = [one for one in waiting(observed) if one.begins <= observed.now and not one.unmet]
    if observed.schedule.spec.carry_failed_records:
        ready = [] if must_wait(observed) else ready[:1]
    carried = carried_from(observed)
    tracing = observed.installation.tracing
    return tuple(run_of(observed.schedule, one, carried, tracing) for one in ready)


def _given_up(observed: ScheduleObserved) -> frozenset[datetime]:
    """Ticks that are not run, for what they depend on."""
    return frozenset(one.tick for one in waiting(observed) if one.given_up)


def _next_times(observed: ScheduleObserved) -> dict[str, Any]:
    schedule = observed.schedule
    coming = () if _rests(observed) else islice(due_after(schedule, observed.now), SHOWN_TIMES)
    return {"effective_schedule": effective(schedule), "next_schedule_times": tuple(coming)}


def _rests(observed: ScheduleObserved) -> bool:
    """Whether no tick is to come."""
    return observed.schedule.spec.suspend or failures.paused(observed) or drifted(observed) is not None


def _paused(observed: ScheduleObserved) -> tuple[JsonObject, ...]:
    """The CronJob, if there is one, without ticks."""
    return (paused(observed.cron_job),) if observed.cron_job is not None else ()


def _cron_job(observed: ScheduleObserved, *, suspend: bool) -> JsonObject:
    return cron_job(observed.schedule, cron_of(observed.schedule), suspend=suspend)


def _runs(observed: ScheduleObserved, *, keep_to_windows: bool = True) -> Iterable[JsonObject]:
    """The runs that there are, without those that history has no more room for.

    One that was replaced is cancelled, one whose next try is due is tried again.
    """
    policy = observed.schedule.spec.concurrency_policy
    cancelled = replaced(observed) if policy == ConcurrencyPolicy.REPLACE else frozenset()
    return [
        as_it_is(
            run,
            cancel=run.metadata.name in cancelled and not run.status.finished,
            again=_next_try_is_due(observed, run),
            window=offpeak.news_for(observed, run) if keep_to_windows else None,
        )
        for run in kept(observed)
    ]


def _next_try_is_due(observed: ScheduleObserved, run: OurObject) -> bool:
    at = retry_time(observed, run)
    return at is not None and at <= observed.now


def _suspension(observed: ScheduleObserved) -> tuple[Finding, ...]:
    if observed.schedule.spec.suspend:
        return (true(ConditionType.SUSPENDED, Reason.SUSPENDED, "no tick comes; set spec.suspend to false to go on"),)
    if failures.paused(observed):
        return (true(ConditionType.SUSPENDED, Reason.PAUSED_BY_FAILURES, _PAUSED),)
    change = drifted(observed)
    if change is not None:
        return (true(ConditionType.SUSPENDED, Reason.PAUSED_BY_DRIFT, change),)
    if observed.schedule.status.condition(ConditionType.SUSPENDED) is None:
        return ()
    return (false(ConditionType.SUSPENDED, Reason.RESUMED, "the next tick becomes a run"),)


def _plan(observed: ScheduleObserved, step: Step) -> Plan[ScheduledGenerationStatus]:
    """Turn a step into the whole answer."""
    before, generation, now = observed.schedule.status, observed.schedule.metadata.generation, observed.now
    findings = (*step.findings, *drift.findings(observed))
    conditions = with_findings(_lasting(observed), findings, generation, now)
    common = {
        "observed_generation": generation,
        "conditions": conditions,
        **told(observed),
        **drift.told(observed),
        **failures.told(observed),
    }
    status = before.model_copy(update=common | dict(step.changes))
    status = status.model_copy(update={"summary": summary(status)})
    return Plan(
        status=status,
        children=step.children,
        events=transition_events(before.conditions, conditions),
        look_again_after=_look_again(observed, status),
        job_statuses=tuple(job_statuses(observed)),
    )


def _lasting(observed: ScheduleObserved) -> tuple[Condition, ...]:
    """The conditions so far that still are about something."""
    schedule = observed.schedule
    gone = () if schedule.spec.trigger is not None else (ConditionType.INPUT_LISTED,)
    return tuple(known for known in schedule.status.conditions if known.type not in gone)


def _look_again(observed: ScheduleObserved, status: ScheduledGenerationStatus) -> timedelta | None:
    """At the next moment in which something is due: a tick that waits for its jitter, or a new answer to what comes next."""
    made, before = status.condition(ConditionType.READY), observed.schedule.status
    checking = made is not None and made.reason == Reason.CHECKING_KUBERNETES
    news = _remembered(status) != _remembered(before)
    if checking or news or once.is_news(observed, status):
        return timedelta(0)
    moment = earliest(_moments(observed, status))
    return moment - observed.now if moment is not None else None


def _remembered(status: ScheduledGenerationStatus) -> tuple[object, ...]:
    """What the status alone remembers: where it is new, more may be done once that is written."""
    return (
        status.missed,
        status.last_successful_time,
        status.trigger.cursor_time if status.trigger is not None else None,
    )


def _moments(observed: ScheduleObserved, status: ScheduledGenerationStatus) -> Iterator[datetime | None]:
    yield drift.next_excess(observed)
    tries = (retry_time(observed, run) for run in observed.runs.values())
    yield from (moment for moment in tries if moment is not None and moment > observed.now)
    if status.is_true(ConditionType.READY):
        yield from status.next_schedule_times[:1]
        yield from offpeak.changes(observed)
        yield from looking.changes(observed)
        for one in waiting(observed):
            deadline = deadline_of(observed.schedule, one.tick)
            if one.begins > observed.now:
                yield one.begins
            elif one.unmet and one.has_deadline and not one.given_up and deadline is not None:
                yield deadline + _AFTER
