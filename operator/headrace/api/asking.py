"""Single requests that are answered later: what a route is told, and what is kept of a request until its answer is no longer wanted.

Moments are milliseconds since the epoch: windows are shorter than a second.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, Count, FreeObject
from headrace.api.media import Host, Network
from headrace.api.model import Task
from headrace.api.targets import BATCHES, AnsweredBy, RouteTarget

RequestId = Annotated[str, Field(pattern=r"^req_[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?_[0-9a-f]{24}$")]
"""`req_`, the name of its route, and 24 digits."""
RouteName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$")]


class RequestWindow(ApiModel):
    """When requests that have gathered become a batch: at whichever of the three comes first."""

    max_batch_size: Annotated[int, Field(ge=1, le=1000)] = 64
    """So many requests."""
    max_batch_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] = 16384
    """Tokens of their prompts together, roughly. A request that has more alone is a batch alone."""
    max_wait_milliseconds: Annotated[int, Field(ge=0, le=60_000)] = 200
    """How long the first of them waits for others."""


class RequestRoute(ApiModel):
    """Which requests gather, and what for."""

    name: RouteName
    """What requests call it by; it is part of their ids."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """`model.name` of the served model that answers; of a fan-out, any name for requests to call it by."""
    task: Task = Task.CHAT
    """`model.task` of the same: what the requests look like."""
    window: RequestWindow = RequestWindow()
    """When a batch begins."""
    target: RouteTarget = BATCHES
    """What becomes of a window."""
    max_queued: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Requests that may wait for a batch; more are refused with 429."""
    max_open_batches: Annotated[int, Field(ge=1, le=64)] = 4
    """Batches of this route that may be under way; while there are so many, requests wait, and the next windows are fuller."""
    deadline_seconds: Annotated[int, Field(ge=1, le=259_200)] = 86_400
    """How long after it was accepted a request is still begun, and how long its batch may take from then on."""


class Webhooks(ApiModel):
    """Who may be called when a request has ended, and what such calls are signed with."""

    allowed_hosts: Annotated[tuple[Host, ...], Field(min_length=1, max_length=64)]
    """Hosts that requests may name."""
    allowed_networks: Annotated[tuple[Network, ...], Field(max_length=64)] = ()
    """Addresses that are not public and may be called all the same; with any, `http://` may be said too."""
    keys_file: Annotated[str, Field(min_length=1, max_length=4096)]
    """File with one key `whsec_…`, or two of which each signs while one takes the place of the other; one a line."""


class RequestState(StrEnum):
    """What a request is doing, in the words of OpenAI's background responses."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class QueuedRequest(ApiModel):
    """A request as it waits in the queue."""

    id: RequestId
    accepted: Count
    tokens: Count
    """Of its prompt, roughly."""
    body: FreeObject
    """The request, in the names of its endpoint."""
    webhook: str | None = None
    """URL that is called when it has ended."""
    traceparent: str | None = None
    """The trace context that it was made in."""


class RequestError(ApiModel):
    """Why a request has no result."""

    code: str
    message: str


class RequestRecord(ApiModel):
    """What is kept of a request that has left the queue."""

    id: RequestId
    accepted: Count
    state: RequestState
    batch: str | None = None
    """Name of what answers it, and of its window; None when none was made for it."""
    answered_by: AnsweredBy = AnsweredBy.INFERENCE_BATCH
    """What that is. Of a warm pool there is no object."""
    ended: Count | None = None
    response: FreeObject | None = None
    """`response` of its line in the results: `status_code`, `request_id` and `body`."""
    error: RequestError | None = None
    about: FreeObject | None = None
    """`headrace` of the same line: which branches of a fan-out have answered, and which has won."""
    in_batch: bool = False
    """The response is too large for this record: it is where the batch has left it."""
    webhook: str | None = None
    """URL that is called when it has ended."""
    traceparent: str | None = None
    """The trace context that it was made in."""
    body: FreeObject | None = None
    """What was asked, of a request that was not answered: so it can be asked again."""


class ClosedWindow(ApiModel):
    """Requests that have been given to one batch. Writing this is the moment in which they leave the queue."""

    batch: Annotated[str, Field(min_length=1, max_length=52)]
    """Name of what it becomes: of the InferenceBatch or the FanOutJob."""
    route: RouteName
    closed: Count = 0
    """When it was made."""
    members: Annotated[tuple[QueuedRequest, ...], Field(min_length=1, max_length=1000)]
    submitted: bool = False
    """What it becomes is there, or has been."""
    lost: dict[str, Count] = Field(default_factory=dict)
    """Of a warm pool: requests over which workers have died, and how many."""


class KnownKey(ApiModel):
    """What an Idempotency-Key has stood for."""

    id: RequestId
    digest: str
    """Of the request."""
    accepted: Count


class StreamMessage(ApiModel):
    """What a client says on a socket: which requests it waits for from now on, and which no more."""

    subscribe: Annotated[dict[str, str | None], Field(default_factory=dict, max_length=1000)]
    """By id, the token of the last event of it that was heard; None for all there is to say."""
    unsubscribe: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
