"""From a request for a batch to the InferenceBatch that it means.

A batch of OpenAI's names its model on each line of its file; an InferenceBatch has one model. So the first line says which it is, and the
preflight holds the others to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from headrace.api import labels
from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.gateway import MAX_WINDOW_SECONDS, BatchRequest, ServedModel, ServedModels
from headrace.api.inferencebatch import InferenceBatch
from headrace.api.records import MAX_RECORD_BYTES, ErrorCode, RecordError, record_custom_id, record_fields
from headrace.api.tracing import TraceContext
from headrace.core.openai.errors import ApiError, bad_request, conflict, from_invalid
from headrace.core.tracing.context import handed_on

ANNOTATIONS = (labels.OPENAI_INPUT_FILE, labels.OPENAI_WINDOW, labels.OPENAI_METADATA)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a new batch belongs."""

    namespace: str
    name: str
    input_uri: str
    """Where the uploaded file is."""
    context: TraceContext | None = None
    """The trace context that the request was made in."""


def batch_request(body: JsonObject, models: ServedModels) -> BatchRequest:
    """The request in a body. Raises `ApiError`."""
    try:
        request = BatchRequest.parse(body)
    except InvalidSpec as error:
        raise from_invalid(error) from error
    if request.endpoint not in models.endpoints:
        known = ", ".join(models.endpoints)
        message = f"endpoint must be one that a model is served for, {known}; not {request.endpoint}"
        raise bad_request(message, "endpoint", "invalid_value")
    if request.window_seconds > MAX_WINDOW_SECONDS:
        message = f"completion_window must be at most {MAX_WINDOW_SECONDS // 86400}d, not {request.completion_window}"
        raise bad_request(message, "completion_window", "invalid_value")
    return request


def served_model(request: BatchRequest, first_line: bytes, models: ServedModels) -> ServedModel:
    """The model that the first line of the input asks for. Raises `ApiError`."""
    name = _model_name(first_line, request.input_file_id)
    served = models.named(name, request.endpoint)
    if served is None:
        known = ", ".join(models.names(request.endpoint))
        message = f"the model {name[:80]} is not served here for {request.endpoint}; there are {known}"
        raise _wrong_input(request.input_file_id, message, "model_not_found")
    return served


def _model_name(line: bytes, file_id: str) -> str:
    if not line:
        raise _wrong_input(file_id, "it has none, for it is empty", ErrorCode.EMPTY_INPUT)
    if len(line) > MAX_RECORD_BYTES:
        raise _wrong_input(file_id, f"it is longer than {MAX_RECORD_BYTES} bytes", ErrorCode.LINE_TOO_LONG)
    try:
        record = record_fields(line)
        record_custom_id(record)
    except RecordError as error:
        raise _wrong_input(file_id, error.message, error.code) from error
    body = record.get("body")
    name = body.get("model") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise _wrong_input(file_id, "body.model must name the model that answers the batch", "missing_model")
    return name


def _wrong_input(file_id: str, message: str, code: str) -> ApiError:
    return bad_request(f"the first line of {file_id}: {message}", "input_file_id", code)


def new_batch(request: BatchRequest, served: ServedModel, where: Destination) -> InferenceBatch:
    """The InferenceBatch that is asked for."""
    said = served.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    annotations = {
        labels.OPENAI_INPUT_FILE: request.input_file_id,
        labels.OPENAI_WINDOW: request.completion_window,
        labels.OPENAI_METADATA: json.dumps(request.metadata or {}, ensure_ascii=False, sort_keys=True),
        **handed_on(where.context),
    }
    return InferenceBatch.parse(
        {
            "metadata": {"name": where.name, "namespace": where.namespace, "annotations": annotations},
            "spec": {
                **said,
                "input": {"uri": where.input_uri, "format": "openai"},
                "completionDeadlineSeconds": request.window_seconds,
            },
        }
    )


def same_request(known: InferenceBatch, asked: InferenceBatch) -> InferenceBatch:
    """The batch that an earlier request with the same Idempotency-Key has made. Raises `ApiError` when that asked for another."""
    differ = [key for key in ANNOTATIONS if known.metadata.annotations.get(key) != asked.metadata.annotations[key]]
    if differ or known.spec.model != asked.spec.model or known.spec.input != asked.spec.input:
        message = "this Idempotency-Key was used before, for a request with another body: send a new key"
        raise conflict(message, "Idempotency-Key", "idempotency_key_reused")
    return known


def made_by_request(batch: InferenceBatch) -> bool:
    """Whether `POST /v1/batches` has made it."""
    return labels.OPENAI_INPUT_FILE in batch.metadata.annotations


def check_deletable(file_id: str, unfinished: list[InferenceBatch]) -> None:
    """Raise `ApiError` when a batch that is not over reads the file."""
    readers = [
        it.metadata.name for it in unfinished if it.metadata.annotations.get(labels.OPENAI_INPUT_FILE) == file_id
    ]
    if readers:
        raise _in_use(file_id, readers)


def _in_use(file_id: str, readers: list[str]) -> ApiError:
    named = ", ".join(f"batch_{name}" for name in readers[:3])
    return conflict(f"{file_id} is the input of {named}: cancel it first, or wait for its end", "id", "file_in_use")
