"""Verdicts: what was decided about a batch, with the numbers that it was decided by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headrace.api.reasons import Reason
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Shape
from headrace.core.admission.entry import Cause, Entry
from headrace.core.admission.ledger import NO_CAPS, NOTHING
from headrace.core.admission.order import Lane
from headrace.core.admission.ranking import Standing
from headrace.core.observed import Verdict

SHOWN = 3
"""Other batches that a message names."""
_SUSPENDED = Cause(Reason.SUSPENDED, "spec.suspend is true: set it to false to go on")
_GIVES_BACK = Cause(Reason.PREEMPTED, "its pods put their work away")
_NEXT = Cause(Reason.QUOTA_EXCEEDED, "is about to be decided")


def admitted(entry: Entry) -> Verdict:
    """The verdict on a batch that runs."""
    target, wanted = entry.target, entry.demand.pods
    if entry.giving is not None:
        message = f"{target} of {wanted} pods: it {entry.giving.message}"
    elif target < wanted:
        message = f"{target} of {wanted} pods; the others follow when there is room"
    else:
        message = "no limit stands in the way"
    return Verdict(admitted=True, message=message, pods=target)


def waiting(cause: Cause, standing: Standing | None, entry: Entry) -> Verdict:
    """The verdict on a batch that waits."""
    message = cause.message
    if entry.preempts:
        message = f"{message}; {_named(entry.preempts)} must give way first"
    if standing is None:
        return Verdict(admitted=False, reason=cause.reason, message=message)
    position, start = standing
    if start is not None and _too_late(entry, start):
        message = f"{message}; at this rate the deadline is missed"
    return Verdict(
        admitted=False,
        reason=cause.reason,
        message=message,
        position=position,
        ahead=position - 1,
        estimated_start=start,
        preempts=entry.preempts,
    )


def obstacle(compartment: Compartment, entry: Entry, now: datetime) -> Cause:
    """Why a batch does not run."""
    if entry.giving is not None:
        return entry.giving
    if entry.demand.suspended:
        return _SUSPENDED
    if entry.counted:
        return _GIVES_BACK
    lane = compartment.lanes.at(entry.demand.key)
    return entry.refused or shortage(compartment, lane or compartment.pledges.get(entry.demand.key), now)


def causes(compartment: Compartment, now: datetime) -> Iterator[tuple[Entry, Cause]]:
    """Why those wait who wait. Most of them stand in lanes; what stands in the way of one in a lane does in that of all."""
    entries = compartment.entries
    for lane, why in _shortages(compartment, now):
        for turn in lane.turns:
            yield entries[turn[-1]], why
    for key, entry in entries.items():
        if not entry.target and key not in compartment.lanes:
            yield entry, obstacle(compartment, entry, now)


def _shortages(compartment: Compartment, now: datetime) -> Iterator[tuple[Lane, Cause]]:
    """What stands in the way of each lane. It does not depend on the group of a lane, and rarely on its namespace."""
    by_namespace = compartment.namespace_caps is not NO_CAPS or bool(compartment.spec.budgets)
    found: dict[tuple[Shape, str], Cause] = {}
    for lane in compartment.lanes:
        if lane.shape.grows:
            continue
        alike = (lane.shape, lane.namespace if by_namespace else "")
        if alike not in found:
            found[alike] = shortage(compartment, lane, now)
        yield lane, found[alike]


def shortage(compartment: Compartment, lane: Lane | None, now: datetime) -> Cause:
    """What stands in the way of all in one lane."""
    if lane is None:
        return _NEXT
    in_doubt = compartment.breakers.why(lane.shape, now)
    if in_doubt:
        return Cause(Reason.BREAKER_OPEN, in_doubt)
    spent = compartment.budget_cause(lane.namespace, now) if compartment.spec.budgets else None
    if spent is not None:
        return spent
    lacks = compartment.caps.shortage(compartment.used, lane.shape)
    if lacks:
        return Cause(Reason.QUOTA_EXCEEDED, lacks)
    lacks = compartment.namespace_caps.shortage(compartment.used_by.get(lane.namespace, NOTHING), lane.shape)
    if lacks:
        return Cause(Reason.QUOTA_EXCEEDED, f"{lacks} by namespace {lane.namespace}")
    gate = compartment.gate(now)
    if gate is not None:
        return _gated(compartment, *gate)
    return _kept(compartment) if compartment.pledges else _NEXT


def _gated(compartment: Compartment, reason: Reason, until: datetime) -> Cause:
    limits = compartment.spec.capacity
    if reason == Reason.STARTS_PER_MINUTE:
        message = f"{limits.starts_per_minute} batches have started within a minute, the most that may"
    else:
        message = f"{compartment.spending.minute.used} of {limits.tokens_per_minute} tokens were used within a minute"
    return Cause(reason, f"{message}; the next may start at {until:%H:%M:%SZ}")


def _kept(compartment: Compartment) -> Cause:
    key, lane = next(iter(compartment.pledges.items()))
    since = compartment.entries[key].demand.since
    needs = compartment.caps.shortage(compartment.used, lane.shape)
    numbers = f" ({needs})" if needs else ""
    return Cause(Reason.CAPACITY_RESERVED, f"room is kept for {key}{numbers}, which waits since {since:%H:%M:%SZ}")


def _too_late(entry: Entry, start: datetime) -> bool:
    demand = entry.demand
    return demand.deadline is not None and start.timestamp() + (demand.run_seconds or 0.0) > demand.deadline.timestamp()


def _named(keys: tuple[str, ...]) -> str:
    shown = ", ".join(keys[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"
