"""An object that the API server took and the models refuse: what to tell its owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.api.base import ApiModel, InvalidSpec, JsonObject
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.kinds import Kind, OurStatus
from headrace.api.meta import ObjectMeta
from headrace.api.reasons import ConditionType, Reason
from headrace.api.schedulestatus import ScheduledGenerationStatus
from headrace.core.conditions import false, transition_events, true, with_findings
from headrace.core.fanout.progress import summary as fan_out_summary
from headrace.core.plan import Plan
from headrace.core.progress import summary
from headrace.core.schedule.progress import summary as schedule_summary


@dataclass(frozen=True, slots=True)
class Refused:
    """The refused object, as far as it can be named."""

    kind: str
    metadata: ObjectMeta


def refusal(found: JsonObject, kind: Kind, now: datetime) -> tuple[Refused, Plan[Any]]:
    """The refused object, and the status that says what is wrong with it."""
    metadata = ObjectMeta.parse(found["metadata"])
    try:
        kind.spec.parse(found.get("spec", {}))
        why = "its metadata or status is not of this version"
    except InvalidSpec as error:
        why = "; ".join(f"spec.{e}" for e in error.errors)
    before = _status(kind, found)
    message = f"{why}. The installed CRD is older or newer than the operator: apply the operator's own"
    if isinstance(before, ScheduledGenerationStatus):
        found_now = false(ConditionType.READY, Reason.INVALID_SPEC, message)
    else:
        found_now = true(ConditionType.FAILED, Reason.INVALID_SPEC, message)
    conditions = with_findings(before.conditions, [found_now], metadata.generation, now)
    status = before.model_copy(update={"conditions": conditions, "observed_generation": metadata.generation})
    plan: Plan[ApiModel] = Plan(
        status=status.model_copy(update={"summary": _shown(status, now)}),
        children=None,
        events=transition_events(before.conditions, conditions),
    )
    return Refused(kind.name, metadata), plan


def _shown(status: OurStatus | ScheduledGenerationStatus, now: datetime) -> ApiModel:
    if isinstance(status, ScheduledGenerationStatus):
        return schedule_summary(status)
    return fan_out_summary(status) if isinstance(status, FanOutJobStatus) else summary(status, now)


def _status(kind: Kind, found: JsonObject) -> OurStatus | ScheduledGenerationStatus:
    """The status so far; none when it is not of this version either."""
    try:
        status = kind.status.parse(found.get("status", {}))
    except InvalidSpec:
        status = kind.status()
    assert isinstance(status, OurStatus | ScheduledGenerationStatus)
    return status
