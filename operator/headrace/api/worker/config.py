"""What a worker is told: its role is the first argument of its command line, all else is in environment variables."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from headrace.api.aggregation import Aggregation
from headrace.api.base import ApiModel, Count, FreeObject
from headrace.api.cascade import Cascade
from headrace.api.common import Batching, Retries
from headrace.api.engines import Engine
from headrace.api.evaluation import Evaluation
from headrace.api.fileformats import Compression, OutputFormat
from headrace.api.input import Input, InputFormat
from headrace.api.model import Model
from headrace.api.ranges import parse_ranges
from headrace.api.reuse import Dedup


class Env(StrEnum):
    """Environment variables of a worker."""

    CONFIG = "HEADRACE_CONFIG"
    """`WorkerConfig` as JSON."""
    SHARD = "JOB_COMPLETION_INDEX"
    """Which shard; set by the Job controller."""
    TERMINATION_LOG = "HEADRACE_TERMINATION_LOG"
    """File for the report; `/dev/termination-log` by default."""
    METRICS_PORT = "HEADRACE_METRICS_PORT"
    """Port of `/metrics` and `/progress`; 0 takes a free one, absent means none."""
    METRICS_PORT_FILE = "HEADRACE_METRICS_PORT_FILE"
    """Where to write the port that was taken."""
    WINDOW_START = "HEADRACE_WINDOW_START"
    """The first moment of `input.window`, where there is one; also for a program of the user's."""
    WINDOW_END = "HEADRACE_WINDOW_END"
    """The first moment after it."""
    DRAIN_ON_EOF = "HEADRACE_DRAIN_ON_EOF"
    """`1`: the end of standard input means the same as SIGTERM, so that no worker outlives the shell that started it."""
    PROFILE = "HEADRACE_PROFILE"
    """Folder on this machine for a trace of what the role `run` does, step by step; absent means none."""
    THREADS = "HEADRACE_THREADS"
    """Threads for arithmetic; by default what the cgroup allows."""
    NATIVE = "HEADRACE_NATIVE"
    """`0`: the engine `transformers` uses torch's own operations, and none of its compiled kernels."""
    SECRETS = "HEADRACE_SECRETS"
    """Folder of the Secrets that are mounted: the key KEY of the Secret NAME is the file NAME/KEY. Absent where there are no Secrets."""
    CONFIG_MAPS = "HEADRACE_CONFIG_MAPS"
    """Folder of the ConfigMaps with weights of endpoints: the weight of the endpoint NAME is in the file CONFIGMAP/NAME."""
    LISTEN = "HEADRACE_LISTEN"
    """`Listening` as JSON, for a worker of a warm pool that has no pipes; absent means standard input and output."""
    POD_IP = "HEADRACE_POD_IP"
    """The address that it listens at; absent means all."""
    ZONE = "HEADRACE_ZONE"
    """The zone of the node, for endpoints that are near; empty or absent where that is not known."""


class Role(StrEnum):
    """What a worker is started to do; the first argument of its command line."""

    PLAN = "plan"
    """Read the whole input, report every bad line, write the shard manifest. Needs no GPU."""
    RUN = "run"
    """Work on one shard and commit it."""
    FINALIZE = "finalize"
    """Give every record without a result an error line, and write the manifest of the batch. Needs no GPU."""
    JOIN = "join"
    """Make one answer to each record of those that the branches of a FanOutJob have given. Needs no GPU."""
    COLLECT = "collect"
    """Write down the answers for the program of somebody else that makes one of them. Needs no GPU."""
    SELECT = "select"
    """Write down the records that the stages of a FanOutJob so far have not settled. Needs no GPU."""
    LIST = "list"
    """Count the objects of the input that were modified in its window, for a schedule that runs when there is something. Needs no GPU."""
    SERVE = "serve"
    """Load the model once, and answer the requests that come until told to stop: a worker of a warm pool."""


class BatchIdentity(ApiModel):
    """Which batch, so that no run ever writes into the output of another."""

    namespace: str
    name: str
    uid: str


