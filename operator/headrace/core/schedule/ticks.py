"""What becomes of a tick: it waits for its share of the jitter, is begun as one run, and is over when the run is.

The API server is strict with whoever ends a Job in the place of Kubernetes: a start before an end, `SuccessCriteriaMet` with `Complete`,
`FailureTarget` with `Failed`, a completion time for the one and none for the other, and nothing is ever taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from headrace.api.base import JsonObject
from headrace.api.inferencebatch import MAX_NAME_LENGTH
from headrace.api.kinds import OurObject
from headrace.api.meta import Condition
from headrace.api.reasons import ConditionType, Reason
from headrace.core.plan import JobStatus
from headrace.core.schedule.observed import ScheduleObserved, Tick, tick_of
from headrace.core.schedule.retries import is_over, own_retries
from headrace.core.schedule.waiting import fits, waiting


def job_statuses(observed: ScheduleObserved) -> Iterator[JobStatus]:
    """What the Jobs of ticks are to say that do not say it yet."""
    given_up = {one.name: one.unmet for one in waiting(observed) if one.given_up}
    for tick in observed.ticks:
        status = None if tick.finished else _passed_over(tick, given_up) or _status(observed, tick)
        if status is not None:
            yield JobStatus(tick.namespace, tick.name, tick.uid, status)


def replaced(observed: ScheduleObserved) -> frozenset[str]:
    """Runs whose Job the CronJob controller has deleted to make room for a later tick.

    That a later Job is known proves that the earlier one is gone, and not only unheard of yet: one stream tells of both, in order.
    """
    latest = max((tick.time for tick in observed.ticks), default=None)
    there = {tick.name for tick in observed.ticks}
    return frozenset(
        name
        for name, run in observed.runs.items()
        if name not in there and _is_ours(run) and latest is not None and (tick_of(run) or latest) < latest
    )


def _is_ours(run: OurObject) -> bool:
    """Whether nobody else has had it tried again."""
    return run.retries_asked <= own_retries(run)


def _passed_over(tick: Tick, given_up: Mapping[str, str]) -> JsonObject | None:
    if tick.name not in given_up:
        return None
    message = f"it was not run: {given_up[tick.name]}"
    conditions = _conditions(("FailureTarget", "Failed"), Reason.DEPENDENCY_NOT_MET, message, tick.time)
    return {"startTime": _rfc3339(tick.time), "conditions": conditions}


def _status(observed: ScheduleObserved, tick: Tick) -> JsonObject | None:
    run = observed.runs.get(tick.name)
    if run is None:
        return None if fits(observed, tick) else _refused(tick)
    begun = run.metadata.creation_timestamp or tick.time
    if not is_over(observed, run):
        return None if tick.started else {"startTime": _rfc3339(begun)}
    return _ended(run, begun)


def _ended(run: OurObject, begun: datetime) -> JsonObject:
    at = max(run.status.completion_time or begun, begun)
    complete = run.status.condition(ConditionType.COMPLETE)
    if complete is not None and run.status.is_true(ConditionType.COMPLETE):
        conditions = _conditions(("SuccessCriteriaMet", "Complete"), complete.reason, complete.message, at)
        return {"startTime": _rfc3339(begun), "completionTime": _rfc3339(at), "conditions": conditions}
    failed: Condition | None = run.status.condition(ConditionType.FAILED)
    assert failed is not None
    conditions = _conditions(("FailureTarget", "Failed"), failed.reason, failed.message, at)
    return {"startTime": _rfc3339(begun), "conditions": conditions}


def _refused(tick: Tick) -> JsonObject:
    message = f"a run cannot be called {tick.name}: it must have at most {MAX_NAME_LENGTH} characters, with a branch's, and no dot"
    conditions = _conditions(("FailureTarget", "Failed"), Reason.INVALID_SPEC, message, tick.time)
    return {"startTime": _rfc3339(tick.time), "conditions": conditions}


def _conditions(kinds: tuple[str, str], reason: str, message: str, at: datetime) -> list[JsonObject]:
    common = {"status": "True", "reason": str(reason), "message": message, "lastTransitionTime": _rfc3339(at)}
    return [{"type": kind, **common} for kind in kinds]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
