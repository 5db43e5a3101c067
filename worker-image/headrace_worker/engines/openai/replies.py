"""What a server has answered, in its own words; or why there is no answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import NamedTuple

import orjson

from headrace.api.base import JsonObject
from headrace.api.model import Task

MOST_WORDS = 300
"""Characters of a server's own words that are repeated."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Cause(StrEnum):
    """Why there is no answer."""

    TIMEOUT = "timeout"
    """Not within the time that a record has."""
    UNREACHED = "unreached"
    """There was no connection."""
    DISCONNECTED = "disconnected"
    """It broke off, or what came was no HTTP."""
    NOT_TRUSTED = "not trusted"
    """No secure connection could be agreed on."""
    FORBIDDEN = "forbidden"
    """Its address is one that no request goes to."""
    TOO_LARGE = "too large"
    """The answer has more bytes than any may have."""


class Fault(NamedTuple):
    """There is no answer."""

    cause: Cause
    message: str


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, and of whom."""

    endpoint: str
    task: Task
    models: tuple[str, ...]
    """The names that the model may have in the answer."""
    key: str | None = None
    """It is repeated in no message, even if the server does."""


class Said(NamedTuple):
    """An error in a server's own words."""

    message: str
    code: str
    status: int | None = None
    """A status that stands in the words."""


def pause_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """How long a server wants to be left alone (`Retry-After` in seconds or as a date, `retry-after-ms`); None when it does not say."""
    found = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = found.get(name, "")
        if text.replace(".", "", 1).isdecimal() and text.isascii():
            return float(text) / unit
    try:
        moment = parsedate_to_datetime(found.get("retry-after", ""))
    except ValueError:
        return None
    seen = found.get("date")
    began = parsedate_to_datetime(seen) if seen else now or datetime.now(UTC)
    return max(0.0, (moment - began).total_seconds())


def json_object(body: bytes) -> JsonObject | None:
    """The object in a body; None when it is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def is_html(body: bytes) -> bool:
    """Whether it is a page for people: of a proxy, or of another server altogether."""
    return body[:256].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def words_of(reply: Reply, asked: Question) -> Said:
    """What a server says is wrong: as OpenAI writes it, or as others do."""
    body = json_object(reply.body)
    if body is None:
        text = "an HTML page" if is_html(reply.body) else reply.body[: 4 * MOST_WORDS].decode(errors="replace")
        return Said(_tidy(text, asked), "")
    error = body.get("error") or body.get("detail") or body
    if not isinstance(error, dict):
        return Said(_tidy(error if isinstance(error, str) else orjson.dumps(error).decode(), asked), "")
    code = error.get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600 else None
    message = error.get("message")
    words = message if isinstance(message, str) else orjson.dumps(error).decode()
    return Said(_tidy(words, asked), str(code or error.get("type") or ""), status)


def _tidy(text: str, asked: Question) -> str:
    """The words on one line, without the key, and not too many."""
    if asked.key:
        text = text.replace(asked.key, "***")
    line = " ".join(text.split())
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}…"
