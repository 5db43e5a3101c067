"""What a worker of a warm pool is told and says: one JSON object a line, on its standard input and output, or on a socket.

It is told micro-batches. It says the lines that an output file would have, one a request, as soon as each is answered, and `FREE`
whenever nothing is left that it could work on: first when its model is loaded. Where that is wanted, it says meanwhile how far answers have
come. It keeps nothing: whoever has told it of a request and hears no line of it before the worker ends tells another.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.api.base import ApiModel, FreeObject

FREE = b'{"free":true}\n'
"""The line that asks for the next micro-batch."""


class ToldRequest(ApiModel):
    """One request, in the words of its endpoint."""

    custom_id: Annotated[str, Field(min_length=1, max_length=512)]
    body: FreeObject
    attempt: Annotated[int, Field(ge=1)] = 1
    """Which try this is: more than 1 when earlier workers have died over it."""


class MicroBatch(ApiModel):
    """Requests that are worked on together."""

    requests: Annotated[tuple[ToldRequest, ...], Field(min_length=1, max_length=1000)]
    partial_milliseconds: Annotated[int, Field(ge=1)] | None = None
    """How often it is said how far their answers have come; None for never."""

    def line(self) -> bytes:
        """As it is told."""
        return self.model_dump_json(by_alias=True).encode() + b"\n"


class Partial(ApiModel):
    """The beginning of an answer that is being written. It may be written anew, and then begins once more."""

    custom_id: Annotated[str, Field(min_length=1, max_length=512)]
    text: str
    """All of it so far."""
    tokens: Annotated[int, Field(ge=0)]


class _PartialLine(ApiModel):
    partial: Partial


_PARTIAL = b'{"partial":'


def partial_line(partial: Partial) -> bytes:
    """As it is said."""
    return _PartialLine(partial=partial).model_dump_json(by_alias=True).encode() + b"\n"


def parse_partial(line: bytes) -> Partial | None:
    """What such a line says; None for any other. Raises `ValueError`."""
    return _PartialLine.model_validate_json(line).partial if line.startswith(_PARTIAL) else None


class Listening(ApiModel):
    """Where a worker listens that has no pipes, and to whom. One at a time tells it of requests: whoever came last."""

    port: Annotated[int, Field(ge=0, le=65535)]
    key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the key that opens it; the key itself is with whoever started it."""
    patience_seconds: Annotated[int, Field(ge=1)] = 600
    """How long nobody may be there before it ends: whoever has started it may be gone for good."""


class Opening(ApiModel):
    """The first line on such a socket."""

    key: Annotated[str, Field(min_length=1, max_length=256)]

    def line(self) -> bytes:
        """As it is said."""
        return self.model_dump_json(by_alias=True).encode() + b"\n"
