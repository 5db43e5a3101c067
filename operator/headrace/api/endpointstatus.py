"""What a batch says of the endpoints that it asks: whether their breakers let anything through, and what each is asked."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, Count, ShortText, Time

MOST_ENDPOINTS = 64
"""Of one batch."""


class BreakerState(StrEnum):
    """What a circuit breaker lets through."""

    CLOSED = "Closed"
    """Everything."""
    OPEN = "Open"
    """Nothing."""
    HALF_OPEN = "HalfOpen"
    """One probe, whose fate decides."""


EndpointName = Annotated[str, Field(min_length=1, max_length=63)]


class EndpointReport(ApiModel):
    """What one worker says of an endpoint."""

    name: EndpointName
    state: BreakerState = BreakerState.CLOSED
    """Of its own breaker: the way to an endpoint may be broken from one node alone."""
    sent: Count = 0
    """Requests so far."""
    answered: Count = 0
    """Those that were answered, be it that a record is refused."""
    in_flight: Count = 0
    limit: Count = 0
    """Requests in flight that it may have from this worker."""
    reason: ShortText | None = None
    """Why it is not asked any more, until somebody mends it."""


class EndpointStatus(ApiModel):
    """One endpoint, as all workers of the batch together see it."""

    name: EndpointName
    """As in the spec."""
    state: BreakerState = BreakerState.CLOSED
    """Closed while any worker is answered by it. Open: nothing is sent to it. HalfOpen: one probe is, and its fate decides."""
    reason: ShortText | None = None
    """Why it is not asked any more, until somebody mends it."""
    last_transition_time: Time | None = None
    """Since when the state is that."""
    requests: Count = 0
    """Requests to it, of the workers that are there."""
    share_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Its share of the requests to all endpoints."""
    in_flight: Count = 0
    """Requests under way when workers were last asked."""
    limit: Count = 0
    """Requests in flight that it is thought to bear from all workers together."""


class Parking(ApiModel):
    """That no endpoint could be asked for so long that the batch has put its work away."""

    time: Time
    """When it was last put away."""
    times: Annotated[int, Field(ge=1, le=2**53)] = 1
    """How often in a row, with nothing answered in between."""
