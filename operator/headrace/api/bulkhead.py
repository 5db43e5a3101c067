"""`Bulkhead`: a compartment. What its members may hold at once, in which order they get it, and what they may use up over time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.api.base import ApiModel, Name, Rule
from headrace.api.bulkheadstatus import BulkheadStatus
from headrace.api.meta import ObjectMeta

DEFAULT_BULKHEAD = "default"
"""The compartment of a batch that names none. While no Bulkhead of this name exists, it has no limits."""
NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label with its own name that every namespace has."""

Amount = Annotated[int, Field(ge=0, le=1_000_000_000)]
Rate = Annotated[int, Field(ge=1, le=1_000_000_000)]


class Holdings(ApiModel):
    """What batches may hold at once. What is not set is not limited."""

    gpus: Amount | None = None
    """GPUs of all running pods together, of whatever kind."""
    pods: Amount | None = None
    """Worker pods."""
    batches: Amount | None = None
    """Batches that run."""
    endpoint_calls: Amount | None = None
    """Requests in flight to remote endpoints: a pod of the engine openai counts as `batching.maxBatchSize` of them."""


class Capacity(Holdings):
    """What all members together may hold at once, and how fast they may start."""

    starts_per_minute: Rate | None = None
    """Batches that may start within any 60 seconds; the others wait their turn."""
    tokens_per_minute: Rate | None = None
    """While the members have used more tokens than this within the last 60 seconds, no further batch starts."""


class ResourceCapacity(ApiModel):
    """What all members together may hold of one kind of GPU."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")]
    """What the cluster calls these GPUs, as in `resources.gpuResourceName` of a batch."""
    gpus: Amount
    """GPUs of this kind."""


class Ordering(StrEnum):
    """What decides which of two waiting batches goes first."""

    PRIORITY = "Priority"
    """The higher `spec.priority`."""
    FAIR_SHARE = "FairShare"
    """The namespace that holds the smaller share: of GPUs or of pods, whichever share is the larger one."""
    DEADLINE = "Deadline"
    """The earlier latest start: the deadline less the time that the batch is predicted to take."""
    AGE = "Age"
    """The older batch."""


class BudgetResource(StrEnum):
    """What is used up."""

    GPU_SECONDS = "gpuSeconds"
    TOKENS = "tokens"


class BudgetScope(StrEnum):
    """Whose use counts together."""

    BULKHEAD = "Bulkhead"
    NAMESPACE = "Namespace"


class Budget(ApiModel):
    """How much may be used up within any window of time. Then batches drain, and wait until enough of it has moved out of the window."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """What messages call it."""
    resource: BudgetResource
    """What is used up."""
    limit: Rate
    """How much of it."""
    window_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """Length of the window, which ends now."""
    scope: BudgetScope = BudgetScope.BULKHEAD
    """All members together, or each namespace for itself."""


LabelValue = Annotated[str, Field(max_length=63, description="A value of the label.")]


class SelectorRequirement(ApiModel):
    """One thing that a namespace's labels must be."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == (self.values.size() > 0)",
            message="values must be set when operator is In or NotIn, and only then",
            check=lambda it: (it.operator in ("In", "NotIn")) == bool(it.values),
        ),
    )

    key: Annotated[str, Field(min_length=1, max_length=317)]
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it must stand to the values."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=256)] = ()
    """The values."""


class NamespaceSelector(ApiModel):
    """Which namespaces, by their labels. `kubernetes.io/metadata.name` is the namespace's own name."""

    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Labels that it must have."""
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=32)] = ()
    """What else must hold of its labels."""


_DEFAULT_ORDERING = (Ordering.PRIORITY, Ordering.FAIR_SHARE, Ordering.DEADLINE, Ordering.AGE)


class BulkheadSpec(ApiModel):
    """What is wanted. All of it may change at any time; what runs is not stopped because a limit was lowered."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.ordering.all(one, self.ordering.exists_one(other, other == one))",
            message="ordering must not name the same thing twice",
            check=lambda it: len(set(it.ordering)) == len(it.ordering),
            field="ordering",
        ),
        Rule(
            cel="!('Age' in self.ordering) || self.ordering[self.ordering.size() - 1] == 'Age'",
            message="Age must come last in ordering: no two batches are of the same age, so nothing after it would count",
            check=lambda it: Ordering.AGE not in it.ordering[:-1],
            field="ordering",
        ),
        Rule(
            cel="self.budgets.all(one, self.budgets.exists_one(other, other.name == one.name))",
            message="the names of budgets must differ",
            check=lambda it: len({b.name for b in it.budgets}) == len(it.budgets),
            field="budgets",
        ),
        Rule(
            cel="self.perResource.all(one, self.perResource.exists_one(other, other.name == one.name))",
            message="the names of resources must differ",
            check=lambda it: len({r.name for r in it.per_resource}) == len(it.per_resource),
            field="perResource",
        ),
    )

    capacity: Capacity = Field(default_factory=Capacity)
    per_namespace: Holdings = Field(default_factory=Holdings)
    """What the batches of any one namespace may hold of it."""
    per_resource: Annotated[
        tuple[ResourceCapacity, ...],
        Field(
            max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = ()
    """Limits for kinds of GPUs, inside the capacity."""
    ordering: Annotated[tuple[Ordering, ...], Field(min_length=1, max_length=4)] = _DEFAULT_ORDERING
    """What decides who goes first: the first word that tells two batches apart. In the end it is always age."""
    preemption: Literal["LowerPriority", "Never"] = "LowerPriority"
    """Whether batches of lower priority drain, and give their GPUs back, when one of higher priority does not fit."""
    reserve_after_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 600
    """How long smaller batches may pass one that does not fit. After that, what becomes free is kept for it."""
    budgets: Annotated[
        tuple[Budget, ...],
        Field(
            max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = ()
    """What may be used up over time."""
    namespace_selector: NamespaceSelector | None = None
    """Which namespaces may use the bulkhead; by default all."""


class Bulkhead(ApiModel):
    """A compartment: what its members may hold at once and use up over time, whatever the rest of the cluster does."""

    api_version: Literal["headrace.dev/v1alpha1"] = "headrace.dev/v1alpha1"
    kind: Literal["Bulkhead"] = "Bulkhead"
    metadata: ObjectMeta
    spec: BulkheadSpec = Field(default_factory=BulkheadSpec)
    status: BulkheadStatus = Field(default_factory=BulkheadStatus)

    @property
    def name(self) -> Name:
        """Its name, which is all there is to it: it is in no namespace."""
        return self.metadata.name
