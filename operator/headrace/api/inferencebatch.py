"""`InferenceBatch`: one input of records, one model, sharded over GPU pods, one result or error per record."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.api import labels
from headrace.api.base import ApiModel, Count, Name, Rule, ShortText, Time
from headrace.api.common import WINDOW_KNOWN, Batching, FailurePolicy, Input, Output, Resources, Retries, Storage
from headrace.api.engines import Engine
from headrace.api.evaluation import Evaluation, EvaluationStatus
from headrace.api.freeobjects import Parameters
from headrace.api.meta import Conditions, ObjectMeta, WorkStatus
from headrace.api.model import Model
from headrace.api.reasons import ConditionType, Reason

MAX_NAME_LENGTH = 52
"""Children add a suffix, and a pod's host name ends at 63 characters; CronJob has the same limit."""


QueueName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of a Kueue LocalQueue. It becomes the value of a label, and those are short."""


class Limits(ApiModel):
    """What the pods of one batch may hold at once, below what `parallelism` would give them."""

    pods: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Pods at once."""
    gpus: Annotated[int, Field(ge=1, le=10_240_000)] | None = None
    """GPUs of all pods together; as many pods run as this is enough for."""


class RunBudget(ApiModel):
    """What one batch may use up in all. Then it ends as BudgetExceeded with what is done, and goes on when this is raised."""

    max_tokens: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Tokens read and generated."""
    max_gpu_seconds: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """GPUs times the seconds that they were held."""

    def used_up(self, usage: Usage) -> tuple[str, int, int] | None:
        """What of it is used up, if anything: the field, what was used, and the limit."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        uses = (("maxTokens", tokens, self.max_tokens), ("maxGpuSeconds", usage.gpu_seconds, self.max_gpu_seconds))
        return next(((field, used, most) for field, used, most in uses if most is not None and used >= most), None)


class Work(ApiModel):
    """What is done with records, and with what: all of an InferenceBatch but where it reads and writes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.minParallelism) || self.minParallelism <= self.parallelism",
            message="minParallelism must not be greater than parallelism",
            check=lambda it: it.min_parallelism is None or it.min_parallelism <= it.parallelism,
        ),
        Rule(
            cel="!has(self.minParallelism) || !has(self.limits) || !has(self.limits.pods) || "
            "self.minParallelism <= self.limits.pods",
            message="minParallelism must not be greater than limits.pods",
            check=lambda it: it.min_parallelism is None or it.min_parallelism <= (it.limits.pods or it.min_parallelism),
        ),
    )

    model: Model
    engine: Engine = Field(default_factory=Engine)
    parameters: Parameters = Field(default_factory=dict)
    """Defaults of every request in OpenAI's names (`max_tokens`, `temperature`, …); a record's own body wins."""
    batching: Batching = Field(default_factory=Batching)
    shards: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Into how many parts the input is cut. A shard always means the same records; one pod works on one shard at a time."""
    parallelism: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Pods at once; may change while the batch runs."""
    min_parallelism: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Pods to start with at least, when there is not room for all; the others follow when there is. By default 1: shards need not wait
    for each other."""
    limits: Limits = Field(default_factory=Limits)
    budget: RunBudget = Field(default_factory=RunBudget)
    resources: Resources = Field(default_factory=Resources)
    retries: Retries = Field(default_factory=Retries)
    failure_policy: FailurePolicy = Field(default_factory=FailurePolicy)
    completion_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Wall clock from the creation of the object, or its last retry, to its end, suspended time included. What is not done by then is an
    error line."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a worker may take to put its work away when it is told to stop."""
    evaluation: Evaluation | None = None
    """Look at the run once all its records are done: how good its answers are where records say what is expected, and by how much it
    differs from an earlier run."""
    bulkhead_name: Name = "default"
    """The compartment whose quota the pods count against."""
    queue_name: QueueName | None = None
    """The Kueue LocalQueue, in the batch's namespace, that the workers wait in: Kueue admits them in place of the bulkhead."""
    priority: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)] = 0
    """Higher goes first within the bulkhead."""

    @property
    def gpus(self) -> int:
        """GPUs of one pod."""
        return int(self.engine.needs_gpu) if self.resources.gpus is None else self.resources.gpus


