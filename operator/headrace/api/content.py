"""Content parts: a message, or an event, that is more than one text. The form is OpenAI's.

    {"type": "text", "text": "What is this?"}
    {"type": "image_url", "image_url": {"url": "https://…"}}
    {"type": "input_audio", "input_audio": {"data": "<base64>", "format": "wav"}}
    {"type": "audio_url", "audio_url": {"url": "https://…"}}        vLLM's, for a sound that is not in the record itself

A URL is `data:`, `http(s):`, that of an object in an object store or a Python package, or a path relative to the folder of the input.
Everything here is pure: what a URL leads to is seen when it is fetched.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from headrace.api.base import JsonObject
from headrace.api.model import Task

MAX_MEDIA = 64
"""Images or sounds of one record that one task may answer."""


class Modality(StrEnum):
    """What a part is made of."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"


MEDIA_TASKS = {Task.IMAGE_CLASSIFICATION: Modality.IMAGE, Task.AUDIO_CLASSIFICATION: Modality.AUDIO}
"""Tasks that answer media, and which."""

_PARTS = {
    "text": Modality.TEXT,
    "image_url": Modality.IMAGE,
    "input_audio": Modality.AUDIO,
    "audio_url": Modality.AUDIO,
}
_PASSED_ON = frozenset({"file", "refusal", "video_url"})
"""Parts that are left to the engine as they are."""
_AUDIO_FORMATS = ("wav", "mp3", "flac", "ogg")
_STORES = ("s3", "gs", "az", "package")
_DATA_URL = re.compile(r"data:(?P<kind>[a-z]+)/[\w.+-]+(?:;[\w-]+=[\w.+-]+)*;base64,", re.ASCII)


class ContentError(ValueError):
    """A part is not what a part must be."""

    def __init__(self, param: str, message: str) -> None:
        self.param, self.message = param, message
        super().__init__(f"{param} {message}")


class MediaPart(NamedTuple):
    """An image or a sound of a record."""

    url: str
    """Of a part with its own data a `data:` URL."""
    param: str
    """Where the URL or the data stands in the body."""


def check_parts(parts: list[Any], at: str) -> None:
    """Raise `ContentError` when one of the parts is none; `at` is the field that they stand in."""
    for index, part in enumerate(parts):
        place = f"{at}[{index}]"
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _PARTS.keys() | _PASSED_ON:
            raise ContentError(place, f"must be an object whose type is one of {', '.join(_PARTS)}")
        if kind in _CHECKS:
            _CHECKS[kind](part.get(kind), f"{place}.{kind}")


def _check_text(text: Any, at: str) -> None:
    if not isinstance(text, str):
        raise ContentError(at, "must be a text")


def _check_image(value: Any, at: str) -> None:
    _check_url(_field(value, "url", at), f"{at}.url", Modality.IMAGE)


def _check_audio(value: Any, at: str) -> None:
    _check_url(_field(value, "url", at), f"{at}.url", Modality.AUDIO)


def _check_input_audio(value: Any, at: str) -> None:
    data = _field(value, "data", at)
    if value.get("format") not in _AUDIO_FORMATS:
        raise ContentError(f"{at}.format", f"must be one of {', '.join(_AUDIO_FORMATS)}")
    _check_base64(data, f"{at}.data")


_CHECKS = {
    "text": _check_text,
    "image_url": _check_image,
    "input_audio": _check_input_audio,
    "audio_url": _check_audio,
}


def _field(value: Any, name: str, at: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        raise ContentError(at, f"must be an object with a field {name} that is a text")
    return found


def _check_url(url: str, at: str, modality: Modality) -> None:
    if url.startswith("data:"):
        found = _DATA_URL.match(url)
        if found is None or found["kind"] != modality:
            raise ContentError(at, f"must begin with data:{modality}/TYPE;base64, where it holds the data itself")
        return _check_base64(url[found.end() :], at)
    try:
        scheme, host, path, *_ = urlsplit(url)
    except ValueError as error:
        raise ContentError(at, f"is no URL: {error}") from error
    if scheme in ("http", "https"):
        return _check_host(url, at) if host else _refuse_url(at)
    if scheme not in ("", *_STORES) or (scheme and not host) or (not scheme and (host or path.startswith("/"))):
        _refuse_url(at)
    if ".." in unquote(url).split("/") or not path.strip(
        "/"
    ):  # of the whole: `?` and `#` are nothing special in a path
        raise ContentError(at, "must name something below a folder, without ..")
    return None


def _check_host(url: str, at: str) -> None:
    """What stands between `//` and the path. A name and a password in it would end up in logs and answers."""
    parts = urlsplit(url)
    try:
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or "@" in parts.netloc or any(c.isspace() or not c.isprintable() for c in url):
        raise ContentError(at, "must be a URL with a host and at most a port, without user name and without space")


def _refuse_url(at: str) -> None:
    raise ContentError(
        at, f"must begin with data:, https://, http://, {', '.join(f'{it}://' for it in _STORES)}, or be a path "
        "relative to the folder of the input"
    )  # fmt: skip


def _check_base64(text: str, at: str) -> None:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ContentError(at, f"must be data in base64: {error}") from error
    if not data:
        raise ContentError(at, "must hold some data")


def data_of(url: str) -> bytes:
    """The bytes in a `data:` URL that has been checked."""
    return binascii.a2b_base64(url.partition(",")[2])


def media_parts(body: JsonObject, modality: Modality) -> list[MediaPart]:
    """The images or sounds of a request, in their order: those in `input`, else those in all messages."""
    found = []
    for param, part in _parts_of(body):
        kind = str(part.get("type", "text"))
        if _PARTS.get(kind) != modality:
            continue
        value = part[kind]
        if kind == "input_audio":
            found.append(MediaPart(f"data:audio/{value['format']};base64,{value['data']}", f"{param}.{kind}.data"))
        else:
            found.append(MediaPart(value["url"], f"{param}.{kind}.url"))
    return found


def _parts_of(body: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Each part of a request with the place where it stands."""
    if isinstance(body.get("input"), list):
        lists = [("body.input", body["input"])]
    else:
        messages = body.get("messages") or []
        lists = [(f"body.messages[{i}].content", message.get("content")) for i, message in enumerate(messages)]
    for at, parts in lists:
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict):
                yield f"{at}[{index}]", part


def text_of(parts: list[Any]) -> str:
    """The texts of some parts, a line each."""
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def modalities(record: JsonObject) -> list[str]:
    """What a record holds, of `text`, `image` and `audio`, in this order; a record without parts is text.

    Looks at whatever it is given: what is malformed counts as nothing.
    """
    found = {_PARTS[kind] for kind in _kinds(record)}
    return [str(one) for one in Modality if one in found] or [str(Modality.TEXT)]


def _kinds(record: JsonObject) -> Iterator[str]:
    for content in _contents(record):
        if isinstance(content, str) and content:
            yield "text"
        for part in content if isinstance(content, list) else ():
            kind = part.get("type", "text") if isinstance(part, dict) else "text"
            if isinstance(kind, str) and kind in _PARTS:
                yield kind


def _contents(record: JsonObject) -> Iterator[Any]:
    """Where a record may hold parts: its own `content`, and what a request in its `body` asks about."""
    yield record.get("content")
    body = record.get("body")
    if isinstance(body, dict):
        yield body.get("input") or body.get("prompt")
        messages = body.get("messages")
        for message in messages if isinstance(messages, list) else ():
            yield message.get("content") if isinstance(message, dict) else None
