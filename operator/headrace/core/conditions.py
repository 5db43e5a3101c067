"""Conditions: setting one without losing when it last changed, and the events that changes are worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.plan import Event


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one condition; the rest of a `Condition` follows from what it was before."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str


def true(kind: ConditionType, reason: Reason, message: str) -> Finding:
    """The condition holds."""
    return Finding(kind, ConditionStatus.TRUE, reason, message)


def false(kind: ConditionType, reason: Reason, message: str) -> Finding:
    """The condition does not hold."""
    return Finding(kind, ConditionStatus.FALSE, reason, message)


def unknown(kind: ConditionType, reason: Reason, message: str) -> Finding:
    """It is not known yet whether the condition holds."""
    return Finding(kind, ConditionStatus.UNKNOWN, reason, message)


def with_findings(
    before: Iterable[Condition], findings: Iterable[Finding], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions after some findings, in the order of `ConditionType`; a type without a finding stays as it was."""
    conditions = {c.type: c for c in before}
    for found in findings:
        old = conditions.get(found.type)
        unchanged = old is not None and old.status == found.status
        conditions[found.type] = Condition(
            type=found.type,
            status=found.status,
            reason=found.reason,
            message=found.message,
            last_transition_time=old.last_transition_time if old is not None and unchanged else now,
            observed_generation=generation,
        )
    order = {kind.value: i for i, kind in enumerate(ConditionType)}
    return tuple(sorted(conditions.values(), key=lambda c: order.get(c.type, len(order))))


_ALARMING = {
    (ConditionType.FAILED, ConditionStatus.TRUE),
    (ConditionType.INPUT_VALIDATED, ConditionStatus.FALSE),
    (ConditionType.PODS_READY, ConditionStatus.FALSE),
    (ConditionType.JOINED, ConditionStatus.FALSE),
    (ConditionType.DRIFT_EXCEEDED, ConditionStatus.TRUE),
    (ConditionType.READY, ConditionStatus.FALSE),
    (ConditionType.EVALUATED, ConditionStatus.FALSE),
    (ConditionType.DATA_DRIFT, ConditionStatus.TRUE),
    (ConditionType.ENDPOINTS_AVAILABLE, ConditionStatus.FALSE),
}
_ALARMING_REASONS = frozenset({Reason.PAUSED_BY_FAILURES, Reason.PAUSED_BY_DRIFT, Reason.NOT_COMPARED})


def transition_events(before: Iterable[Condition], after: Iterable[Condition]) -> tuple[Event, ...]:
    """One event for each condition whose status or reason changed."""
    known = {c.type: (c.status, c.reason) for c in before}
    return tuple(
        Event(c.reason, c.message, "Warning" if _alarming(c) else "Normal")
        for c in after
        if known.get(c.type) != (c.status, c.reason)
    )


def _alarming(condition: Condition) -> bool:
    return (condition.type, condition.status) in _ALARMING or condition.reason in _ALARMING_REASONS
