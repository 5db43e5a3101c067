"""What a person wants to read: state, progress, fill, and when it will be done."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from headrace.api.batchstatus import BatchLimits, InferenceBatchStatus, Summary
from headrace.api.common import Batching
from headrace.api.reasons import ConditionType, Reason
from headrace.core.counts import Tally


def batch_places(batching: Batching, found: BatchLimits | None) -> int:
    """Records that a batch may have: as the spec says, else as the workers have found."""
    return batching.max_batch_size or (found.max_batch_size if found is not None else 0) or batching.size


def largest(limits: Iterable[BatchLimits | None]) -> BatchLimits | None:
    """The largest of those that are known; None when none is."""
    known = [one for one in limits if one is not None]
    if not known:
        return None
    return BatchLimits(
        max_batch_size=max(one.max_batch_size for one in known),
        max_batch_tokens=max(one.max_batch_tokens for one in known),
    )


def fill_percent(counts: Tally, places: int) -> int | None:
    """Records in a batch as a share of its places, over all batches so far; None before the first."""
    if not counts.batches:
        return None
    return min(100, round(100 * counts.batched_records / (counts.batches * places)))


def completion_estimate(counts: Tally, now: datetime) -> datetime | None:
    """When the batch will be done at its present speed; None while it does not move."""
    if counts.records_per_second <= 0 or not counts.records.pending:
        return None
    return now + timedelta(seconds=counts.records.pending / counts.records_per_second)


def earliest(moments: Iterable[datetime | None]) -> datetime | None:
    """The first of those that are known; None when none is."""
    return min((moment for moment in moments if moment is not None), default=None)


def summary(status: InferenceBatchStatus, now: datetime) -> Summary:
    """The display columns for a status."""
    records, eta = status.records, status.estimated_completion_time
    done = records.succeeded + records.failed
    return Summary(
        state=_state(status),
        progress=f"{done}/{records.total}" if records.total else "",
        fill=f"{status.batch_fill_percent}%" if status.batch_fill_percent is not None else "",
        eta=_duration(eta - now) if eta is not None and not status.finished else "",
    )


def _state(status: InferenceBatchStatus) -> str:
    failed = status.condition(ConditionType.FAILED)
    if failed is not None and status.is_true(ConditionType.FAILED):
        return str(failed.reason)
    if status.is_true(ConditionType.COMPLETE):
        return "Complete"
    if failed is not None and failed.reason != Reason.RETRYING:
        return "Stopping"
    suspended = status.condition(ConditionType.SUSPENDED)
    if suspended is not None and suspended.reason != Reason.RESUMED:
        return "Suspended" if status.is_true(ConditionType.SUSPENDED) else "Draining"
    available = status.condition(ConditionType.ENDPOINTS_AVAILABLE)
    if available is not None and available.reason in (Reason.PARKED, Reason.BREAKER_OPEN):
        leaving = available.reason == Reason.PARKED and status.shards.active
        return "Draining" if leaving else str(available.reason)
    stuck = status.condition(ConditionType.PODS_READY)
    if stuck is not None and not status.is_true(ConditionType.PODS_READY):
        return str(stuck.reason)
    if not status.is_true(ConditionType.INPUT_VALIDATED):
        return "Planning"
    if not status.is_true(ConditionType.ADMITTED):
        held = status.admission is not None and status.admission.pods
        return "Draining" if held or status.shards.active else "Waiting"
    evaluated = status.condition(ConditionType.EVALUATED)
    if evaluated is not None and evaluated.reason == Reason.EVALUATING and not status.records.pending:
        return "Evaluating"
    return "Running" if status.shards.active else "Starting"


def _duration(span: timedelta) -> str:
    """Two units at most, as kubectl writes ages: `45s`, `3m20s`, `2h5m`, `3d4h`."""
    seconds = max(0, round(span.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[tuple[int, str]] = []
    for unit, size in units:
        amount, seconds = divmod(seconds, size)
        if amount or parts or unit == "s":
            parts.append((amount, unit))
    return "".join(f"{amount}{unit}" for amount, unit in parts[:2] if amount or len(parts) == 1)
