"""What can be said of one kind of request: where it goes, what it takes, and what it is answered with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel

from headrace.api.base import JsonObject

JSON = "application/json"
JSON_LINES = "application/jsonl"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
HTML = "text/html"
CSS = "text/css"
TEXT = "text/plain"


class Tag(StrEnum):
    """What a request is about."""

    FILES = "Files"
    BATCHES = "Batches"
    MODELS = "Models"
    REQUESTS = "Single requests"
    DEAD_LETTERS = "Dead letters"
    GATEWAY = "The gateway itself"


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that a request may say beside its body."""

    name: str
    where: str
    """`path`, `query` or `header`."""
    about: str
    schema: JsonObject
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with when all is well."""

    status: int
    about: str
    model: type[BaseModel] | None = None
    """Of the body, where it has one."""
    media_type: str | None = JSON
    """Of the body; None where there is none."""
    headers: tuple[str, ...] = ()
    """Headers that are there for a program to read."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request brings."""

    model: type[BaseModel]
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of request."""

    name: str
    """Its `operationId`."""
    method: str
    path: str
    tag: Tag
    about: str
    answers: tuple[Answer, ...]
    refusals: tuple[int, ...] = ()
    """Statuses of refusals, beside those that any request may get."""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    is_open: bool = False
    """Whether it is answered to anybody, whoever's gateway it is: nothing of any tenant is in it."""
    is_socket: bool = False
    """Whether it opens a WebSocket, for which OpenAPI has no word."""
    heard: tuple[type[BaseModel], ...] = ()
    """What a client may say on the socket."""
    told: tuple[type[BaseModel], ...] = ()
    """What it is told there."""
