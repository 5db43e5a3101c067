"""What a Bulkhead's own status says: what is held, what waits, and what is used up."""

from __future__ import annotations

from datetime import datetime

from headrace.api.bulkhead import Bulkhead
from headrace.api.bulkheadstatus import BreakerStatus, BulkheadStatus, BulkheadSummary, HeldAmounts, NamespaceUse
from headrace.api.reasons import ConditionType, Reason
from headrace.core.admission.compartment import Compartment
from headrace.core.admission.entry import Entry
from headrace.core.admission.ledger import NOTHING
from headrace.core.breaker import State
from headrace.core.conditions import Finding, false, true, with_findings

SHOWN_NAMESPACES = 256
SHOWN_BREAKERS = 64


def bulkhead_status(bulkhead: Bulkhead, compartment: Compartment, now: datetime) -> BulkheadStatus:
    """The whole next status."""
    waiting = [entry for entry in compartment.entries.values() if not entry.target and entry.group]
    since = min((entry.demand.since for entry in waiting), default=None)
    used, caps = compartment.accounts.used, compartment.accounts.caps
    generation = bulkhead.metadata.generation
    return BulkheadStatus(
        observed_generation=generation,
        conditions=with_findings(bulkhead.status.conditions, (_saturated(compartment, waiting),), generation, now),
        used=HeldAmounts(gpus=used.gpus, pods=used.pods, batches=used.batches, endpoint_calls=used.calls),
        waiting=len(waiting),
        oldest_wait_time=since,
        namespaces=_namespaces(compartment, waiting),
        budgets=compartment.spending.uses(now),
        breakers=_breakers(compartment, now),
        summary=BulkheadSummary(gpus=_of(used.gpus, caps.gpus), pods=_of(used.pods, caps.pods)),
    )


def _saturated(compartment: Compartment, waiting: list[Entry]) -> Finding:
    if not waiting:
        return false(ConditionType.SATURATED, Reason.CAPACITY_AVAILABLE, "nothing waits")
    numbers = (
        ("GPU", compartment.accounts.used.gpus, compartment.accounts.caps.gpus),
        ("pods", compartment.accounts.used.pods, compartment.accounts.caps.pods),
    )
    used = ", ".join(f"{have} of {limit} {unit}" for unit, have, limit in numbers if limit is not None)
    held = f"; {used} used" if used else ""
    return true(ConditionType.SATURATED, Reason.QUOTA_EXCEEDED, f"{len(waiting)} batches wait{held}")


def _breakers(compartment: Compartment, now: datetime) -> tuple[BreakerStatus, ...]:
    if not compartment.breakers.known:
        return ()
    names = {name for entry in compartment.entries.values() for name in entry.demand.shape.breakers}
    found = compartment.breakers.not_closed(names, now)[:SHOWN_BREAKERS]
    return tuple(
        BreakerStatus(
            name=name,
            state="Open" if breaker.state(now) == State.OPEN else "HalfOpen",
            retry_time=breaker.retry_at,
            probe=breaker.probe,
        )
        for name, breaker in found
    )


def _namespaces(compartment: Compartment, waiting: list[Entry]) -> tuple[NamespaceUse, ...]:
    lines: dict[str, int] = {}
    for entry in waiting:
        lines[entry.demand.namespace] = lines.get(entry.demand.namespace, 0) + 1
    names = {name for name, held in compartment.accounts.used_by.items() if held.pods} | lines.keys()
    ledgers = {name: compartment.accounts.used_by.get(name, NOTHING) for name in names}
    largest = sorted(names, key=lambda name: (-ledgers[name].gpus, -ledgers[name].pods, -lines.get(name, 0), name))
    return tuple(
        NamespaceUse(
            name=name,
            gpus=ledgers[name].gpus,
            pods=ledgers[name].pods,
            batches=ledgers[name].batches,
            waiting=lines.get(name, 0),
        )
        for name in sorted(largest[:SHOWN_NAMESPACES])
    )


def _of(have: int, limit: int | None) -> str:
    return str(have) if limit is None else f"{have}/{limit}"