class JoinBranch(ApiModel):
    """A branch, as the join knows it."""

    name: str
    weight: Count
    joined: bool
    """Whether it has left an output that is to be read; it is below `branches/NAME` in the output folder."""
    reason: str = ""
    """Why it has not."""
    stage: Count = 0
    """Of a cascade."""
    required: bool = False
    """Whether a record that it takes must have its answer."""


class FanOutConfig(ApiModel):
    """What the workers of a FanOutJob are told besides."""

    aggregation: Aggregation = Field(default_factory=Aggregation)
    branches: tuple[JoinBranch, ...] = ()
    """In the order of the spec."""
    min_answers: Annotated[int, Field(ge=1)] = 1
    """How many of the branches that take a record must have answered it."""
    round: Count = 0
    """Which retry."""
    exchange: str | None = None
    """The folder that the worker shares with a program of the user's: for `collect`, and a `join` after it."""
    cascade: Cascade | None = None
    """For `select`: which records go on."""
    stage: Count = 0
    """For `select`: to which stage."""


def stage_uri(output_uri: str, stage: int) -> str:
    """The file with the records of a stage of a cascade."""
    return f"{output_uri.rstrip('/')}/_headrace/stages/{stage}.jsonl"


def stage_input(original: Input, output_uri: str, stage: int) -> Input:
    """The input of a stage: lines of the original, for CSV and Parquet of their fields, and for the format text of `custom_id` and `text`.

    Of an input that is split these are its parts, as records of their own: they are not split once more.
    """
    kept = original.format if original.format == InputFormat.OPENAI else InputFormat.JSONL
    return Input(
        uri=stage_uri(output_uri, stage),
        format=kept,
        prompt=original.prompt,
        media=original.media,
        window=original.window,
    )


def parts_input(original: Input, output_uri: str, uid: str) -> Input:
    """The input of whoever reads the parts of images: `plan` has written them down, each with its pictures in it.

    So an image is fetched and decoded once, and nobody can find other parts in it later. `uid` is that of the object whose input is split.
    """
    return Input(
        uri=f"{output_uri.rstrip('/')}/_headrace/parts/{uid}.jsonl",
        format=InputFormat.JSONL,
        prompt=original.prompt,
        window=original.window,
    )


class WorkerConfig(ApiModel):
    """All that a worker is told."""

    batch: BatchIdentity
    model: Model
    engine: Engine
    input: Input
    """Never inline: inline records come as a file, like those of a ConfigMap."""
    plan_uri: str
    """The shard manifest: written by `plan`, read by `run` and `finalize`."""
    output_uri: str
    """The batch's own folder."""
    output_format: OutputFormat = OutputFormat.JSONL
    output_compression: Compression = Compression.NONE
    resume_from: str | None = None
    """The output folder of an earlier batch."""
    dedup: Dedup = Field(default_factory=Dedup)
    parameters: FreeObject = Field(default_factory=dict)
    batching: Batching
    shards: Annotated[int, Field(ge=1)]
    """Parts wanted; the manifest may have fewer, never more."""
    retries: Retries
    record_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    max_failed_records: Count | None = None
    """Failed records in this shard alone after which the whole batch is given up."""
    gpus: Count = 0
    round: Count = 0
    """Which retry of the batch; what has failed in an earlier one is tried once more."""
    retried_shards: str | None = None
    """The shards that this retry works on, as ranges such as `0-3,7`, in whose order the Job's indexes stand for them; None for all."""
    stop_reason: str | None = None
    """For `finalize`: the error code of the records that were never worked on."""
    evaluation: Evaluation | None = None
    """For `plan`, what is to be there and right; for `finalize`, how the run is to be looked at when all of it is done."""
    fan_out: FanOutConfig | None = None
    """It works for a FanOutJob: its `plan` looks at the records for their `custom_id` alone, the branches look at the rest."""

    @property
    def records(self) -> Input:
        """Where the records are that the shard manifest speaks of: the input, or the parts of its images."""
        split = self.input.split
        if split is None or not split.by.of_images:
            return self.input
        return parts_input(self.input, self.output_uri, self.batch.uid)


def shard_at(index: int, retried_shards: str | None) -> int:
    """The shard that an index of the run Job stands for. Raises `IndexError` when it stands for none."""
    return index if retried_shards is None else sorted(parse_ranges(retried_shards))[index]
