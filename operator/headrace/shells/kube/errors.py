"""What the API server can say, sorted by what is to be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TransientFailure(Exception):
    """Try again later: too busy, a conflict, a timeout, no connection."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        """Seconds that the server asked us to wait; None: our own backoff."""
        super().__init__(message)


class LeaseLost(TransientFailure):
    """Nothing may be written any more: another replica may act."""


class ApiError(Exception):
    """The API server refused a request, and would again: a bug of ours, or a right that we lack."""

    def __init__(self, status: int, message: str, said: Mapping[str, Any] | None = None) -> None:
        self.status, self.message = status, message
        self.said: Mapping[str, Any] = said or {}
        """The server's own `Status` object; empty where it sent none."""
        super().__init__(f"HTTP {status}: {message}")


class NotFound(ApiError):
    """There is no such object."""


class Conflict(ApiError):
    """The object is not what we thought: somebody else's fields, another uid, or it exists already."""


class Gone(ApiError):
    """The resource version is too old: list again."""
