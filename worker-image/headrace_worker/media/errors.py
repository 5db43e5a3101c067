"""What can be wrong with an image or a sound that a record names."""

from __future__ import annotations

from headrace.api.records import ErrorCode


class MediaError(Exception):
    """One image or sound cannot be had or read. The message is the end of a sentence that begins with the place of its URL.

    It never has the URL itself in it: a URL may carry a signature that lets anyone in.
    """

    def __init__(self, code: ErrorCode, message: str, *, retriable: bool = False) -> None:
        self.code, self.message, self.retriable = code, message, retriable
        super().__init__(message)


def too_large(size: str, most: int) -> MediaError:
    """The error of something with more bytes than `input.media.maxBytes`; `size` says how many."""
    return MediaError(
        ErrorCode.MEDIA_TOO_LARGE,
        f"has {size} bytes: input.media.maxBytes lets it have {most}; make it smaller, or raise that",
    )


def not_allowed(message: str) -> MediaError:
    """The error of a URL that may not be followed."""
    return MediaError(ErrorCode.MEDIA_NOT_ALLOWED, message)


def unreachable(message: str, *, retriable: bool) -> MediaError:
    """The error of a URL that leads nowhere; `retriable` when it may lead somewhere later."""
    return MediaError(ErrorCode.MEDIA_UNREACHABLE, message, retriable=retriable)


def invalid(message: str) -> MediaError:
    """The error of bytes that are no image or no sound."""
    return MediaError(ErrorCode.INVALID_MEDIA, message)
