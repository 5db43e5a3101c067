"""What an InferenceBatch says of itself: how far it is, what it holds and waits for, what it has used and left."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, Count, ShortText, Time
from headrace.api.endpointstatus import MOST_ENDPOINTS, EndpointStatus, Parking
from headrace.api.evaluation import EvaluationStatus
from headrace.api.meta import Conditions, WorkStatus
from headrace.api.reasons import ConditionType
from headrace.api.reuse import Reused


class RecordCounts(ApiModel):
    """Where the records of the input are; succeeded, failed and pending always sum to total."""

    total: Count = 0
    """Records of the input."""
    succeeded: Count = 0
    """Records with a result."""
    failed: Count = 0
    """Records with an error."""
    pending: Count = 0
    """Records with neither yet."""


class Usage(ApiModel):
    """What the batch has used."""

    prompt_tokens: Count = 0
    """Tokens that were read."""
    completion_tokens: Count = 0
    """Tokens that were generated."""
    gpu_seconds: Count = 0
    """GPUs of the pods times the seconds that they were held."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
        )


class ShardCounts(ApiModel):
    """Where the shards are."""

    total: Count = 0
    """Parts that the input was cut into."""
    active: Count = 0
    """Shards that a pod works on."""
    succeeded: Count = 0
    """Shards that are committed."""
    failed: Count = 0
    """Shards that were given up."""


class Admission(ApiModel):
    """What the batch holds of its bulkhead. It is written before a pod is released, so that whoever counts never counts too little."""

    pods: Count = 0
    """Pods that it may have, or has still got."""
    time: Time | None = None
    """When it was last let start."""


ShardRanges = Annotated[str, Field(max_length=65536, description="Shards as ranges, such as `0-3,7`.")]


class CountedShards(ApiModel):
    """Sums over shards whose final report has been taken in, so that a pod may be forgotten afterwards."""

    indexes: ShardRanges = ""
    """The shards, as ranges such as `0-3,7`."""
    succeeded: Count = 0
    """Their records with a result."""
    failed: Count = 0
    """Their records with an error."""
    batches: Count = 0
    """Batches that were run."""
    batched_records: Count = 0
    """Sum of the sizes of those batches."""
    reprocessed: Count = 0
    """Records that were begun again because an earlier attempt had lost them."""
    usage: Usage = Field(default_factory=Usage)
    reused: Reused = Field(default_factory=Reused)


class Batched(ApiModel):
    """What was run in batches by the shards that have come to their end. It grows only, through retries too."""

    batches: Count = 0
    """Batches."""
    records: Count = 0
    """Sum of their sizes."""
    reprocessed: Count = 0
    """Records that were begun again because an earlier attempt had lost them."""


class BatchLimits(ApiModel):
    """What a worker takes at once: as the spec says, or as it has found that there is memory for."""

    max_batch_size: Count = 0
    """Records; for a generating model, sequences running at once (vLLM's `max_num_seqs`)."""
    max_batch_tokens: Count = 0
    """Tokens in one step (vLLM's `max_num_batched_tokens`)."""


class Queue(ApiModel):
    """Where a batch stands while it waits to be admitted."""

    position: Annotated[int, Field(ge=1, le=2**53)]
    """1 is next."""
    ahead: Count = 0
    """Batches that go first."""
    estimated_start_time: Time | None = None
    """When it should be admitted."""


class RecordProblem(ApiModel):
    """One line of the input that cannot be worked on, in the form of OpenAI's batch errors."""

    line: Annotated[int, Field(ge=1, le=2**53)]
    """Line of the input, from 1; for a folder, line of the file that `file` names."""
    code: ShortText
    """One of the enumerated error codes."""
    param: ShortText | None = None
    """The field that is wrong."""
    message: Annotated[str, Field(max_length=1024)]
    """What is wrong and what must change."""
    file: Annotated[str, Field(max_length=1024)] | None = None
    """The file of a folder that the line is in."""


