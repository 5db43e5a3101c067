"""Reading records: a reader for each format of input, from a line (or, for text, a file) to its `Request`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from headrace.api.base import JsonObject
from headrace.api.content import MEDIA_TASKS, modalities, text_of
from headrace.api.input import Input, InputFormat
from headrace.api.model import Model, Task
from headrace.api.prompts import PromptError, requester
from headrace.api.records.checks import check_content, check_media, checked_parts, media_request
from headrace.api.records.errors import ErrorCode, RecordError
from headrace.api.routing import MODALITIES, RoutingError, Taker, taker

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Longest line that is taken for a record; a longer one is an error and is not held in memory."""
MAX_CUSTOM_ID_LENGTH = 512


class Request(NamedTuple):
    """One record, ready for an engine."""

    custom_id: str
    body: JsonObject
    """The request in the names of the task's OpenAI endpoint; the batch's parameters are not yet merged in."""
    taken: bool = True
    """Whether the record is for this batch, as `input.when` says; otherwise the body is empty."""


Reader = Callable[[bytes], Request]
"""From one raw line (or, for text, one file's bytes) to its request. Raises `RecordError`."""


def reader(spec: Input, model: Model) -> Reader:
    """The reader for lines of `spec.format`, for requests to `model`. Rows of CSV and Parquet are lines of JSON by then.

    For the format text use `text_reader`. Raises `InvalidSpec` when the prompt's template is wrong.
    """
    if spec.format == InputFormat.OPENAI:
        return _openai_reader(spec, model)
    return _jsonl_reader(spec, model)


def id_reader() -> Reader:
    """A reader that looks at the `custom_id` alone and leaves the body empty: the template is not filled."""
    return lambda raw: Request(record_custom_id(record_fields(raw)), {})


def text_id_reader() -> Callable[[str, bytes], Request]:
    """The same for the format text."""
    return lambda name, _: Request(record_custom_id({"custom_id": name}), {})


def text_reader(spec: Input, model: Model) -> Callable[[str, bytes], Request]:
    """The reader for the format text: from a file's name (its `custom_id`) and its bytes to its request."""
    make = request_maker(spec, model)
    return lambda name, raw: make(text_fields(name, raw))


def text_fields(name: str, raw: bytes) -> JsonObject:
    """The fields of a record of the format text. Raises `RecordError`."""
    try:
        return {"text": raw.decode(), "custom_id": name}
    except UnicodeDecodeError as error:
        raise RecordError(ErrorCode.INVALID_UTF8, f"byte {error.start} is not UTF-8") from error


def request_maker(spec: Input, model: Model) -> Callable[[JsonObject], Request]:
    """From the fields of a record to its request, for the formats jsonl and text. Raises `InvalidSpec` for a wrong template.

    The function raises `RecordError` for a record that does not fit.
    """
    request, passes = _requests(spec, model.task), _gate(spec)

    def make(fields: JsonObject) -> Request:
        name = record_custom_id(fields)
        if not passes(fields):
            return Request(name, {}, taken=False)
        if isinstance(fields.get("content"), list):
            checked_parts(fields["content"], "content")
        return _render(request, name, fields)

    return make


def _gate(spec: Input) -> Taker:
    """Whether a record is for the batch. Raises `RecordError` when `input.when` says neither yes nor no."""
    if spec.when is None:
        return lambda _: True
    takes, asks = taker(spec.when), MODALITIES in spec.when

    def passes(record: JsonObject) -> bool:
        try:
            return takes({MODALITIES: modalities(record), **record} if asks else record)
        except RoutingError as error:
            message = f"input.when does not fit this record: {error}"
            raise RecordError(ErrorCode.ROUTING_ERROR, message, "input.when") from error

    return passes


def _openai_reader(spec: Input, model: Model) -> Reader:
    passes = _gate(spec)
    endpoint, name = model.task.endpoint, model.name
    required = {Task.CHAT: "messages", Task.COMPLETION: "prompt"}.get(model.task, "input")
    media = MEDIA_TASKS.get(model.task)
    known = {"custom_id", "method", "url", "body", "expected"}

    def read(raw: bytes) -> Request:
        record = record_fields(raw)
        custom_id = record_custom_id(record)
        if not passes(record):
            return Request(custom_id, {}, taken=False)
        if not known.issuperset(record):
            extra = min(record.keys() - known)
            raise RecordError(ErrorCode.UNKNOWN_FIELD, f"{extra} is not a field of a batch request", extra)
        if record.get("method", "POST") != "POST":
            raise RecordError(ErrorCode.INVALID_METHOD, "method must be POST", "method")
        if endpoint is not None and record.get("url", endpoint) != endpoint:
            raise RecordError(
                ErrorCode.WRONG_ENDPOINT,
                f"url must be {endpoint} for the task {model.task}, not {record['url']}",
                "url",
            )
        body = record.get("body")
        if not isinstance(body, dict):
            raise RecordError(ErrorCode.INVALID_BODY, "body must be an object", "body")
        if body.get("model", name) != name:
            raise RecordError(
                ErrorCode.WRONG_MODEL, f"this batch runs the model {name}, not {body['model']}", "body.model"
            )
        if media is not None:
            check_media(body, media, model.task)
        else:
            check_content(body, required)
        return Request(custom_id, body)

    return read


def _jsonl_reader(spec: Input, model: Model) -> Reader:
    make = request_maker(spec, model)
    return lambda raw: make(record_fields(raw))


def _requests(spec: Input, task: Task) -> Callable[[Mapping[str, Any]], JsonObject]:
    """From a record's fields to the body of its request: of its parts, or of its fields in a prompt."""
    media, write, prompt = MEDIA_TASKS.get(task), requester(spec.prompt, task, spec.window), spec.prompt

    def request(fields: Mapping[str, Any]) -> JsonObject:
        parts = fields.get("content")
        if media is not None:
            return media_request(parts, media, task)
        if not isinstance(parts, list):
            return write(fields)
        if prompt is None and task == Task.CHAT:
            return {"messages": [{"role": "user", "content": parts}]}
        return write({"text": text_of(parts), **fields})

    return request


def _render(request: Callable[[Mapping[str, Any]], JsonObject], custom_id: str, fields: Mapping[str, Any]) -> Request:
    try:
        return Request(custom_id, request(fields))
    except PromptError as error:
        raise RecordError(
            ErrorCode.TEMPLATE_ERROR, f"the prompt template does not fit this record: {error}", "input.prompt.template"
        ) from error


def record_fields(raw: bytes) -> JsonObject:
    """The JSON object in a line. Raises `RecordError`."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            raw.decode()
        except UnicodeDecodeError as wrong:
            raise RecordError(ErrorCode.INVALID_UTF8, f"byte {wrong.start} of the line is not UTF-8") from wrong
        column = min(error.pos, len(raw.rstrip())) + 1
        raise RecordError(ErrorCode.INVALID_JSON, f"column {column}: {error.msg.split(':')[0]}") from error
    if not isinstance(record, dict):
        raise RecordError(ErrorCode.NOT_AN_OBJECT, "a record must be a JSON object")
    return record


def record_custom_id(record: JsonObject) -> str:
    """The `custom_id` of a record. Raises `RecordError`."""
    custom_id = record.get("custom_id")
    if custom_id is None:
        raise RecordError(ErrorCode.MISSING_CUSTOM_ID, "custom_id must be set: results are matched by it", "custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_LENGTH:
        raise RecordError(
            ErrorCode.INVALID_CUSTOM_ID,
            f"custom_id must be a string of 1 to {MAX_CUSTOM_ID_LENGTH} characters",
            "custom_id",
        )
    return custom_id
