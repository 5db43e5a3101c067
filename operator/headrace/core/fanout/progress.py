"""What a person wants to read about a FanOutJob."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.api.batchstatus import Summary, Usage
from headrace.api.fanoutstatus import FanOutJobStatus
from headrace.api.reasons import ConditionType, Reason
from headrace.api.records import ErrorCode
from headrace.core.fanout.branches import BranchView, counts
from headrace.core.fanout.evenness import evenness, laggards
from headrace.core.fanout.observed import FanOutObserved
from headrace.core.fanout.savings import saved_tokens
from headrace.core.progress import earliest

_WITHOUT_RECORDS = (ErrorCode.NOT_ROUTED, ErrorCode.NOT_ESCALATED)


def progress(observed: FanOutObserved, branches: tuple[BranchView, ...]) -> dict[str, Any]:
    """The status fields that tell how far the branches are."""
    now, cancelled = observed.now, observed.fan_out.spec.cancel
    return {
        "branch_counts": counts(branches),
        "branches": tuple(view.status() for view in branches),
        "usage": _usage(branches),
        "wasted": _usage(view for view in branches if view.finished and not view.joined(cancelled=cancelled)),
        "evenness_percent": evenness(branches, now),
        "stragglers": laggards(branches, now),
        "saved_tokens": saved_tokens(branches),
        "first_record_time": earliest(
            view.child.status.first_record_time for view in branches if view.child is not None
        ),
    }


def _usage(branches: Iterable[BranchView]) -> Usage:
    return sum((view.child.status.usage for view in branches if view.child is not None), Usage())


def summary(status: FanOutJobStatus) -> Summary:
    """The display columns for a status."""
    total = sum(
        branch.records.total or status.records.total
        for branch in status.branches
        if branch.reason not in _WITHOUT_RECORDS
    )
    done = sum(branch.records.succeeded + branch.records.failed for branch in status.branches)
    return Summary(state=_state(status), progress=f"{done}/{total}" if total else "")


def _state(status: FanOutJobStatus) -> str:
    failed = status.condition(ConditionType.FAILED)
    if failed is not None and status.is_true(ConditionType.FAILED):
        return str(failed.reason)
    complete = status.condition(ConditionType.COMPLETE)
    if complete is not None and status.is_true(ConditionType.COMPLETE):
        return "PartiallySucceeded" if complete.reason == Reason.PARTIALLY_SUCCEEDED else "Complete"
    if failed is not None and failed.reason != Reason.RETRYING:
        return "Stopping"
    suspended = status.condition(ConditionType.SUSPENDED)
    if suspended is not None and suspended.reason != Reason.RESUMED:
        return "Suspended" if status.is_true(ConditionType.SUSPENDED) else "Draining"
    if not status.is_true(ConditionType.INPUT_VALIDATED):
        return "Planning"
    joined = status.condition(ConditionType.JOINED)
    return "Joining" if joined is not None and joined.reason == Reason.JOINING else "Running"


def listed(branches: Iterable[BranchView]) -> str:
    """Branches with the reasons of their ends: `terse (WorkerFailed), long (NotStarted)`."""
    return ", ".join(f"{view.branch.name} ({view.reason})" for view in branches)