class Validation(ApiModel):
    """What is wrong with the input."""

    error_count: Count = 0
    """Bad lines in all."""
    errors: Annotated[
        tuple[RecordProblem, ...], Field(max_length=20, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """The first ones; `uri` has them all."""
    uri: Annotated[str, Field(max_length=4096)] | None = None
    """Where the whole list is."""


class OutputStatus(ApiModel):
    """Where the results are."""

    uri: Annotated[str, Field(max_length=4096)]
    """The batch's own folder."""
    manifest: Annotated[str, Field(max_length=4096)] | None = None
    """The manifest, once everything is there."""


class Summary(ApiModel):
    """What `get` shows. For people: no program may read it."""

    state: ShortText = ""
    """What the batch is doing."""
    progress: ShortText = ""
    """Records done of all records."""
    fill: ShortText = ""
    """How full the batches are."""
    eta: ShortText = ""
    """When it should be done."""


Stragglers = Annotated[
    tuple[Annotated[str, Field(max_length=64, description="What lags behind.")], ...],
    Field(max_length=10, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]
"""Names of what lags behind, the slowest first."""


class InferenceBatchStatus(WorkStatus):
    """What was observed."""

    conditions: Conditions = ()
    """InputValidated, Admitted, Suspended, Complete, Failed; of a batch with an evaluation, Evaluated and DataDrift; of one that asks
    endpoints, EndpointsAvailable."""
    records: RecordCounts = Field(default_factory=RecordCounts)
    shards: ShardCounts = Field(default_factory=ShardCounts)
    counted_shards: CountedShards = Field(default_factory=CountedShards)
    """Sums over the shards that have ended without a failed record: a retry leaves them as they are."""
    failing_shards: CountedShards = Field(default_factory=CountedShards)
    """Sums over the shards that have ended with failed records: a retry counts them anew."""
    retried_shards: ShardRanges | None = None
    """In a retry, the shards that it works on, where these are not all: the indexes of its Job stand for them, in their order."""
    batched: Batched = Field(default_factory=Batched)
    """What the shards that have ended have run in batches; it grows only, through retries too."""
    usage: Usage = Field(default_factory=Usage)
    resumed_from: Annotated[str, Field(max_length=4096)] | None = None
    """The output folder of the batch that `resumeFrom` names."""
    reused: Reused = Field(default_factory=Reused)
    batch_limits: BatchLimits | None = None
    """What the workers take at once, once one of them has loaded its model; the largest of them."""
    batch_fill_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Records in a batch as a share of what a batch may have, over all batches so far."""
    records_per_second: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = None
    """Speed now, a decimal number."""
    evenness_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Jain's index over the durations of the shards that are done: 100 when all took equally long."""
    stragglers: Stragglers = ()
    """Shards that take or took more than twice as long as half of the others; at most ten."""
    estimated_completion_time: Time | None = None
    """When it should be done, at the speed so far."""
    endpoints: Annotated[
        tuple[EndpointStatus, ...],
        Field(
            max_length=MOST_ENDPOINTS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Of the engine openai: how its endpoints do, as workers that are there say, or said last."""
    parking: Parking | None = None
    """That no endpoint has answered for so long that the work was put away; absent once one answers."""
    queue: Queue | None = None
    admission: Admission | None = None
    validation: Validation | None = None
    output: OutputStatus | None = None
    evaluation: EvaluationStatus | None = None
    start_time: Time | None = None
    """When the batch was first looked at."""
    completion_time: Time | None = None
    """When it was Complete or Failed."""
    deadline_time: Time | None = None
    """When the batch is given up, on the wall clock."""
    summary: Summary = Field(default_factory=Summary)

    @property
    def retriable(self) -> bool:
        """Whether it is over, and a retry could bring more: it has failed, or records have."""
        return self.is_true(ConditionType.FAILED) or (self.finished and self.records.failed > 0)
