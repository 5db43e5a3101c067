"""From records to a shard manifest or a list of problems: what `plan` does to an input, and the whole of it for inline records.

Everything here is pure. The worker's `plan` streams its input through the same readers and the same `ShardCutter`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from headrace.api.base import JsonObject
from headrace.api.batchstatus import RecordProblem
from headrace.api.evaluation import Evaluation
from headrace.api.input import Input, InputFormat
from headrace.api.model import Model
from headrace.api.prompts import substitutes_only
from headrace.api.records import ErrorCode, Reader, RecordError, estimate_prompt_tokens, id_reader, reader
from headrace.api.sharding import ShardCutter
from headrace.api.worker import BatchIdentity, ManifestHeader, PlanReport

MAX_INLINE_BYTES = 256 * 1024
"""Most that inline records may have together, as JSON lines."""
SHOWN_ERRORS = 20
"""Bad lines that a report carries."""


def record_problem(error: RecordError, line: int, file: str | None = None) -> RecordProblem:
    """A bad line, as reports show it; texts that come from the input are cut to the length that a status may hold."""
    return RecordProblem(
        line=line,
        code=error.code.value,
        param=_clipped(error.param, 256),
        message=_clipped(error.message, 1024) or "",
        file=_clipped(file, 1024),
    )


def duplicate(custom_id: str, first_use: str) -> RecordError:
    """The error of a `custom_id` that was used before; `first_use` says where, such as `line 3`."""
    message = f"custom_id {custom_id} is used by {first_use} already: it must be unique, results are matched by it"
    return RecordError(ErrorCode.DUPLICATE_CUSTOM_ID, message, "custom_id")


def _clipped(text: str | None, length: int) -> str | None:
    return text if text is None or len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True, slots=True)
class InlinePlan:
    """Inline records as a file, its shard manifest, and what `plan` would have reported."""

    lines: bytes
    """The records as JSON lines."""
    manifest: bytes
    """Empty when the report has errors, and when there is none."""
    report: PlanReport | None
    """None: the records are well-formed, but splitting them or filling their template is work for a pod."""


def lay_out_inline(  # noqa: PLR0913 - the parts of a batch that it depends on, each by its name
    records: Sequence[JsonObject],
    spec: Input,
    model: Model | None,
    *,
    shards: int,
    batch: BatchIdentity,
    created: int,
    uri: str,
    evaluation: Evaluation | None = None,
) -> InlinePlan:
    """Check inline records and cut them into shards as `plan` does with a file at `uri`, where that can be done here.

    `created` is in seconds since the epoch. A problem's line is the record's place in the list, from 1. Without a model the records
    are looked at for their `custom_id` alone. A pod reads what is to be evaluated: what it is compared with may lie anywhere.
    Raises `InvalidSpec` when the prompt's template is wrong.
    """
    here = readable_here(spec, evaluation)
    rows, problems, tokens = _check_inline(
        records, spec, reader(spec, model) if here and model is not None else id_reader()
    )
    lines = b"".join(rows)
    if problems:
        report = PlanReport(error_count=len(problems), errors=tuple(problems[:SHOWN_ERRORS]))
        return InlinePlan(lines, b"", report)
    if not here:
        return InlinePlan(lines, b"", None)
    cutter = ShardCutter(shards, len(lines))
    cutter.begin(uri, len(lines))
    start = 0
    for number, row in enumerate(rows, 1):
        cutter.add(start, start + len(row), number, row)
        start += len(row)
    header, manifest = cutter.manifest(batch, created, tokens)
    return InlinePlan(lines, manifest, plan_report(header, hashlib.sha256(manifest).hexdigest()))


def readable_here(spec: Input, evaluation: Evaluation | None) -> bool:
    """Whether inline records can be read without running a program of the user's, splitting them, or reading anything else."""
    if evaluation is not None or spec.when is not None or spec.split is not None:
        return False
    return spec.format != InputFormat.JSONL or spec.prompt is None or substitutes_only(spec.prompt)


def plan_report(header: ManifestHeader, sha256: str) -> PlanReport:
    """What `plan` reports of an input without errors."""
    return PlanReport(
        records=header.records,
        parents=header.parents,
        carried=header.carried,
        shards=header.shards,
        input_bytes=header.input_bytes,
        estimated_prompt_tokens=header.estimated_prompt_tokens,
        manifest_sha256=sha256,
    )


def _check_inline(
    records: Sequence[JsonObject], spec: Input, read: Reader
) -> tuple[list[bytes], list[RecordProblem], int]:
    """The records as JSON lines, what is wrong with them, and the estimate of their prompt tokens."""
    rows: list[bytes] = []
    problems: list[RecordProblem] = []
    first_uses: dict[str, int] = {}
    size = tokens = 0
    for number, record in enumerate(records[: spec.limit], 1):
        try:
            row = _row(record)
            rows.append(row)
            size += len(row)
            request = read(row)
            first_use = first_uses.setdefault(request.custom_id, number)
            if first_use != number:
                raise duplicate(request.custom_id, f"record {first_use}")
            tokens += estimate_prompt_tokens(request.body)
        except RecordError as error:
            problems.append(record_problem(error, number))
    if size > MAX_INLINE_BYTES:
        problems.insert(0, record_problem(_too_large(size), 1))
    return rows, problems, tokens


def _row(record: JsonObject) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        raise RecordError(ErrorCode.INVALID_JSON, f"the record cannot be written as JSON: {error}") from error


def _too_large(size: int) -> RecordError:
    return RecordError(
        ErrorCode.INPUT_TOO_LARGE,
        f"inline records must have at most {MAX_INLINE_BYTES // 1024} KiB together, not {size / 1024:.0f} KiB: "
        "put them into a ConfigMap (input.configMapRef) or a file (input.uri)",
        "input.inline",
    )
