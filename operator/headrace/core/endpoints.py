"""How the workers of a batch find its endpoints, and when a batch that none of them answers puts its work away.

A worker that is not answered keeps its records and waits, and so do all others. After `parkAfterSeconds` of that the batch is parked:
its Job is suspended, and its pods and GPUs go back. Nobody is there to ask the endpoints then. So after a rest that grows each time the
batch is let go again, with as few pods as it may have: their first request is the probe. In a cluster that is the circuit breaker of the
endpoints in `headrace.core.admission`, so one batch probes for all that ask the same ones. Elsewhere each batch counts its own rests here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from headrace.api.endpointstatus import BreakerState, EndpointReport, EndpointStatus, Parking
from headrace.api.engines import OpenAIEngine
from headrace.api.meta import ConditionStatus
from headrace.api.ranges import parse_ranges
from headrace.api.reasons import ConditionType, Reason
from headrace.api.worker import ShardReport
from headrace.core.breaker import Breaker, State
from headrace.core.conditions import Finding, false, true, unknown
from headrace.core.observed import LET_IN, Observed
from headrace.core.plan import Event

SHOWN = 5
"""Endpoints that a message names."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be said of the endpoints."""

    findings: tuple[Finding, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def endpoint_statuses(observed: Observed) -> tuple[EndpointStatus, ...]:
    """The endpoints as all workers together see them; as they were seen last while no worker says anything."""
    before, spec = observed.batch.status.endpoints, observed.batch.spec.engine.openai
    told = [it for report in observed.shard_reports for it in report.endpoints]
    if spec is None or not told:
        return before
    live, known = _news(observed), {it.name: it for it in before}
    of_all = sum(it.sent for it in told)
    return tuple(
        _status(name, [it for it in told if it.name == name], live.get(name, ()), known.get(name), of_all, observed.now)
        for name in (it.name for it in spec.asked)
    )


def endpoints_found(observed: Observed) -> Found:
    """Whether endpoints can be asked, and whether that is reason enough to put the work away."""
    status, spec = observed.batch.status, observed.batch.spec.engine.openai
    if spec is None:
        return Found()
    parking = status.parking
    if parking is not None and put_away(observed):
        return Found((_parked(observed, parking),))
    answered = _answered(spec, _news(observed), probing=parking is not None)
    if answered is None:
        probing = unknown(ConditionType.ENDPOINTS_AVAILABLE, Reason.PROBING, "workers try whether an endpoint answers")
        return Found((probing,) if parking is not None else ())
    if answered:
        return Found((_available(endpoint_statuses(observed)),), {"parking": None})
    if parking is None and observed.now < _since(observed) + timedelta(seconds=spec.park_after_seconds):
        return Found((_waits(observed, spec),))
    parked = Parking(time=observed.now, times=parking.times + 1 if parking is not None else 1)
    return Found((_parked(observed, parked),), {"parking": parked})


def endpoints_at_last(observed: Observed) -> Found:
    """What is left to be said of them when all records are done."""
    answers = any(_answers(it) for found in _news(observed).values() for it in found)
    findings = (_available(endpoint_statuses(observed)),) if answers else ()
    return Found(findings, {"parking": None})


def put_away(observed: Observed) -> bool:
    """Whether the batch is parked now: its bulkhead lets it rest, or it does so by itself where no bulkhead decides."""
    if observed.queued or observed.verdict is LET_IN:
        return resting(observed)
    return observed.batch.status.parking is not None and not observed.verdict.admitted


def resting(observed: Observed) -> bool:
    """Whether a batch that has put its work away leaves its endpoints alone for some time yet, by its own count."""
    parking = observed.batch.status.parking
    return parking is not None and _breaker(parking).state(observed.now) == State.OPEN


def endpoint_events(before: Iterable[EndpointStatus], after: Iterable[EndpointStatus]) -> tuple[Event, ...]:
    """One event for each endpoint whose breaker has changed."""
    known = {it.name: it.state for it in before}
    changed = (it for it in after if known.get(it.name, BreakerState.CLOSED) != it.state)
    return tuple(Event(f"Endpoint{it.state}", _words(it), _EVENT_TYPES[it.state]) for it in changed)


_EVENT_TYPES: Mapping[BreakerState, Any] = {
    BreakerState.CLOSED: "Normal",
    BreakerState.HALF_OPEN: "Normal",
    BreakerState.OPEN: "Warning",
}


def _words(endpoint: EndpointStatus) -> str:
    if endpoint.reason is not None:
        return f"the endpoint {endpoint.name} is asked no more: {endpoint.reason}"
    return {
        BreakerState.CLOSED: f"the endpoint {endpoint.name} answers again",
        BreakerState.HALF_OPEN: f"the endpoint {endpoint.name} is sent one probe",
        BreakerState.OPEN: f"the endpoint {endpoint.name} fails: nothing is sent to it until a probe is answered",
    }[endpoint.state]


def _breaker(parking: Parking) -> Breaker:
    return Breaker(opened_at=parking.time, trips=parking.times)


def _news(observed: Observed) -> dict[str, list[EndpointReport]]:
    """What workers that run, or have just done their shards, say of endpoints that they have asked, by name."""
    status, found = observed.batch.status, dict[str, list[EndpointReport]]()
    known = parse_ranges(status.counted_shards.indexes) | parse_ranges(status.failing_shards.indexes)
    for said in observed.reports:
        report = said.report
        if isinstance(report, ShardReport) and report.shard not in known and (said.ended_well or not said.final):
            for it in report.endpoints:
                if it.sent:
                    found.setdefault(it.name, []).append(it)
    return found


def _status(
    name: str,
    told: Sequence[EndpointReport],
    live: Sequence[EndpointReport],
    before: EndpointStatus | None,
    of_all: int,
    now: datetime,
) -> EndpointStatus:
    state, reason = _state(live, before.state if before is not None else BreakerState.CLOSED)
    same = before is not None and before.state == state
    requests = sum(it.sent for it in told)
    return EndpointStatus(
        name=name,
        state=state,
        reason=reason,
        last_transition_time=before.last_transition_time if before is not None and same else now,
        requests=requests,
        share_percent=round(100 * requests / of_all) if of_all else 0,
        in_flight=sum(it.in_flight for it in live),
        limit=sum(it.limit for it in live),
    )


def _state(live: Sequence[EndpointReport], before: BreakerState) -> tuple[BreakerState, str | None]:
    """The state of all workers together, and why nobody asks any more. One that is answered is enough."""
    if any(_answers(it) for it in live):
        return BreakerState.CLOSED, None
    states = {it.state for it in live}
    state = next((it for it in (BreakerState.HALF_OPEN, BreakerState.OPEN) if it in states), before)
    return state, next((it.reason for it in live if it.reason is not None), None)


def _answers(endpoint: EndpointReport) -> bool:
    return endpoint.state == BreakerState.CLOSED and endpoint.answered > 0


def _answered(spec: OpenAIEngine, live: Mapping[str, Sequence[EndpointReport]], *, probing: bool) -> bool | None:
    """Whether any endpoint answers; None while that is not known. Of a probe that is under way it is not."""
    if any(_answers(it) for found in live.values() for it in found):
        return True
    shut = {BreakerState.OPEN} if probing else {BreakerState.OPEN, BreakerState.HALF_OPEN}
    found = [[it.state in shut for it in live.get(endpoint.name, ())] for endpoint in spec.asked]
    return False if all(one and all(one) for one in found) else None


def _since(observed: Observed) -> datetime:
    """Since when no endpoint could be asked; a batch that was not at work meanwhile has not asked."""
    status, now = observed.batch.status, observed.now
    known = status.condition(ConditionType.ENDPOINTS_AVAILABLE)
    if known is None or known.status != ConditionStatus.FALSE:
        return now
    begun = status.admission.time if status.admission is not None else None
    return max(known.last_transition_time, begun or known.last_transition_time)


def _available(endpoints: Sequence[EndpointStatus]) -> Finding:
    shut = [it for it in endpoints if it.state != BreakerState.CLOSED]
    if not shut:
        message = "every endpoint that was asked answers"
        return true(ConditionType.ENDPOINTS_AVAILABLE, Reason.ENDPOINTS_ANSWER, message)
    message = f"{len(shut)} of {len(endpoints)} endpoints are behind an open breaker: {_named(shut)}"
    return true(ConditionType.ENDPOINTS_AVAILABLE, Reason.SOME_BREAKERS_OPEN, message)


def _waits(observed: Observed, spec: OpenAIEngine) -> Finding:
    at = _since(observed) + timedelta(seconds=spec.park_after_seconds)
    message = (
        f"no endpoint answers ({_named(endpoint_statuses(observed))}): records wait, and no try is spent; "
        f"if none answers until {at:%H:%M:%SZ} the work is put away. Look at the servers; here nothing has to be done"
    )
    return false(ConditionType.ENDPOINTS_AVAILABLE, Reason.BREAKER_OPEN, message)


def _parked(observed: Observed, parking: Parking) -> Finding:
    by_itself = observed.queued or observed.verdict is LET_IN
    again = f" It tries again at {_breaker(parking).retry_at:%H:%M:%SZ}." if by_itself else ""
    message = (
        f"no endpoint has answered ({_named(observed.batch.status.endpoints)}): its pods are given back, its records wait, and no try "
        f"is spent.{again} Mend the servers; it goes on by itself once one of them answers"
    )
    return false(ConditionType.ENDPOINTS_AVAILABLE, Reason.PARKED, message)


def _named(endpoints: Sequence[EndpointStatus]) -> str:
    shown = ", ".join(f"{it.name}: {it.reason}" if it.reason is not None else it.name for it in endpoints[:SHOWN])
    return shown if len(endpoints) <= SHOWN else f"{shown} and {len(endpoints) - SHOWN} more"
