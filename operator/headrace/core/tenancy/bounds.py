"""How much a tenant may have. What is beyond it is refused: 413 for a size, 429 for a number."""

from __future__ import annotations

from headrace.api.asking import RequestRoute
from headrace.api.tenancy import TenantLimits
from headrace.core.openai.errors import ApiError, too_many

_COME_AGAIN_SECONDS = 60
"""When something may have ended, or been deleted: nobody knows when."""


def check_files(files: int, limits: TenantLimits) -> None:
    """Whether a tenant with so many files, those that it is uploading among them, may upload another. Raises `ApiError`."""
    if files >= limits.max_files:
        message = f"this tenant may have {limits.max_files} files: delete some"
        raise too_many(message, _COME_AGAIN_SECONDS, "too_many_files")


def check_stored(size: int, limits: TenantLimits) -> None:
    """Whether the files of a tenant may have so many bytes together. Raises `ApiError`."""
    if size > limits.max_stored_bytes:
        message = f"the files of this tenant may have {limits.max_stored_bytes} bytes together: delete some"
        raise ApiError(413, message, None, "too_much_stored")


def check_open_batches(unfinished: int, limits: TenantLimits) -> None:
    """Whether a tenant may make another batch. Raises `ApiError`."""
    if unfinished >= limits.max_open_batches:
        message = (
            f"this tenant may have {limits.max_open_batches} batches that are not over: wait for one, or cancel it"
        )
        raise too_many(message, _COME_AGAIN_SECONDS, "too_many_batches")


def check_streams(streams: int, limits: TenantLimits | None) -> None:
    """Whether a tenant may open another connection that waits. Raises `ApiError`."""
    if limits is not None and streams >= limits.max_streams:
        message = f"this tenant may have {limits.max_streams} streams at a time: close one, or wait for more on each"
        raise too_many(message, _COME_AGAIN_SECONDS, "too_many_streams")


def bounded(route: RequestRoute, limits: TenantLimits | None) -> RequestRoute:
    """The route as it is for a tenant."""
    if limits is None or limits.max_queued >= route.max_queued:
        return route
    return route.model_copy(update={"max_queued": limits.max_queued})
