"""Parts of a spec that the kinds share: what an engine is told, what a pod gets, how often it is tried, and which Secrets that takes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.alias_generators import to_camel

from headrace.api.base import ApiModel, Name, Rule
from headrace.api.intorstring import IntOrString


def exactly_one(*names: str) -> Rule:
    """The rule that exactly one of some optional fields is set; snake_case names."""
    return Rule(
        cel=f"[{', '.join(f'has(self.{_cel_name(name)})' for name in names)}].filter(x, x).size() == 1",
        message=f"exactly one of {', '.join(map(to_camel, names))} must be set",
        check=lambda model: sum(getattr(model, name) is not None for name in names) == 1,
    )


def _cel_name(name: str) -> str:
    """The name of a field in CEL, where `package` is a reserved word and a field of that name is written otherwise."""
    return f"__{name}__" if name == "package" else to_camel(name)


def short_name(most: int, what: str) -> Rule:
    """The rule that an object's name has at most so many characters, and no dot; `what` is named after it."""
    return Rule(
        cel=f"self.metadata.name.size() <= {most} && !self.metadata.name.contains('.')",
        message=f"metadata.name must have at most {most} characters and no dot: {what} are named after it",
        check=lambda it: len(it.metadata.name) <= most and "." not in it.metadata.name,
        field="metadata.name",
    )


BASE_WITHIN_CAP = Rule(
    cel="self.baseSeconds <= self.capSeconds",
    message="baseSeconds must not be greater than capSeconds",
    check=lambda it: it.base_seconds <= it.cap_seconds,
)
"""Of a delay that grows."""


class SecretKeyRef(ApiModel):
    """One key of a Secret in the object's namespace."""

    name: Name
    """The Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key in it."""

    @property
    def variable(self) -> str:
        """The environment variable that stands for it where there are no Secrets: `api-key` is `API_KEY` there."""
        return re.sub(r"[^A-Z0-9]", "_", self.key.upper())


class SecretRef(ApiModel):
    """A Secret in the object's namespace."""

    name: Name
    """The Secret."""


class Storage(ApiModel):
    """How workers get at object stores: the input, the output and the weights alike."""

    secret_ref: SecretRef
    """A Secret whose keys become environment variables of the workers, by reference: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    `AWS_REGION`, `AWS_ENDPOINT_URL`; `GOOGLE_SERVICE_ACCOUNT_KEY`; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`."""


class OrderBy(StrEnum):
    """In which order waiting records are put into batches."""

    NONE = "none"
    LENGTH = "length"
    PREFIX = "prefix"


USUAL_BATCH_SIZE, USUAL_BATCH_TOKENS = 64, 16384
"""Where neither a spec nor an engine says otherwise."""


class Batching(ApiModel):
    """When waiting records become a batch: whichever limit is reached first."""

    max_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Records in a batch; for a generating model, sequences running at once. By default 64; the engines transformers and vllm find out for
    how many sequences there is memory."""
    max_batch_tokens: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Tokens in a batch; a record longer than this is a batch of its own. By default 16,384; the engine transformers takes fewer in a step
    where memory is short."""
    max_wait_milliseconds: Annotated[int, Field(ge=0, le=3_600_000)] = 200
    """How long a batch that is not full may wait for more records."""
    order_by: OrderBy = OrderBy.LENGTH
    """Batch mates of similar length waste the least; the output keeps the order of the input."""

    @property
    def size(self) -> int:
        """Records in a batch, where no engine has found out better."""
        return self.max_batch_size or USUAL_BATCH_SIZE

    @property
    def tokens(self) -> int:
        """Tokens in a batch, likewise."""
        return self.max_batch_tokens or USUAL_BATCH_TOKENS


Quantity = Annotated[
    int | str,
    IntOrString(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
        maximum=2**53,
        meaning="an amount such as 2, 500m or 8Gi",
    ),
]
"""An amount as Kubernetes writes it: `2`, `500m`, `8Gi`."""


class ResourceList(ApiModel):
    """Amounts of ordinary resources."""

    cpu: Quantity | None = None
    """Processor cores: `2`, `500m`."""
    memory: Quantity | None = None
    """Bytes: `8Gi`."""


class Resources(ApiModel):
    """What each worker pod gets."""

    gpus: Annotated[int, Field(ge=0, le=1024)] | None = None
    """GPUs of one pod; by default 1 for the engines transformers and vllm, 0 for the others."""
    gpu_resource_name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = (
        "nvidia.com/gpu"
    )
    """What the cluster calls its GPUs."""
    requests: ResourceList = Field(default_factory=ResourceList)
    """What a pod is given for certain: by default its limits; without those 1 core and 4Gi of memory."""
    limits: ResourceList = Field(default_factory=ResourceList)
    """What a pod may use at most: by default no bound on cores, and of memory what it requests, or else 16Gi."""


class Backoff(ApiModel):
    """Delay before attempt n+1: base · factorⁿ⁻¹ up to the cap, drawn from the whole range below it (full jitter)."""

    rules: ClassVar[tuple[Rule, ...]] = (BASE_WITHIN_CAP,)

    base_seconds: Annotated[int, Field(ge=0, le=86400)] = 1
    """Longest delay before the second attempt."""
    factor: Annotated[int, Field(ge=1, le=100)] = 2
    """How many times longer each further delay may be."""
    cap_seconds: Annotated[int, Field(ge=0, le=86400)] = 60
    """Longest delay of all."""


class Retries(ApiModel):
    """How often one record is tried again."""

    limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Tries after the first."""
    backoff: Backoff = Field(default_factory=Backoff)


class FailurePolicy(ApiModel):
    """How much may go wrong before the batch is given up."""

    max_failed_records: (
        Annotated[
            int | str,
            IntOrString(
                pattern="^(100|[0-9]{1,2})%$",
                maximum=1_000_000_000,
                meaning="a number from 0 to 1000000000 or a share from 0% to 100%",
            ),
        ]
        | None
    ) = None
    """Failed records that are tolerated, a number or a share of all records such as `"1%"`; by default any number."""
    backoff_limit_per_index: Annotated[int, Field(ge=0, le=1000)] = 6
    """How often the pod of one shard may die before the shard is given up; drained and preempted pods are not counted."""

    def tolerated(self, total: int) -> int | None:
        """Failed records of `total` that are tolerated; None for any number."""
        if self.max_failed_records is None:
            return None
        if isinstance(self.max_failed_records, int):
            return self.max_failed_records
        return total * int(self.max_failed_records.removesuffix("%")) // 100