class InferenceBatchSpec(Work):
    """What is wanted. Only parallelism, limits, budget, priority, deadline, suspend and cancel may change later."""

    input: Input
    output: Output = Field(default_factory=Output)
    storage: Storage | None = None
    """Credentials and settings of the object stores; without it, what the pods' service account is given."""
    service_account_name: Name | None = None
    """The ServiceAccount that the pods run as, for clouds that give it access to their object stores; its token is not mounted."""
    suspend: bool = False
    """Put the work away and give the GPUs back; set to false to go on where it stopped."""
    cancel: bool = False
    """End the batch now and keep what is done. Cannot be taken back."""


IMMUTABLE = (
    "model",
    "engine",
    "input",
    "output",
    "storage",
    "service_account_name",
    "parameters",
    "batching",
    "shards",
    "resources",
    "retries",
    "failure_policy",
    "termination_grace_period_seconds",
    "evaluation",
    "bulkhead_name",
    "queue_name",
)
"""Spec fields that cannot change: results of different settings must never end in one file, and a Job keeps its pods' settings."""


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


class Batched(ApiModel):
    """What was run in batches by the shards that have come to their end. It grows only, through retries too."""

    batches: Count = 0
    """Batches."""
    records: Count = 0
    """Sum of their sizes."""
    reprocessed: Count = 0
    """Records that were begun again because an earlier attempt had lost them."""


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
    """InputValidated, Admitted, Suspended, Complete, Failed; of a batch with an evaluation, Evaluated and DataDrift."""
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
    batch_fill_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Records in a batch as a share of maxBatchSize, over all batches so far."""
    records_per_second: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = None
    """Speed now, a decimal number."""
    evenness_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Jain's index over the durations of the shards that are done: 100 when all took equally long."""
    stragglers: Stragglers = ()
    """Shards that take or took more than twice as long as half of the others; at most ten."""
    estimated_completion_time: Time | None = None
    """When it should be done, at the speed so far."""
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


class InferenceBatch(ApiModel):
    """One input of records, one model, sharded over GPU pods, one result or error per record."""

    rules: ClassVar[tuple[Rule, ...]] = (
        WINDOW_KNOWN,
        Rule(
            cel=f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && !self.metadata.name.contains('.')",
            message=f"metadata.name must have at most {MAX_NAME_LENGTH} characters and no dot: pods are named after it",
            check=lambda it: len(it.metadata.name) <= MAX_NAME_LENGTH and "." not in it.metadata.name,
            field="metadata.name",
        ),
    )

    api_version: Literal["headrace.dev/v1alpha1"] = "headrace.dev/v1alpha1"
    kind: Literal["InferenceBatch"] = "InferenceBatch"
    metadata: ObjectMeta
    spec: InferenceBatchSpec
    status: InferenceBatchStatus = Field(default_factory=InferenceBatchStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def retries_asked(self) -> int:
        """How often a retry has been asked for: by annotation (anything that is not a number is none), and by a budget that is raised."""
        begun = self.status.retries
        return max(labels.retries_asked(self.metadata.annotations), begun + 1 if self._budget_is_raised else begun)

    @property
    def _budget_is_raised(self) -> bool:
        """Whether it has ended because its budget was used up, and there is something left of it now."""
        failed = self.status.condition(ConditionType.FAILED)
        ended = failed is not None and self.status.finished and failed.reason == Reason.BUDGET_EXCEEDED
        return ended and self.spec.budget.used_up(self.status.usage) is None

    @property
    def retry_asked(self) -> bool:
        """Whether there is a retry to begin. One that is complete begins one for the records that have failed."""
        asked = self.retries_asked > self.status.retries
        return asked and (not self.status.is_true(ConditionType.COMPLETE) or self.status.retriable)
