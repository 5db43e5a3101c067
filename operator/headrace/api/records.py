"""Records: one line of input becomes one `Request`, or one `RecordError` that says what is wrong with it.

The forms are OpenAI's: an input line is `{custom_id, method, url, body}`, an output line `{id, custom_id, response, error}`.
Everything here is pure and fast: it runs over a million lines on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from headrace.api.base import JsonObject
from headrace.api.common import Input, InputFormat
from headrace.api.content import (
    MAX_MEDIA,
    MEDIA_TASKS,
    ContentError,
    Modality,
    check_parts,
    media_parts,
    modalities,
    text_of,
)
from headrace.api.model import Model, Task
from headrace.api.prompts import PromptError, requester
from headrace.api.routing import MODALITIES, RoutingError, Taker, taker

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Longest line that is taken for a record; a longer one is an error and is not held in memory."""
MAX_CUSTOM_ID_LENGTH = 512
CHARACTERS_PER_TOKEN = 4
"""What a token of running text has, roughly, whatever the model."""
MEDIA_TOKENS = 256
"""What an image or a sound counts as, roughly, whatever the model: a photo of 256 x 256 in patches of 16 x 16."""


class ErrorCode(StrEnum):
    """Why a record has no result. Input codes are found before any work; the others end in the error file."""

    # found in the input
    EMPTY_INPUT = "empty_input"
    INPUT_TOO_LARGE = "input_too_large"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    LINE_TOO_LONG = "line_too_long"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_CUSTOM_ID = "missing_custom_id"
    INVALID_CUSTOM_ID = "invalid_custom_id"
    DUPLICATE_CUSTOM_ID = "duplicate_custom_id"
    INVALID_METHOD = "invalid_method"
    WRONG_ENDPOINT = "wrong_endpoint"
    INVALID_BODY = "invalid_body"
    INVALID_CONTENT = "invalid_content"
    WRONG_MODEL = "wrong_model"
    TEMPLATE_ERROR = "template_error"
    ROUTING_ERROR = "routing_error"
    SPLIT_ERROR = "split_error"
    NO_RECORD_TAKEN = "no_record_taken"
    INVALID_EXPECTED = "invalid_expected"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    # found while working
    INVALID_REQUEST = "invalid_request"
    ENGINE_ERROR = "engine_error"
    OUT_OF_MEMORY = "out_of_memory"
    MEDIA_NOT_ALLOWED = "media_not_allowed"
    MEDIA_TOO_LARGE = "media_too_large"
    MEDIA_UNREACHABLE = "media_unreachable"
    INVALID_MEDIA = "invalid_media"
    MOCK_ERROR = "mock_error"
    ENDPOINT_ERROR = "endpoint_error"
    ENDPOINT_TIMEOUT = "endpoint_timeout"
    ENDPOINT_DISCONNECTED = "endpoint_disconnected"
    INVALID_RESPONSE = "invalid_response"
    # never worked on
    BATCH_CANCELLED = "batch_cancelled"
    BATCH_EXPIRED = "batch_expired"
    BATCH_FAILED = "batch_failed"
    TOO_MANY_FAILED_RECORDS = "too_many_failed_records"
    SHARD_FAILED = "shard_failed"
    # found while joining
    NOT_ROUTED = "not_routed"
    NOT_ESCALATED = "not_escalated"
    NO_ANSWER = "no_answer"
    REQUIRED_BRANCH_MISSING = "required_branch_missing"
    NOT_ENOUGH_ANSWERS = "not_enough_answers"
    NOT_JOINABLE = "not_joinable"
    PARTS_MISSING = "parts_missing"


