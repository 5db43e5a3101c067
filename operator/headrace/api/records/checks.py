"""Whether the body of a request, or the parts of a record, are what a task can answer. Each check raises `RecordError`."""

from __future__ import annotations

from typing import Any

from headrace.api.base import JsonObject
from headrace.api.content import MAX_MEDIA, ContentError, Modality, check_parts, media_parts, modalities
from headrace.api.model import Task
from headrace.api.records.errors import ErrorCode, RecordError


def check_content(body: JsonObject, required: str) -> None:
    """A request whose field of that name holds what is asked: messages, or a text or a list."""
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
        content = message.get("content")
        if isinstance(content, list):
            checked_parts(content, f"body.messages[{index}].content")
        elif not isinstance(content, str | None):
            place = f"body.messages[{index}].content"
            raise RecordError(ErrorCode.INVALID_BODY, "content must be a text or a list of parts", place)


def checked_parts(parts: list[Any], at: str) -> list[Any]:
    """The parts, which are sound."""
    try:
        check_parts(parts, at)
    except ContentError as error:
        raise RecordError(ErrorCode.INVALID_CONTENT, str(error), error.param) from error
    return parts


def check_media(body: JsonObject, media: Modality, task: Task) -> None:
    """A request of a task that answers media: parts in `input`, or messages, of which the other parts do not matter."""
    if "messages" in body and "input" not in body:
        check_content(body, "messages")
    elif isinstance(body.get("input"), list) and body["input"]:
        checked_parts(body["input"], "body.input")
    else:
        message = f"input must be a list of parts, some of them {media}: the task {task} answers nothing else"
        raise RecordError(ErrorCode.INVALID_BODY, message, "body.input")
    _check_number_of_media(
        len(media_parts(body, media)), media, task, "body.input" if "input" in body else "body.messages"
    )


def media_request(parts: Any, media: Modality, task: Task) -> JsonObject:
    """The request of a record that holds parts of several kinds: those that the task is for."""
    wanted = [part for part in parts if modalities({"content": [part]}) == [media]] if isinstance(parts, list) else []
    _check_number_of_media(len(wanted), media, task, "content")
    return {"input": wanted}


def _check_number_of_media(count: int, media: Modality, task: Task, param: str) -> None:
    if not 1 <= count <= MAX_MEDIA:
        message = f"{param} must have 1 to {MAX_MEDIA} parts that are {media}, for the task {task}; it has {count}"
        raise RecordError(ErrorCode.INVALID_CONTENT, message, param)
