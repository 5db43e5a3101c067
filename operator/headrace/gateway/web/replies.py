"""Answers that more than one kind of request gets."""

from __future__ import annotations

from math import ceil

from starlette.responses import JSONResponse, Response

from headrace.api.base import JsonObject
from headrace.core.openai.errors import ApiError, unavailable

_AWAY_SECONDS = 2
_FULL_SECONDS = 30


def accepted(shown: JsonObject, status: int) -> Response:
    """The object of a request, and where it will be."""
    return JSONResponse(shown, status_code=status, headers={"location": f"/v1/requests/{shown['id']}"})


def refusal(error: ApiError) -> Response:
    """The answer that says why."""
    headers = {"x-should-retry": str(error.retry_helps).lower()}  # what OpenAI's clients go by
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer, Basic realm="Headrace", charset="UTF-8"'
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return JSONResponse(error.to_object(), status_code=error.status, headers=headers)


def store_away() -> ApiError:
    """The refusal while the store does not answer."""
    message = "where requests are kept cannot be reached now; send it again, with the same Idempotency-Key"
    return unavailable(message, _AWAY_SECONDS)


def store_full() -> ApiError:
    """The refusal while the store has no room for another request."""
    message = "there is no room for another request where they are kept; what was accepted is kept. Come again later"
    error = unavailable(message, _FULL_SECONDS)
    error.code = "no_room"
    return error


def place_away(seconds: float | None) -> ApiError:
    """The refusal while the place of batches and files does not answer, or wants to be left alone for so long."""
    message = "where batches and files are kept cannot be reached now; send it again, with the same Idempotency-Key"
    return unavailable(message, max(1, ceil(seconds)) if seconds is not None else _AWAY_SECONDS)
