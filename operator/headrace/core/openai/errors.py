"""Refusals in OpenAI's form: a status, a sentence, and which part of the request is to blame."""

from __future__ import annotations

from headrace.api.base import InvalidSpec, JsonObject
from headrace.api.model import Task

_KINDS = {429: "rate_limit_error"}
_ENDPOINTS = frozenset(task.endpoint for task in Task if task.endpoint is not None)


class ApiError(Exception):
    """A request cannot be answered as it stands, or not now."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        """`param`: the field that is wrong; `code`: one word for programs."""
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_seconds: int | None = None
        super().__init__(message)

    @property
    def retry_helps(self) -> bool:
        """Whether the same request may be answered later. A client of OpenAI's would otherwise repeat each 409 and 5xx."""
        return self.status in (408, 429, 500, 503)

    def to_object(self) -> JsonObject:
        """The body of the answer."""
        kind = "server_error" if self.status >= 500 else _KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The request must change."""
    return ApiError(400, message, param, code)


def too_many(message: str, retry_after_seconds: int, code: str = "queue_full") -> ApiError:
    """There is no room for the request now."""
    error = ApiError(429, message, None, code)
    error.retry_after_seconds = retry_after_seconds
    return error


def unavailable(message: str, retry_after_seconds: int) -> ApiError:
    """What is needed for the answer cannot be reached now."""
    error = ApiError(503, message, None, "unavailable")
    error.retry_after_seconds = retry_after_seconds
    return error


def conflict(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """What is asked for does not go with how things are."""
    return ApiError(409, message, param, code)


def no_such(kind: str, wanted: str) -> ApiError:
    """There is no object of that id."""
    return ApiError(404, f"No such {kind} object: {wanted}", "id", "not_found")


def nothing_at(method: str, path: str) -> ApiError:
    """There is no such address; says what was probably meant."""
    message = f"there is nothing at {method} {path[:200]}"
    if path in _ENDPOINTS:
        message += (
            ", for nothing is answered at once: send its body to /v1/requests, or a file of such lines to /v1/files"
        )
    elif not path.startswith("/v1/"):
        message += "; the base URL ends with /v1"
    return ApiError(404, message, None, "unknown_url")


def wrong_method(method: str, path: str, allowed: str) -> ApiError:
    """The address is there, and answers other methods: those in the header `Allow`."""
    listed = ", ".join(sorted(one.strip() for one in allowed.split(",")))
    return ApiError(405, f"{path[:200]} answers {listed}, not {method}")


def no_input(file_id: str) -> ApiError:
    """There is no uploaded file of the id that a batch names as its input."""
    message = f"input_file_id must be the id of an uploaded file; there is no {file_id[:80]}"
    return bad_request(message, "input_file_id", "not_found")


def from_invalid(error: InvalidSpec) -> ApiError:
    """A body that does not fit its model: the first fault as `param`, all of them in words."""
    first = error.errors[0]
    message = "; ".join(f"{one.field or 'the body'}: {one.message}" for one in error.errors[:10])
    code = "unknown_parameter" if first.message == "unknown field" else "invalid_value"
    return bad_request(message, first.field or None, code)