class RecordError(ValueError):
    """What is wrong with one record: an enumerated code, the field, and a sentence that says what must change."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None) -> None:
        self.code, self.message, self.param = code, message, param
        super().__init__(message)


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
    """The reader for lines of `spec.format`, for requests to `model`.

    For the format text use `text_reader`. Raises `InvalidSpec` when the prompt's template is wrong.
    """
    if spec.format == InputFormat.JSONL:
        return _jsonl_reader(spec, model)
    return _openai_reader(spec, model)


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
            _checked(fields["content"], "content")
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
            _check_media(body, media, model.task)
        else:
            _check_content(body, required)
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
            return _media_request(parts, media, task)
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


def _check_content(body: JsonObject, required: str) -> None:
    content = body.get(required)
    if required == "messages":
        if not isinstance(content, list) or not content:
            raise RecordError(
                ErrorCode.INVALID_BODY, "messages must be a list of at least one message", "body.messages"
            )
        for message in content:
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                place = f"body.messages[{content.index(message)}]"
                raise RecordError(ErrorCode.INVALID_BODY, "a message must be an object with a role", place)
        _check_messages(content)
    elif not isinstance(content, str | list) or not content:
        raise RecordError(
            ErrorCode.INVALID_BODY, f"{required} must be a text or a list, and not empty", f"body.{required}"
        )


def _check_messages(messages: list[JsonObject]) -> None:
    for index, message in enumerate(messages):
        if isinstance(message.get("content"), list):
            _checked(message["content"], f"body.messages[{index}].content")


def _checked(parts: list[Any], at: str) -> list[Any]:
    """The parts, which are sound."""
    try:
        check_parts(parts, at)
    except ContentError as error:
        raise RecordError(ErrorCode.INVALID_CONTENT, str(error), error.param) from error
    return parts


def _check_media(body: JsonObject, media: Modality, task: Task) -> None:
    """A request of a task that answers media: parts in `input`, or messages, of which the other parts do not matter."""
    if "messages" in body and "input" not in body:
        _check_content(body, "messages")
    elif isinstance(body.get("input"), list) and body["input"]:
        _checked(body["input"], "body.input")
    else:
        message = f"input must be a list of parts, some of them {media}: the task {task} answers nothing else"
        raise RecordError(ErrorCode.INVALID_BODY, message, "body.input")
    _check_number_of_media(
        len(media_parts(body, media)), media, task, "body.input" if "input" in body else "body.messages"
    )


def _media_request(parts: Any, media: Modality, task: Task) -> JsonObject:
    """The request of a record that holds parts of several kinds: those that the task is for."""
    wanted = [part for part in parts if modalities({"content": [part]}) == [media]] if isinstance(parts, list) else []
    _check_number_of_media(len(wanted), media, task, "content")
    return {"input": wanted}


def _check_number_of_media(count: int, media: Modality, task: Task, param: str) -> None:
    if not 1 <= count <= MAX_MEDIA:
        message = f"{param} must have 1 to {MAX_MEDIA} parts that are {media}, for the task {task}; it has {count}"
        raise RecordError(ErrorCode.INVALID_CONTENT, message, param)


def estimate_prompt_tokens(body: JsonObject) -> int:
    """Tokens of a request's prompt, at four characters each: good enough for plans and budgets, never for limits."""
    messages = body.get("messages")
    if messages is None:
        return -(-_text_length(body.get("prompt") or body.get("input")) // CHARACTERS_PER_TOKEN)
    length = 0
    for message in messages:
        content = message.get("content")
        length += len(content) if isinstance(content, str) else _text_length(content)
    return -(-length // CHARACTERS_PER_TOKEN)


_MEDIA_TYPES = ("image_url", "input_audio", "audio_url")


def _text_length(content: Any) -> int:
    """Characters of the text in a prompt: a text, a token, a part of a message, or a list of these. Media count as much text."""
    length, todo = 0, [content]  # not by recursion: a record may be nested deeper than Python's stack
    while todo:
        part = todo.pop()
        if isinstance(part, str):
            length += len(part)
        elif isinstance(part, list):
            todo.extend(part)
        elif isinstance(part, dict):
            todo.append(part.get("text"))
            length += CHARACTERS_PER_TOKEN * MEDIA_TOKENS * (part.get("type") in _MEDIA_TYPES)
        elif isinstance(part, int):
            length += CHARACTERS_PER_TOKEN
    return length


def result_line(
    record_id: str, custom_id: str, body: JsonObject, attempts: int, about: Mapping[str, Any] | None = None
) -> bytes:
    """One line of the results file, newline included: OpenAI's form plus `attempts`, and `headrace` where there is more to say."""
    response = {"status_code": 200, "request_id": record_id, "body": body}
    row = _line(record_id, custom_id, attempts, response, None)
    return row if about is None else _with_about(row, about)


def error_line(record_id: str, custom_id: str, error: RecordError, attempts: int) -> bytes:
    """One line of the errors file, newline included; `attempts` is 0 for a record that was never worked on."""
    shown = {"code": error.code.value, "message": error.message, "param": error.param}
    return _line(record_id, custom_id, attempts, None, shown)


def joined_line(
    record_id: str, custom_id: str, answer: JsonObject | RecordError, about: Mapping[str, Any], attempts: int
) -> bytes:
    """One line of a joined output, newline included: that of the answer or error, plus `headrace`, which says how it came about."""
    if isinstance(answer, RecordError):
        row = error_line(record_id, custom_id, answer, attempts)
    else:
        row = result_line(record_id, custom_id, answer, attempts)
    return _with_about(row, about)


def _with_about(row: bytes, about: Mapping[str, Any]) -> bytes:
    return row.removesuffix(b"}\n") + b',"headrace":' + orjson.dumps(about) + b"}\n"


def _line(
    record_id: str, custom_id: str, attempts: int, response: JsonObject | None, error: JsonObject | None
) -> bytes:
    return orjson.dumps(
        {"id": record_id, "custom_id": custom_id, "response": response, "error": error, "attempts": attempts},
        option=orjson.OPT_APPEND_NEWLINE,
    )
