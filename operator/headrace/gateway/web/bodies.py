"""Reading what clients send: bodies, bounded in size, in depth and in time; and the trace that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import orjson
from starlette.requests import ClientDisconnect, Request

from headrace.api.base import JsonObject
from headrace.api.tracing import TraceContext
from headrace.core.openai.errors import ApiError, bad_request

MAX_JSON_BYTES = 256 * 1024
MAX_JSON_DEPTH = 100
"""What is read is written again, inside of other things, by libraries that go no deeper than some 250 levels."""
PATIENCE_BYTES = 16 * 1024
"""How much of a body must come, if it goes on, in the time for which its client is waited for: single bytes do not count."""


async def json_body(request: Request, patience_seconds: float) -> JsonObject:
    """The JSON object in a body. Raises `ApiError`."""
    if _content_type(request) != "application/json":
        raise ApiError(415, "the body must be JSON, with the header Content-Type: application/json")
    raw = bytearray()
    async for piece in pieces(request, patience_seconds):
        raw += piece
        if len(raw) > MAX_JSON_BYTES:
            raise too_large(MAX_JSON_BYTES)
    try:
        body = orjson.loads(bytes(raw))
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    if raw.count(b"[") + raw.count(b"{") > MAX_JSON_DEPTH and _is_deeper(body, MAX_JSON_DEPTH):
        raise bad_request(f"the body is nested more than {MAX_JSON_DEPTH} levels deep", code="invalid_json")
    return body


async def pieces(request: Request, patience_seconds: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `ApiError` when too little of it comes in time, or the client has gone."""
    stream, clock = request.stream().__aiter__(), asyncio.get_running_loop().time
    left, come = patience_seconds, 0
    while True:
        asked = clock()
        try:
            async with asyncio.timeout(left):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            message = f"less than {PATIENCE_BYTES} bytes more of the body have come in {patience_seconds:g} s"
            raise ApiError(408, message) from None
        except ClientDisconnect:
            raise bad_request("the body has no end: the connection was closed") from None
        left, come = left - (clock() - asked), come + len(piece)
        if come >= PATIENCE_BYTES:
            left, come = patience_seconds, 0
        yield piece


def check_announced(request: Request, most: int) -> None:
    """Refuse a body that says itself that it is too large, before it is sent. Raises `ApiError`."""
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdecimal() and int(announced[:19]) > most:
        raise too_large(most)


def too_large(most: int) -> ApiError:
    """The refusal of a body, or a file in it, of more than `most` bytes."""
    return ApiError(413, f"too large: at most {most} bytes are taken", None, "too_large")


def traceparent_of(request: Request) -> str | None:
    """The trace context that a request is made in; None when it has none, or something else in its place."""
    found = TraceContext.parse(request.headers.get("traceparent", ""))
    return str(found) if found is not None else None


def _is_deeper(body: JsonObject, most: int) -> bool:
    """Whether anything in it lies more than so many levels deep."""
    level: list[object] = [body]
    for _ in range(most):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(outer: object) -> Iterable[object]:
    """The objects and arrays right inside of one."""
    values = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
    return (value for value in values if isinstance(value, dict | list))


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
