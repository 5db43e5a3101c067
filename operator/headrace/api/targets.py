"""What the windows of a route become: a batch each, a fan-out each, or work for a pool of workers that keep the model loaded."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.aggregation import Aggregation
from headrace.api.base import ApiModel, Name, Rule
from headrace.api.branches import MAX_BRANCHES, Branch, CompletionPolicy
from headrace.api.cascade import Cascade
from headrace.api.common import Storage, exactly_one


class AnsweredBy(StrEnum):
    """What answers a request."""

    INFERENCE_BATCH = "InferenceBatch"
    FAN_OUT_JOB = "FanOutJob"
    WARM_POOL = "WarmPool"


class BatchTarget(ApiModel):
    """Each window becomes an InferenceBatch of the route's model. There is nothing more to say."""


class FanOutTarget(ApiModel):
    """Each window becomes a FanOutJob; the answer to a request is its line of the joined output.

    All is as in the spec of a FanOutJob, whose input are the requests.
    """

    branches: Annotated[tuple[Branch, ...], Field(min_length=1, max_length=MAX_BRANCHES)]
    """The ways to answer the requests, each on its own."""
    max_parallel_branches: Annotated[int, Field(ge=1, le=MAX_BRANCHES)] = MAX_BRANCHES
    """Branches at work at once."""
    completion_policy: CompletionPolicy = Field(default_factory=CompletionPolicy)
    aggregation: Aggregation = Field(default_factory=Aggregation)
    cascade: Cascade | None = None
    """Which records go on from one stage of the branches to the next."""
    storage: Storage | None = None
    """Credentials and settings of the object stores."""
    service_account_name: Name | None = None
    """The ServiceAccount that all pods run as."""


class WarmPool(ApiModel):
    """Workers that load the route's model once, and answer one window after the other."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.min <= self.max",
            message="min must not be greater than max",
            check=lambda it: it.min <= it.max,
            field="min",
        ),
    )

    min: Annotated[int, Field(ge=0, le=1000)] = 0
    """Workers that are there even when there is nothing to do; 0 gives the machine back."""
    max: Annotated[int, Field(ge=1, le=1000)] = 1
    """Workers at most."""
    idle_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long a worker has nothing to do before it is stopped."""
    target_queued_per_worker: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Requests that may wait for each worker; when there are more, another one is started."""
    refresh_seconds: Annotated[int, Field(ge=60, le=31_536_000)] | None = None
    """How old a worker may get: then another takes its place, which looks up anew what `model.source` names, and loads that. By default
    as old as it likes."""
    partial_milliseconds: Annotated[int, Field(ge=0, le=60_000)] = 500
    """How often those who listen are told how far answers have come, where the engine knows; 0 for never."""
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = 3
    """With so many workers that died over it a request has failed, and is a dead letter. The second time it is tried alone."""


class RouteTarget(ApiModel):
    """What a window of a route becomes."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("inference_batch", "fan_out_job", "warm_pool"),)

    inference_batch: BatchTarget | None = None
    """A new InferenceBatch of the route's model."""
    fan_out_job: FanOutTarget | None = None
    """A new FanOutJob."""
    warm_pool: WarmPool | None = None
    """Work for a pool of workers that keep the route's model loaded."""

    @property
    def kind(self) -> AnsweredBy:
        """Which of these it is."""
        if self.fan_out_job is not None:
            return AnsweredBy.FAN_OUT_JOB
        return AnsweredBy.WARM_POOL if self.warm_pool is not None else AnsweredBy.INFERENCE_BATCH


BATCHES = RouteTarget(inference_batch=BatchTarget())
"""What windows become unless it is said otherwise."""
