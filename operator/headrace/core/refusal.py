"""An object that the API server took and the models refuse: what to tell its owner."""

from __future__ import annotations

from datetime import datetime

from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.common import Input, Model
from headrace.api.inferencebatch import InferenceBatch, InferenceBatchSpec, InferenceBatchStatus
from headrace.api.meta import ObjectMeta
from headrace.api.reasons import ConditionType, Reason
from headrace.core.conditions import transition_events, true, with_findings
from headrace.core.plan import Plan
from headrace.core.progress import summary


def refusal(found: JsonObject, now: datetime) -> tuple[InferenceBatch, Plan]:
    """The refused object, as far as it can be named, and the status that says what is wrong with it."""
    metadata = ObjectMeta.parse(found["metadata"])
    try:
        InferenceBatchSpec.parse(found.get("spec", {}))
        why = "its metadata or status is not of this version"
    except InvalidSpec as error:
        why = "; ".join(f"spec.{e}" for e in error.errors)
    try:
        before = InferenceBatchStatus.parse(found.get("status", {}))
    except InvalidSpec:
        before = InferenceBatchStatus()
    message = f"{why}. The installed CRD is older or newer than the operator: apply the operator's own"
    found_now = [true(ConditionType.FAILED, Reason.INVALID_SPEC, message)]
    conditions = with_findings(before.conditions, found_now, metadata.generation, now)
    status = before.model_copy(update={"conditions": conditions, "observed_generation": metadata.generation})
    status = status.model_copy(update={"summary": summary(status, now)})
    named = InferenceBatch(
        metadata=metadata,
        spec=InferenceBatchSpec(model=Model(name="unknown"), input=Input(inline=({},))),
        status=before,
    )
    return named, Plan(status=status, children=None, events=transition_events(before.conditions, conditions))
