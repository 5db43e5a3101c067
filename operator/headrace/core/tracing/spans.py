"""The spans that a change of an object's status is worth: a step of its life that is over, and its whole life when it has ended.

They are made when the status that shows it has been written, as events are, and out of it alone. A span that tells of a failure is
made whatever the sampler says, and so are those above it: from a failed record there is always a way up to the object, and to its tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from headrace.api import labels
from headrace.api.fanoutjob import FanOutJob
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.kinds import OurObject, OurStatus
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType
from headrace.api.tracing import Span, TraceContext, span_id_of
from headrace.core.tracing.context import context_of, given_context, parent_id
from headrace.core.tracing.settings import Tracing

Attributes = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Step:
    """A part of an object's life, as far as conditions tell of it."""

    name: str
    is_open: Callable[[OurStatus], bool]
    since: tuple[ConditionType, ...] = ()
    """It has begun when the last of these conditions has last changed; without any, with the object."""


def _read(status: OurStatus) -> bool:
    return status.is_true(ConditionType.INPUT_VALIDATED)


def _is_planning(status: OurStatus) -> bool:
    found = status.condition(ConditionType.INPUT_VALIDATED)
    return not status.finished and (found is None or found.status == ConditionStatus.UNKNOWN)


def _is_waiting(status: OurStatus) -> bool:
    return not status.finished and _read(status) and not status.is_true(ConditionType.ADMITTED)


def _is_running(status: OurStatus) -> bool:
    return not status.finished and status.is_true(ConditionType.ADMITTED)


def _has_branches_at_work(status: OurStatus) -> bool:
    return not status.finished and _read(status) and not status.is_true(ConditionType.BRANCHES_COMPLETE)


def _is_joining(status: OurStatus) -> bool:
    return not status.finished and status.is_true(ConditionType.BRANCHES_COMPLETE)


_PLANNING = Step("planning", _is_planning)
BATCH_STEPS = (
    _PLANNING,
    Step("waiting", _is_waiting, (ConditionType.INPUT_VALIDATED, ConditionType.ADMITTED)),
    Step("running", _is_running, (ConditionType.ADMITTED,)),
)
FAN_OUT_STEPS = (
    _PLANNING,
    Step("branches", _has_branches_at_work, (ConditionType.INPUT_VALIDATED, ConditionType.BRANCHES_COMPLETE)),
    Step("joining", _is_joining, (ConditionType.BRANCHES_COMPLETE,)),
)


def spans(before: OurObject, status: OurStatus, now: datetime, tracing: Tracing | None) -> tuple[Span, ...]:
    """What is worth telling once `status` has been written in place of the one that the object had."""
    if tracing is None:
        return ()
    return (*_steps(before, status, now, tracing), *_life(before, status, now, tracing))


def _steps(before: OurObject, status: OurStatus, now: datetime, tracing: Tracing) -> Iterator[Span]:
    """The steps that this change has ended."""
    context = context_of(before, before.status.retries, tracing)
    if not context.sampled:
        return
    for step in FAN_OUT_STEPS if isinstance(before, FanOutJob) else BATCH_STEPS:
        if step.is_open(before.status) and not step.is_open(status):
            start = _begun(before, step, now)
            ids = TraceContext(context.trace_id, span_id_of(context.span_id, step.name, start.isoformat()))
            yield Span(step.name, ids, context.span_id, start, now, _names(before))


def _begun(parent: OurObject, step: Step, now: datetime) -> datetime:
    """When a step has begun: not before its round, and not after its end."""
    found = filter(None, map(parent.status.condition, step.since))
    return min(now, max((_round_began(parent, now), *(condition.last_transition_time for condition in found))))


def _round_began(parent: OurObject, now: datetime) -> datetime:
    return parent.status.retry_time or parent.metadata.creation_timestamp or parent.status.start_time or now


def _life(before: OurObject, status: OurStatus, now: datetime, tracing: Tracing) -> Iterator[Span]:
    """The whole round, when this change has ended it; and the tick that it was for."""
    if before.status.finished or not status.finished:
        return
    round_ = status.retries
    context = context_of(before, round_, tracing)
    if not (context.sampled or _has_failures(status)):
        return
    start, end = min(now, _round_began(before, now)), status.completion_time or now
    kept = context._replace(sampled=True)
    name = f"{before.kind} {before.metadata.name}" + (f" retry {round_}" if round_ else "")
    attributes = {**_names(before), **_counts(before, status, round_)}
    yield Span(name, kept, parent_id(before, round_), start, end, attributes, _failure(status))
    if not round_:
        yield from _tick(before, end, _failure(status))


def _tick(run: OurObject, end: datetime, error: str) -> Iterator[Span]:
    """The tick of a run: all of it is in the run's annotations. A run that somebody has made by hand is in no tick's trace."""
    annotations, schedule = run.metadata.annotations, run.metadata.labels.get(labels.SCHEDULED_GENERATION)
    context, ticked = given_context(annotations), annotations.get(labels.TICK, "")
    start = _moment(ticked)
    if context is None or schedule is None or start is None:
        return
    attributes: Attributes = {
        "k8s.namespace.name": run.metadata.namespace,
        "headrace.schedule": schedule,
        "headrace.tick": ticked,
        "headrace.due": annotations.get(labels.DUE, ticked),
    }
    ids = context._replace(sampled=True)
    yield Span(f"tick of {schedule}", ids, None, min(start, end), end, attributes, error)


def _moment(text: str) -> datetime | None:
    """The moment in an annotation, which anybody may have written; None when it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else None


def _names(parent: OurObject) -> Attributes:
    metadata = parent.metadata
    return {
        "k8s.namespace.name": metadata.namespace,
        "headrace.kind": parent.kind,
        "headrace.name": metadata.name,
        "headrace.uid": metadata.uid,
    }


def _counts(parent: OurObject, status: OurStatus, round_: int) -> Attributes:
    records, usage = status.records, status.usage
    found: Attributes = {
        "headrace.round": round_,
        "headrace.reason": _end(status).reason,
        "headrace.records.total": records.total,
        "headrace.records.succeeded": records.succeeded,
        "headrace.records.failed": records.failed,
        "headrace.gpu_seconds": usage.gpu_seconds,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    if isinstance(parent, InferenceBatch):
        found |= {"gen_ai.request.model": parent.spec.model.name, "headrace.engine": str(parent.spec.engine.name)}
    return found


def _has_failures(status: OurStatus) -> bool:
    """Whether anything below may have made a span of a failure."""
    if isinstance(status, FanOutJobStatus):
        branches = any(branch.records.failed for branch in status.branches) or status.branch_counts.failed > 0
        return branches or bool(_failure(status) or status.records.failed)
    return bool(_failure(status) or status.records.failed)


def _end(status: OurStatus) -> Condition:
    ended = (status.condition(kind) for kind in (ConditionType.FAILED, ConditionType.COMPLETE))
    return next(it for it in ended if it is not None and it.status == ConditionStatus.TRUE)


def _failure(status: OurStatus) -> str:
    """Why it has failed; its message is in the status, where only those see it who may."""
    return str(_end(status).reason) if status.is_true(ConditionType.FAILED) else ""
