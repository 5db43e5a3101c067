"""Whether the branches of a fan-out have drifted from their references: one word for all of them."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.inferencebatch import InferenceBatch
from headrace.api.meta import Condition, ConditionStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.core.conditions import Finding, false, true, unknown


def data_drift(children: Mapping[str, InferenceBatch]) -> tuple[Finding, ...]:
    """What the branches say together: drift, if one says so; that nobody knows, if one says that; nothing as long as none says anything."""
    said = {
        branch: found
        for branch, child in children.items()
        if (found := child.status.condition(ConditionType.DATA_DRIFT)) is not None
    }
    changed = {name: one for name, one in said.items() if one.status == ConditionStatus.TRUE}
    if changed:
        return (true(ConditionType.DATA_DRIFT, Reason.DISTRIBUTION_CHANGED, _told(changed)),)
    doubtful = {name: one for name, one in said.items() if one.status == ConditionStatus.UNKNOWN}
    if doubtful:
        return (unknown(ConditionType.DATA_DRIFT, Reason.NOT_COMPARED, _told(doubtful)),)
    return (false(ConditionType.DATA_DRIFT, Reason.DISTRIBUTION_UNCHANGED, _told(said)),) if said else ()


def _told(said: Mapping[str, Condition]) -> str:
    return ". ".join(f"{branch}: {found.message}" for branch, found in said.items())[:_MOST]


_MOST = 16_384
"""Characters, which a condition has room for."""
