"""Verdicts: what was decided about a batch, with the numbers that it was decided by."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from headrace.api.reasons import Reason
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.demand import Demand, Shape
from headrace.core.admission.entry import Cause, Entry
from headrace.core.admission.ledger import NO_CAPS, NOTHING
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
    message, preempts = cause.message, entry.preempts
    if preempts:
        message = f"{message}; {_named(preempts)} must give way first"
    if standing is None:
        return Verdict(admitted=False, reason=cause.reason, message=message)
    position, start = standing
    if (
        start is not None
        and entry.demand.deadline is not None
        and _too_late(entry.demand, entry.demand.deadline, start)
    ):
        message = f"{message}; at this rate the deadline is missed"
    return Verdict(
        admitted=False,
        reason=cause.reason,
        message=message,
        position=position,
        ahead=position - 1,
        estimated_start=start,
        preempts=preempts,
    )


def obstacle(compartment: Compartment, entry: Entry, now: datetime) -> Cause:
    """Why a batch does not run."""
    if entry.giving is not None:
        return entry.giving
    if entry.demand.suspended:
        return _SUSPENDED
    if entry.counted:
        return _GIVES_BACK
    if entry.refused is not None or not entry.group:
        return entry.refused or _NEXT
    return shortage(compartment, entry.shape, entry.demand.namespace, now)


def causes(compartment: Compartment, now: datetime) -> Iterator[tuple[Entry, Cause]]:
    """Why those wait who wait. Most of them stand in line, and what stands in the way of one does in that of all of its shape."""
    by_namespace = compartment.accounts.namespace_caps is not NO_CAPS or bool(compartment.spec.budgets)
    pledges, shortages = compartment.pledges, dict[str, _Shortages]()
    for key, entry in compartment.entries.items():
        if entry.target:
            continue
        if not entry.group or key in pledges:
            yield entry, obstacle(compartment, entry, now)
            continue
        namespace = entry.demand.namespace if by_namespace else ""
        known = shortages.get(namespace)
        if known is None:
            known = shortages[namespace] = _Shortages(compartment, namespace, now)
        yield entry, known[entry.shape]


class _Shortages(dict[Shape, Cause]):
    """What stands in the way of each shape. Unless a breaker is in doubt, it is the same for all of a size."""

    def __init__(self, compartment: Compartment, namespace: str, now: datetime) -> None:
        super().__init__()
        self._compartment, self._namespace, self._now = compartment, namespace, now

    def __missing__(self, shape: Shape) -> Cause:
        """It is asked for the first time."""
        if shape is shape.size or self._compartment.breakers.known:
            cause = shortage(self._compartment, shape, self._namespace, self._now)
        else:
            cause = self[shape.size]
        self[shape] = cause
        return cause


def shortage(compartment: Compartment, shape: Shape, namespace: str, now: datetime) -> Cause:
    """What stands in the way of all of one shape and namespace."""
    in_doubt = compartment.breakers.why(shape, now)
    if in_doubt:
        return Cause(Reason.BREAKER_OPEN, in_doubt)
    spent = compartment.spending.cause(namespace, now) if compartment.spec.budgets else None
    if spent is not None:
        return spent
    lacks = compartment.accounts.caps.shortage(compartment.accounts.used, shape)
    if lacks:
        return Cause(Reason.QUOTA_EXCEEDED, lacks)
    lacks = compartment.accounts.namespace_caps.shortage(compartment.accounts.used_by.get(namespace, NOTHING), shape)
    if lacks:
        return Cause(Reason.QUOTA_EXCEEDED, f"{lacks} by namespace {namespace}")
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
    first = next(iter(compartment.pledges.values()))
    needs = compartment.accounts.caps.shortage(compartment.accounts.used, first.shape)
    numbers = f" ({needs})" if needs else ""
    return Cause(
        Reason.CAPACITY_RESERVED,
        f"room is kept for {first.demand.key}{numbers}, which waits since {first.demand.since:%H:%M:%SZ}",
    )


def _too_late(demand: Demand, deadline: datetime, start: datetime) -> bool:
    return start.timestamp() + (demand.run_seconds or 0.0) > deadline.timestamp()


def _named(keys: tuple[str, ...]) -> str:
    shown = ", ".join(keys[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"
