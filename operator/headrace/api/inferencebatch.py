"""`InferenceBatch`: one input of records, one model, sharded over GPU pods, one result or error per record."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.api import labels
from headrace.api.base import ApiModel, Name, Rule
from headrace.api.batchstatus import InferenceBatchStatus, Usage
from headrace.api.common import Batching, FailurePolicy, Resources, Retries, Storage, short_name
from headrace.api.engines import Engine
from headrace.api.evaluation import Evaluation
from headrace.api.freeobjects import Parameters
from headrace.api.input import WINDOW_KNOWN, Input, Output
from headrace.api.meta import ObjectMeta
from headrace.api.model import Model
from headrace.api.reasons import ConditionType, Reason
from headrace.api.reuse import Dedup, ResumeFrom

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
    dedup: Dedup = Field(default_factory=Dedup)
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
    record_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How long a worker may be at one record, further tries and the waits between them included. One that takes longer is an error line
    (`deadline_exceeded`), and the others go on. By default there is no such bound."""
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
    resume_from: ResumeFrom | None = None
    """An earlier batch whose results are kept: of a record with the `custom_id` and the content of one that has a result there. All other
    records are worked on: new ones, changed ones, and those that had failed."""
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
    "resume_from",
    "dedup",
    "storage",
    "service_account_name",
    "parameters",
    "batching",
    "shards",
    "resources",
    "retries",
    "record_deadline_seconds",
    "failure_policy",
    "termination_grace_period_seconds",
    "evaluation",
    "bulkhead_name",
    "queue_name",
)
"""Spec fields that cannot change: results of different settings must never end in one file, and a Job keeps its pods' settings."""


class InferenceBatch(ApiModel):
    """One input of records, one model, sharded over GPU pods, one result or error per record."""

    rules: ClassVar[tuple[Rule, ...]] = (
        WINDOW_KNOWN,
        short_name(MAX_NAME_LENGTH, "pods"),
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
