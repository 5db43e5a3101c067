"""Parts of a spec that the kinds share: where a model, an input and an output are, what an engine is told, what a pod gets."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.alias_generators import to_camel

from headrace.api.base import ApiModel, LongText, Name, Rule
from headrace.api.freeobjects import InlineRecord
from headrace.api.intorstring import IntOrString
from headrace.api.media import Media
from headrace.api.splitting import Split
from headrace.api.window import DataWindow, Objects

WINDOW_KNOWN = Rule(
    cel="self.spec.input.objects == 'All' || has(self.spec.input.window)",
    message="input.window must be set when input.objects is ModifiedInWindow; a ScheduledGeneration sets it by itself",
    check=lambda it: it.spec.input.objects == Objects.ALL or it.spec.input.window is not None,
    field="spec.input.objects",
)
"""Of an object that reads an input itself. The template of a schedule has no window yet."""


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


class InputFormat(StrEnum):
    """How the input is cut into records."""

    OPENAI = "openai"
    """OpenAI's batch file: one request object a line, with `custom_id`, `method`, `url` and `body`."""
    JSONL = "jsonl"
    """One JSON object a line; `prompt` makes a request of it."""
    TEXT = "text"
    """Each file is one record; `prompt` makes a request of its `text`; its path is the `custom_id`."""


class Prompt(ApiModel):
    """How a record that is not yet a request becomes one."""

    template: Annotated[str, Field(min_length=1, max_length=32768)] = "{{ text }}"
    """Jinja template of the prompt; the record's fields are its variables. A variable that is missing is an error of the record."""
    system: LongText | None = None
    """System message, for the task `chat`."""


When = Annotated[str, Field(min_length=1, max_length=1024)]
"""A condition in CEL on a record (`headrace.api.routing`)."""


class ConfigMapRef(ApiModel):
    """Input kept in a ConfigMap of the object's namespace: each key is one file."""

    name: Name
    """The ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """One key; by default all of them, in the order of their names."""


INPUT_SCHEMES = "file|claim|package|s3|gs|az"
OUTPUT_SCHEMES = "file|claim|s3|gs|az"


class Input(ApiModel):
    """Where the records come from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("uri", "inline", "config_map_ref"),
        Rule(
            cel="!has(self.prompt) || self.format != 'openai'",
            message="prompt may not be set when format is openai: its lines are requests already",
            check=lambda it: it.prompt is None or it.format != InputFormat.OPENAI,
        ),
        Rule(
            cel="!has(self.inline) || self.format != 'text'",
            message="inline records are objects: format must be openai or jsonl",
            check=lambda it: it.inline is None or it.format != InputFormat.TEXT,
        ),
        Rule(
            cel="!has(self.split) || self.format != 'openai'",
            message="split may not be set when format is openai: its lines are requests already, and have no text to split",
            check=lambda it: it.split is None or it.format != InputFormat.OPENAI,
            field="split",
        ),
        Rule(
            cel="!has(self.split) || !(self.split.by in ['tiles', 'frames']) || self.format != 'text'",
            message="tiles and frames are of the images in content: format must be jsonl",
            check=lambda it: it.split is None or not it.split.by.of_images or it.format != InputFormat.TEXT,
            field="format",
        ),
        Rule(
            cel="self.objects == 'All' || (has(self.uri) && !self.uri.startsWith('package://'))",
            message="ModifiedInWindow is about files and objects: uri must name them, and not a package",
            check=lambda it: it.objects == Objects.ALL or (it.uri is not None and not it.uri.startswith("package://")),
            field="objects",
        ),
        Rule(
            cel="!has(self.carriedFrom) || (has(self.uri) && !has(self.split))",
            message="carriedFrom is about records that lie at a URI, and whole: uri must be set, and split must not",
            check=lambda it: it.carried_from is None or (it.uri is not None and it.split is None),
            field="carriedFrom",
        ),
    )

    uri: Annotated[str, Field(max_length=4096, pattern=rf"^({INPUT_SCHEMES})://.+")] | None = None
    """A file, a folder or a glob: `s3://bucket/key`, `gs://`, `az://`, `claim://NAME/PATH`, `file:///PATH`,
    `package://MODULE/PATH` (a file in an installed Python package) or `package://MODULE:NAME` (a mapping of names to texts there)."""
    inline: Annotated[tuple[InlineRecord, ...], Field(min_length=1, max_length=1000)] | None = None
    """The records themselves, at most 1,000 and 256 KiB."""
    config_map_ref: ConfigMapRef | None = None
    """A ConfigMap that holds the records."""
    format: InputFormat = InputFormat.OPENAI
    """How the input is cut into records."""
    prompt: Prompt | None = None
    """How a record becomes a request, for the formats jsonl and text."""
    limit: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Take only the first so many records: a trial run of a large input."""
    split: Split | None = None
    """Split each record into parts, which are worked on as records of their own; `limit` counts whole records, all else the parts."""
    when: When | None = None
    """Of these, take only the records for which this CEL expression is true, as in `size(record.text) < 2000`. The others are passed
    over, but must have a custom_id of their own all the same."""
    objects: Objects = Objects.ALL
    """All, or ModifiedInWindow: only what was last modified within `window`. When there is nothing, the batch is complete without a pod
    of its own having been started for the work."""
    window: DataWindow | None = None
    """The time whose data this is about, for `objects`, for prompts (`{{ window.start }}`, `{{ window.end }}`) and for the environment of
    workers. A ScheduledGeneration says it for each of its runs."""
    carried_from: Annotated[str, Field(max_length=4096, pattern=rf"^({OUTPUT_SCHEMES})://.+")] | None = None
    """The output folder of an earlier batch or fan-out that has read records of this format: those without a result are taken up here,
    before those of `uri`. They are read where they lay then. A ScheduledGeneration says it for its runs."""
    media: Media | None = None
    """Where images and sounds that records name by a URL may be fetched from, and how much; by default from public addresses."""


class Output(ApiModel):
    """Where results and errors go."""

    uri: Annotated[str, Field(max_length=4096, pattern=rf"^({OUTPUT_SCHEMES})://.+")] | None = None
    """A folder of this batch alone; by default one below the place that the installation is set up with."""


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


class Batching(ApiModel):
    """When waiting records become a batch: whichever limit is reached first."""

    max_batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Records in a batch; for a generating model, sequences running at once."""
    max_batch_tokens: Annotated[int, Field(ge=1, le=100_000_000)] = 16384
    """Tokens in a batch; a record longer than this is a batch of its own."""
    max_wait_milliseconds: Annotated[int, Field(ge=0, le=3_600_000)] = 200
    """How long a batch that is not full may wait for more records."""
    order_by: OrderBy = OrderBy.LENGTH
    """Batch mates of similar length waste the least; the output keeps the order of the input."""


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

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.baseSeconds <= self.capSeconds",
            message="baseSeconds must not be greater than capSeconds",
            check=lambda it: it.base_seconds <= it.cap_seconds,
        ),
    )

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
