"""How a worker ends, and what it reports: in its termination message, and at `/progress` while it runs."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from headrace.api.base import ApiModel, Count, Time
from headrace.api.batchstatus import BatchLimits, RecordCounts, RecordProblem, Usage
from headrace.api.endpointstatus import MOST_ENDPOINTS, EndpointReport
from headrace.api.evaluation import Decimal, Feature, Scores
from headrace.api.reuse import Reused
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
    reused: Reused = Field(default_factory=Reused)
    batches: Count = 0
    batched_records: Count = 0
    """Sum of the sizes of all batches: fill = batched_records / (batches · maxBatchSize)."""
    batch_limits: BatchLimits | None = None
    """What this pod takes at once; None before its model is loaded, and of an engine that takes what the spec says."""
    reprocessed: Count = 0
    """Records whose work an earlier attempt had begun and lost."""
    records_per_second: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?$")] = "0"
    seconds: Count = 0
    """How long the pod that says this has been at work, rounded up; 0 when it has found the shard done."""
    first_record_time: Time | None = None
    """When this pod has begun its first record; None before that."""
    endpoints: Annotated[tuple[EndpointReport, ...], Field(max_length=MOST_ENDPOINTS)] = ()
    """Of the engine openai: how this pod finds them. Left out of a termination message that would be too long."""
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
    reused: Reused = Field(default_factory=Reused)
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


class ServeReport(ApiModel):
    """What a worker of a warm pool has answered."""

    kind: Literal["serve"] = "serve"
    records: RecordCounts = Field(default_factory=RecordCounts)
    failure: Failure | None = None


Report = PlanReport | ShardReport | FinalizeReport | JoinReport | SelectReport | ListReport | ServeReport


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
    if isinstance(report, ShardReport) and report.endpoints:
        return report.model_copy(update={"endpoints": ()})
    if report.failure is not None and len(report.failure.message) > _SENTENCE:
        message = report.failure.message
        failure = report.failure.model_copy(update={"message": message[: len(message) * 3 // 4] + "…"})
        return report.model_copy(update={"failure": failure})
    return report.model_copy(update={"errors_uri": None})


_SENTENCE = 256
"""Characters that every message may keep, however they are escaped."""
