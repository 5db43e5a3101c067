"""What turns requests into answers: the engines, and what each is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from headrace.api.base import ApiModel, FreeObject, Name, Rule
from headrace.api.common import SecretKeyRef

MOST_WEIGHT = 1_000_000
"""Of an endpoint."""


class MockEngine(ApiModel):
    """The engine without a model: answers, delays, errors and crashes that are the same in every run of a record."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Another seed, other errors."""
    latency_milliseconds: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    """How long one batch takes."""
    error_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of records that fail."""
    error_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    """In how many of their first attempts they fail; by default in all. A retry of the batch is one more attempt."""
    crash_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of records that kill the worker process at their first attempt."""


class TransformersEngine(ApiModel):
    """PyTorch with Hugging Face transformers."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; `auto` is bfloat16 on a GPU and float32 on a CPU."""


class VllmEngine(ApiModel):
    """vLLM as a library."""

    arguments: FreeObject = Field(default_factory=dict)
    """Engine arguments in vLLM's own names."""


class Endpoint(ApiModel):
    """One OpenAI-compatible server."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """What metrics and messages call it."""
    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://[A-Za-z0-9._:\[\]-]+(/[!$->A-~]*)?$")]
    """Base URL, up to `/v1`, which may be left out: `https://api.openai.com`. Without a user, a password or a query: a key is a Secret."""
    weight: Annotated[int, Field(ge=0, le=MOST_WEIGHT)] = 1
    """Share of the requests under `Weighted`; with 0 it gets none while others can take them."""
    api_key_secret_ref: SecretKeyRef | None = None
    """Where the API key is. On a laptop it comes from the environment variable of that key's name, in capitals."""
    model: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """What it calls the model; by default `model.name`."""
    response_model: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """What its answers call the model, where that is neither the name it was asked for nor a version of it. Answers of another model are
    refused."""
    tier: Annotated[int, Field(ge=0, le=9)] = 0
    """A fallback: endpoints of a higher tier are asked when all of the lower ones are behind an open breaker, and for records that have had
    all their tries there."""
    zone: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Where it is, as nodes have it in their label topology.kubernetes.io/zone; for `Locality`."""
    max_concurrent_requests: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Requests in flight to it from one pod, at most; by default `batching.maxBatchSize`, which bounds those to all endpoints together."""


class LoadBalancing(StrEnum):
    """How a request finds its server, among those that can take one now."""

    ROUND_ROBIN = "RoundRobin"
    """Each in turn."""
    LEAST_REQUESTS = "LeastRequests"
    """The one with the fewest requests in flight."""
    WEIGHTED = "Weighted"
    """In proportion to their weights."""
    LOCALITY = "Locality"
    """Those in the zone of the worker first."""
    EWMA = "EWMA"
    """The one that should answer soonest: by the moving average of its response times, and the requests that it would have in flight."""


class WeightsRef(ApiModel):
    """A ConfigMap of the object's namespace whose keys are names of endpoints and whose values are their weights.

    It need not be there, and what it does not name has the weight of the spec. Workers read it again while they work.
    """

    name: Name
    """The ConfigMap."""


class OpenAIEngine(ApiModel):
    """Requests to OpenAI-compatible servers."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.endpoints.all(one, self.endpoints.exists_one(other, other.name == one.name))",
            message="the names of endpoints must differ",
            check=lambda engine: len({it.name for it in engine.endpoints}) == len(engine.endpoints),
            field="endpoints",
        ),
    )

    endpoints: Annotated[
        tuple[Endpoint, ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """The servers, any of which may answer a record."""
    load_balancing: LoadBalancing = LoadBalancing.LEAST_REQUESTS
    """How a request finds its server."""
    weights_config_map_ref: WeightsRef | None = None
    """Weights that may change while the batch runs."""
    request_timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 600
    """How long one try of a record may take, from the connection to the last byte of the answer."""
    max_retry_after_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    """How long an endpoint is left alone at most, whatever its `Retry-After` says."""
    park_after_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    """How long workers wait for endpoints none of which answers. Then they put their work away, and some try again from time to time."""
    allow_degraded: bool = True
    """Whether endpoints above the lowest tier may answer. With false they are not asked, and records wait for those of the lowest tier."""

    @property
    def asked(self) -> tuple[Endpoint, ...]:
        """Those that may be asked at all."""
        lowest = min(it.tier for it in self.endpoints)
        return tuple(it for it in self.endpoints if self.allow_degraded or it.tier == lowest)


class EngineName(StrEnum):
    """What runs the model."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    OPENAI = "openai"
    MOCK = "mock"


def _only_for(field: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || self.name == '{field}'",
        message=f"{field} may be set only when name is {field}",
        check=lambda engine: getattr(engine, field) is None or engine.name == field,
        field=field,
    )


class Engine(ApiModel):
    """What runs the model, and its settings."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(_only_for(name.value) for name in EngineName),
        Rule(
            cel="self.name != 'openai' || has(self.openai)",
            message="openai must be set when name is openai",
            check=lambda engine: engine.name != EngineName.OPENAI or engine.openai is not None,
        ),
    )

    name: EngineName = EngineName.TRANSFORMERS
    """What runs the model."""
    mock: MockEngine | None = None
    """Settings of the mock engine."""
    transformers: TransformersEngine | None = None
    """Settings of the transformers engine."""
    vllm: VllmEngine | None = None
    """Settings of the vllm engine."""
    openai: OpenAIEngine | None = None
    """Settings of the openai engine."""

    @property
    def needs_gpu(self) -> bool:
        """Whether pods of this engine ask for a GPU when nothing else is said."""
        return self.name in (EngineName.TRANSFORMERS, EngineName.VLLM)
