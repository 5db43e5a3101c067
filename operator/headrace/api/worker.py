"""The contract between the operator and its workers: what a worker is told, how it ends, and what it reports.

A worker is told everything by environment variables and reports by its exit code and its termination message (durable in the
pod's status, at most 4,096 bytes). While it runs, `GET /progress` on its metrics port answers with the same report.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from headrace.api.aggregation import Aggregation
from headrace.api.base import ApiModel, Count, FreeObject, Time
from headrace.api.cascade import Cascade
from headrace.api.common import Batching, Input, InputFormat, Retries
from headrace.api.engines import Engine
from headrace.api.evaluation import Decimal, Evaluation, Feature, Scores
from headrace.api.inferencebatch import RecordCounts, RecordProblem, Usage
from headrace.api.model import Model
from headrace.api.ranges import parse_ranges
from headrace.api.window import DataWindow

TERMINATION_MESSAGE_BYTES = 4096


class ExitCode(IntEnum):
    """How a worker ends; rendered as `podFailurePolicy`."""

    DONE = 0
    """Its work is committed; records that failed are in the error file."""
    DRAINED = 42
    """Stopped or preempted with its work put away; started again free of charge."""
    SHARD_FAILED = 43
    """This shard cannot be done; the others can."""
    JOB_FAILED = 44
    """Nothing can be done: bad configuration, no model, no room for the output."""


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
    THREADS = "HEADRACE_THREADS"
    """Threads for arithmetic; by default what the cgroup allows."""
    SECRETS = "HEADRACE_SECRETS"
    """Folder of the Secrets that are mounted: the key KEY of the Secret NAME is the file NAME/KEY. Absent where there are no Secrets."""
    CONFIG_MAPS = "HEADRACE_CONFIG_MAPS"
    """Folder of the ConfigMaps with weights of endpoints: the weight of the endpoint NAME is in the file CONFIGMAP/NAME."""
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
    """The input of a stage: lines of the original, and for the format text objects with `custom_id` and `text`.

    Of an input that is split these are its parts, as records of their own: they are not split once more.
    """
    kept = InputFormat.JSONL if original.format == InputFormat.TEXT else original.format
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
    parameters: FreeObject = Field(default_factory=dict)
    batching: Batching
    shards: Annotated[int, Field(ge=1)]
    """Parts wanted; the manifest may have fewer, never more."""
    retries: Retries
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


class Failure(ApiModel):
    """Why a worker ended with an exit code other than 0 and 42."""

    reason: Annotated[str, Field(max_length=128, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """One CamelCase word."""
    message: str
    """What is wrong and what must change."""


class PlanReport(ApiModel):
    """What `plan` found."""

    kind: Literal["plan"] = "plan"
    records: Count = 0
    parents: Count | None = None
    """When the input is split: the records whose parts these are."""
    carried: Count | None = None
    """How many of the records were left without a result by an earlier batch, where there is one to be taken up."""
    shards: Count = 0
    """Parts that the input was cut into."""
    input_bytes: Count = 0
    estimated_prompt_tokens: Count = 0
    manifest_sha256: Annotated[str, Field(max_length=64)] = ""
    error_count: Count = 0
    errors: tuple[RecordProblem, ...] = ()
    """The first errors, as many as fit."""
    errors_uri: Annotated[str, Field(max_length=4096)] | None = None
    """Where all of them are; left out when it is too long for a termination message."""
    failure: Failure | None = None


class ShardReport(ApiModel):
    """How far one shard is. Only records that are safely on disk count, so it never goes backwards."""

    kind: Literal["shard"] = "shard"
    shard: Count
    attempt: Count = 0
    """Which pod of this shard, from 1; 0 before it has claimed the shard."""
    committed: bool = False
    """Whether this is the last word."""
    records: RecordCounts = Field(default_factory=RecordCounts)
    usage: Usage = Field(default_factory=Usage)
    batches: Count = 0
    batched_records: Count = 0
    """Sum of the sizes of all batches: fill = batched_records / (batches · maxBatchSize)."""
    reprocessed: Count = 0
    """Records whose work an earlier attempt had begun and lost."""
    records_per_second: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")] = "0"
    seconds: Count = 0
    """How long the pod that says this has been at work, rounded up; 0 when it has found the shard done."""
    first_record_time: Time | None = None
    """When this pod has begun its first record; None before that."""
    failure: Failure | None = None


class Compared(ApiModel):
    """By how much one feature differs from the reference."""

    feature: Feature
    psi: Decimal
    """The population stability index."""
    chance: Decimal
    """What it exceeds once in a thousand pairs of runs of these sizes that are alike."""


class EvaluationReport(ApiModel):
    """What looking at the whole run has found; or why it could not be looked at, or compared."""

    scores: Scores | None = None
    """None when no record says what is expected."""
    compared: tuple[Compared, ...] = ()
    """The features that both runs have."""
    missing: tuple[Feature, ...] = ()
    """The features that only one of them has."""
    failure: Failure | None = None
    """Then there is no evaluation."""
    incomparable: Failure | None = None
    """Why the run could not be compared with the reference, where there is one."""


class FinalizeReport(ApiModel):
    """The sums of the whole batch, as its manifest has them."""

    kind: Literal["finalize"] = "finalize"
    records: RecordCounts = Field(default_factory=RecordCounts)
    usage: Usage = Field(default_factory=Usage)
    batches: Count = 0
    batched_records: Count = 0
    evaluation: EvaluationReport | None = None
    """Of a run that was to be evaluated."""
    failure: Failure | None = None


class JoinReport(ApiModel):
    """The sums of the joined output, as its manifest has them."""

    kind: Literal["join"] = "join"
    records: RecordCounts = Field(default_factory=RecordCounts)
    failure: Failure | None = None


class SelectReport(ApiModel):
    """How many records a stage of a cascade is given."""

    kind: Literal["select"] = "select"
    stage: Count = 0
    records: Count = 0
    """Those that the stages before it have not settled."""
    spared: Count = 0
    """Those that they have."""
    failure: Failure | None = None


class ListReport(ApiModel):
    """What there is of the input."""

    kind: Literal["list"] = "list"
    window: DataWindow | None = None
    """Of which time these objects are; None before anything is known."""
    objects: Count = 0
    """Those that were last modified in it."""
    oldest_time: Time | None = None
    """When the oldest of them was, rounded down to the second."""
    failure: Failure | None = None


Report = PlanReport | ShardReport | FinalizeReport | JoinReport | SelectReport | ListReport


_REPORT: TypeAdapter[Report] = TypeAdapter(Annotated[Report, Field(discriminator="kind")])


def parse_report(text: str | bytes) -> Report | None:
    """The report in a termination message; None when it is no report (a pod that died before it could write one)."""
    try:
        return _REPORT.validate_json(text)
    except ValidationError:
        return None


def termination_message(report: Report) -> bytes:
    """The report as JSON of at most 4,096 bytes: lists and sentences are shortened until it fits."""
    while len(text := orjson.dumps(report.to_object())) > TERMINATION_MESSAGE_BYTES:
        report = _shortened(report)
    return text


def _shortened(report: Report) -> Report:
    """One step shorter, the least important part first. All other parts are bounded, and fit."""
    if isinstance(report, PlanReport) and report.errors:
        return report.model_copy(update={"errors": report.errors[:-1]})
    if report.failure is not None and len(report.failure.message) > _SENTENCE:
        message = report.failure.message
        failure = report.failure.model_copy(update={"message": message[: len(message) * 3 // 4] + "…"})
        return report.model_copy(update={"failure": failure})
    return report.model_copy(update={"errors_uri": None})


_SENTENCE = 256
"""Characters that every message may keep, however they are escaped."""


class Segment(ApiModel):
    """A run of bytes of one input object."""

    uri: str
    start: Count
    end: Count
    """Exclusive."""
    line: Annotated[int, Field(ge=1)] = 1
    """Line number of its first line."""
    custom_id: str | None = None
    """For the format text: the id of the record that the segment is."""


class Shard(ApiModel):
    """One part of the input; always the same records."""

    index: Count
    first_record: Count
    """Number of its first record in the whole input, from 0."""
    first_part: Count = 0
    """Position of the first part that it takes of its first segment's first record, when the input is split."""
    records: Annotated[int, Field(ge=1)]
    sha256: str
    """Of its records' bytes, their line ends included, blank lines left out: an input that was changed after the plan is
    noticed before anything is committed."""
    segments: tuple[Segment, ...]


class ManifestHeader(ApiModel):
    """First line of the shard manifest; one `Shard` a line follows."""

    version: Literal[1] = 1
    batch: BatchIdentity
    created: Count
    """Seconds since the epoch; every result carries it as its `created`, so that a rerun gives the same bytes."""
    records: Count
    parents: Count | None = None
    """When the input is split: the records that it has. All other counts are of their parts."""
    carried: Count | None = None
    """Where an earlier batch is taken up: how many records, which come first, are of it."""
    shards: Count
    input_bytes: Count
    estimated_prompt_tokens: Count = 0
