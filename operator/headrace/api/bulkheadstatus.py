"""What a Bulkhead says of itself: what its members hold and have used, and who waits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from headrace.api.base import ApiModel, Count, ShortText, Time
from headrace.api.meta import Conditions


class HeldAmounts(ApiModel):
    """What is held now."""

    gpus: Count = 0
    """GPUs."""
    pods: Count = 0
    """Worker pods."""
    batches: Count = 0
    """Batches."""
    endpoint_calls: Count = 0
    """Requests in flight to remote endpoints, at most."""


class NamespaceUse(ApiModel):
    """What one namespace holds, and what it waits for."""

    name: Annotated[str, Field(max_length=253)]
    """The namespace."""
    gpus: Count = 0
    """GPUs that it holds."""
    pods: Count = 0
    """Pods that it holds."""
    batches: Count = 0
    """Batches of it that run."""
    waiting: Count = 0
    """Batches of it that wait."""


class BudgetUse(ApiModel):
    """How much of a budget is used up."""

    name: Annotated[str, Field(max_length=63)]
    """The budget."""
    namespace: Annotated[str, Field(max_length=253)] = ""
    """The namespace, where each has its own; else empty."""
    used: Count = 0
    """Used within the window that ends now."""
    exhausted_until: Time | None = None
    """When enough of it will have moved out of the window; absent while there is something left."""
    slots: Annotated[str, Field(max_length=4096)] = ""
    """The use by parts of the window, `START:AMOUNT` in seconds since the epoch: what a new operator process goes on from."""


class BreakerStatus(ApiModel):
    """A circuit breaker that is not closed, and that batches of the bulkhead depend on."""

    name: Annotated[str, Field(max_length=4096)]
    """The model or image that it guards."""
    state: Literal["Open", "HalfOpen"]
    """Open: nothing starts. HalfOpen: one batch is let through, and its fate decides."""
    retry_time: Time | None = None
    """When one batch is let through, or since when one may be."""
    probe: Annotated[str, Field(max_length=320)] | None = None
    """That batch, as `namespace/name`, while it runs."""


class BulkheadSummary(ApiModel):
    """What `get` shows. For people: no program may read it."""

    gpus: ShortText = ""
    """GPUs held, of GPUs in all."""
    pods: ShortText = ""
    """Pods held, of pods in all."""


class BulkheadStatus(ApiModel):
    """What was observed."""

    observed_generation: Count = 0
    """The generation of the spec that this status speaks of."""
    conditions: Conditions = ()
    """Saturated."""
    used: HeldAmounts = Field(default_factory=HeldAmounts)
    waiting: Count = 0
    """Batches that wait."""
    oldest_wait_time: Time | None = None
    """Since when the batch waits that has waited longest."""
    namespaces: Annotated[
        tuple[NamespaceUse, ...],
        Field(
            max_length=256, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        ),
    ] = ()
    """The namespaces that hold or wait for something; of more than 256, those that hold the most."""
    budgets: Annotated[
        tuple[BudgetUse, ...], Field(max_length=1024, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """How much of the budgets is used up."""
    breakers: Annotated[
        tuple[BreakerStatus, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """The circuit breakers in the way of batches here, which belong to the whole cluster; of more than 64, the first by name."""
    summary: BulkheadSummary = Field(default_factory=BulkheadSummary)
