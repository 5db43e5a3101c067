"""What the gateway answers, as models: files, batches, requests and pages of them, in OpenAI's names.

The document of the gateway's interface is made of these. Answers themselves are written by `headrace.core`; tests hold them to the models.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from headrace.api.asking import RequestError, RequestId, RequestState
from headrace.api.base import Count, FreeObject
from headrace.api.gateway import OpenAIModel
from headrace.api.model import Task
from headrace.api.targets import AnsweredBy

Seconds = Annotated[int, Field(ge=0)]
"""A moment, in seconds since the epoch."""
Item = TypeVar("Item", bound=OpenAIModel)


class Refusal(OpenAIModel):
    """Why a request was refused."""

    message: str
    """A sentence that says what must change."""
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    """The field that is to blame."""
    code: str | None
    """One word for programs."""


class Refused(OpenAIModel):
    """The body of every refusal."""

    error: Refusal


class Health(OpenAIModel):
    """That the gateway answers."""

    status: Literal["ok"]


class Page(OpenAIModel, Generic[Item]):
    """One part of a list."""

    object: Literal["list"]
    data: tuple[Item, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool
    """Whether there is another page, after `last_id`."""


class ModelObject(OpenAIModel):
    """A model that is served."""

    id: str
    """What requests call it."""
    object: Literal["model"]
    created: Seconds
    owned_by: str


class ModelList(OpenAIModel):
    """All models that are served."""

    object: Literal["list"]
    data: tuple[ModelObject, ...]


class FileObject(OpenAIModel):
    """A file that was uploaded, or that a batch has left."""

    id: str
    object: Literal["file"]
    bytes: Count
    created_at: Seconds
    expires_at: None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed", "error"]
    status_details: str | None
    """Why it cannot be read."""


class FilePage(Page[FileObject]):
    """Files."""


class FileDeleted(OpenAIModel):
    """That a file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchFault(OpenAIModel):
    """One thing that has made a batch fail: a line of its input, or a reason."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchFaults(OpenAIModel):
    """All that is known of why a batch has failed."""

    object: Literal["list"]
    data: tuple[BatchFault, ...]


class RequestCounts(OpenAIModel):
    """Records of a batch."""

    total: Count
    completed: Count
    failed: Count


class CachedTokens(OpenAIModel):
    """Tokens that needed no work."""

    cached_tokens: Count


class ReasoningTokens(OpenAIModel):
    """Tokens of thoughts."""

    reasoning_tokens: Count


class Usage(OpenAIModel):
    """Tokens that a batch has read and written."""

    input_tokens: Count
    input_tokens_details: CachedTokens
    output_tokens: Count
    output_tokens_details: ReasoningTokens
    total_tokens: Count


class BatchObject(OpenAIModel):
    """A batch, as OpenAI's clients know it."""

    id: str
    """`batch_` and the name of its InferenceBatch."""
    object: Literal["batch"]
    endpoint: str
    model: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: Seconds
    in_progress_at: Seconds | None
    expires_at: Seconds | None
    finalizing_at: Seconds | None
    completed_at: Seconds | None
    failed_at: Seconds | None
    expired_at: Seconds | None
    cancelling_at: Seconds | None
    cancelled_at: Seconds | None
    request_counts: RequestCounts
    usage: Usage
    metadata: dict[str, str] | None


class BatchPage(Page[BatchObject]):
    """Batches."""


class RequestObject(OpenAIModel):
    """A single request, and its answer once it has one."""

    id: RequestId
    object: Literal["request"]
    route: str
    status: RequestState
    position: Annotated[int, Field(ge=1)] | None
    """Its place in the queue, while it is there and somebody has looked."""
    batch_id: str | None
    """The batch that answers it."""
    created_at: Seconds
    completed_at: Seconds | None
    response: FreeObject | None
    """As in a line of a batch's output: `status_code`, `request_id`, `body`."""
    error: RequestError | None
    fan_out_job: str | None = None
    """The FanOutJob that answers it, where one does."""
    headrace: FreeObject | None = None
    """What else its line says: which branches of a fan-out have answered, and which of them has won."""


class PoolWorkers(OpenAIModel):
    """Workers of a pool, by what they do."""

    starting: Count
    """Their model is being loaded."""
    busy: Count
    idle: Count


class PoolObject(OpenAIModel):
    """How a warm pool is."""

    waiting: Count
    """Requests in windows that no worker has been told of."""
    workers: PoolWorkers
    error: RequestError | None
    """Why no worker is ready, when the last one that was started has ended before it was."""


class RouteObject(OpenAIModel):
    """A route, and how many requests wait on it."""

    name: str
    object: Literal["route"]
    model: str
    task: Task
    target: AnsweredBy
    """What its windows become."""
    queued: Count
    """Requests that are in no window yet."""
    pool: PoolObject | None


class RouteList(OpenAIModel):
    """All routes."""

    object: Literal["list"]
    data: tuple[RouteObject, ...]


class DeadLetterPage(Page[RequestObject]):
    """Requests that have died."""

    next: str | None
    """The `after` of the next page: a page may have fewer requests than were asked for."""


class RequestEvent(OpenAIModel):
    """What has become of a request, as it is told on a stream."""

    type: Literal["request"]
    token: str | None
    """With it another connection goes on from here; None for a request to which nothing has happened yet."""
    request: RequestObject


class RefusalEvent(OpenAIModel):
    """Something that cannot be told on a stream."""

    type: Literal["error"]
    token: str | None
    id: str | None
    """Of the request that it is about."""
    error: Refusal


class PartialEvent(OpenAIModel):
    """The beginning of an answer that is being written by a warm pool, as it is told on a stream. Nobody is told of all of them."""

    type: Literal["partial"]
    token: None
    """There is none: nothing that is told later depends on having heard it."""
    id: str
    """Of the request."""
    text: str
    """The answer so far, from its beginning."""
    tokens: int


class ServerSentEvent(OpenAIModel):
    """An event of a stream of Server-Sent Events."""

    id: str | None = None
    """The token of what it tells."""
    event: Literal["request", "partial", "error"]
    data: Annotated[str, Field(json_schema_extra={"contentMediaType": "application/json"})]
    """A `RequestEvent`, a `PartialEvent` or a `RefusalEvent`."""
