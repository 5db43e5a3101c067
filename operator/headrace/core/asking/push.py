"""What is pushed to those who wait for requests, and the token with which a connection goes on where an earlier one has ended.

Each change of a request has a number, and all that is said on a connection about requests comes in the order of these numbers. So the
token of the last thing heard says what need not be said again. It names the store too: the numbers of another one mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from headrace.api.asking import StreamMessage
from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.worker import Partial
from headrace.core.openai.errors import ApiError, bad_request, from_invalid

MOST_IDS = 1000
"""Requests that one connection may wait for at a time."""
_TOKEN = re.compile(r"([0-9a-z]{1,32})-([0-9]{1,19})")


def token_of(epoch: str, revision: int) -> str:
    """The token of a change."""
    return f"{epoch}-{revision}"


def heard(token: str | None, epoch: str) -> int:
    """The number of the last change that was heard of; 0 when there was none, or it was in another store. Raises `ApiError`."""
    if token is None:
        return 0
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise bad_request(f"the token must be one that was sent with an event, not {token[:80]}", "after", "bad_token")
    return int(found[2]) if found[1] == epoch else 0


def check_count(count: int) -> None:
    """Raise `ApiError` when a connection would wait for too many requests."""
    if count > MOST_IDS:
        message = f"one connection may wait for {MOST_IDS} requests at a time, not {count}: open another"
        raise bad_request(message, "id", "too_many_ids")


def stream_message(raw: bytes) -> StreamMessage:
    """What a client says. Raises `ApiError`."""
    try:
        said = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the message is not JSON: {error}", code="invalid_json") from error
    if not isinstance(said, dict):
        raise bad_request("the message must be a JSON object", code="invalid_json")
    try:
        return StreamMessage.parse(said)
    except InvalidSpec as error:
        raise from_invalid(error) from error


def changed(token: str, shown: JsonObject) -> JsonObject:
    """The event of a request that has begun or ended."""
    return {"type": "request", "token": token, "request": shown}


def waiting(shown: JsonObject) -> JsonObject:
    """What a new connection is told of a request in the queue: nothing has changed, so there is no token."""
    return {"type": "request", "token": None, "request": shown}


def growing(partial: Partial) -> JsonObject:
    """The event of an answer that is being written: there is no token, for whoever misses it has the next one, or the whole answer."""
    return {"type": "partial", "token": None, "id": partial.custom_id, "text": partial.text, "tokens": partial.tokens}


def refused(error: ApiError, request_id: str | None = None, token: str | None = None) -> JsonObject:
    """The event of something that cannot be told, or of a message that cannot be understood."""
    return {"type": "error", "token": token, "id": request_id, **error.to_object()}


def server_sent(event: Mapping[str, object]) -> bytes:
    """An event in the form of Server-Sent Events."""
    token = f"id: {event['token']}\n" if event["token"] is not None else ""
    return f"{token}event: {event['type']}\ndata: {orjson.dumps(event).decode()}\n\n".encode()
