"""What the errors of an object store mean, and what the user can do about them.

The client tells a few kinds of errors apart. The rest is read from the text of its message: the status of the answer, and the
code in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from headrace_worker.stores.base import AlreadyExists, NoSpace, NotFound, NotWritable, StoreError, Unreachable

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_SERVER = re.compile(r"(https?://[^/\s]+)")
_RETRIES = re.compile(r"after (\d+) retries")
_NO_CREDENTIALS = re.compile(
    r"Missing(SecretAccessKey|AccessKeyId)|Missing (Secret)?Access ?Key|/latest/(api/token|meta-data)|169\.254\.|metadata\.google"
    r"|Account must be specified|MissingAccount|metadata/identity"
)
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
    "AuthenticationFailed", "InvalidAuthenticationInfo",
}  # fmt: skip
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_MAY_PASS = {"408", "429", "500", "502", "503", "504"}


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turn what the client says about reading `uri` into `StoreError`s."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise _meaning(error, uri, "read") from error


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """Turn what the client says about writing `uri` into `StoreError`s."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise _meaning(error, uri, "written") from error


def _meaning(error: Exception, uri: str, done: str) -> Exception:
    text = str(error).partition("\n\nDebug source")[0]
    status, code = _first(_STATUS, text), _first(_CODE, text)
    bucket = "/".join(uri.split("/")[:3])
    if _NO_CREDENTIALS.search(text):
        return _refusal(uri, done, f"there are no credentials: {_advice(uri)}")
    if code in _NO_BUCKET:
        return StoreError(f"{uri} cannot be {done}: there is no bucket {bucket}; check its name, or make it")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{uri} is not there: check its name")
    if isinstance(error, AlreadyExistsError):
        return AlreadyExists(f"{uri} is there already")
    if isinstance(error, PreconditionError):
        return StoreError(f"{uri} was replaced while it was read: it must not change while a batch works on it")
    if isinstance(error, InvalidPathError):
        return StoreError(f"{uri}: a name there cannot be used ({text}): no part of a name may be empty, . or ..")
    if code in _WRONG_CREDENTIALS or isinstance(error, UnauthenticatedError) or status == "401":
        return _refusal(uri, done, f"the credentials are not accepted ({code or status}): {_advice(uri)}")
    if code in _FULL or status == "507":
        return NoSpace(
            f"{uri} cannot be written ({code or status}): make room there, or make output.uri a larger place"
        )
    if isinstance(error, PermissionDeniedError) or status == "403":
        return _refusal(uri, done, f"access is denied: let these credentials read, write, list and delete in {bucket}")
    return _other(uri, done, text, status, code)


def _other(uri: str, done: str, text: str, status: str | None, code: str | None) -> Exception:
    if code in _ELSEWHERE or status == "301" or "redirect" in text:
        return StoreError(f"{uri} cannot be {done} ({code or status}): set AWS_REGION to the region of the bucket")
    if status in _MAY_PASS or (status is None and "HTTP error" in text):
        place, retries = _first(_SERVER, text) or "the store", _first(_RETRIES, text) or "0"
        what = f"answers {status}" if status else "cannot be reached"
        advice = f"check that it is up{_endpoint_advice(uri)}"
        return Unreachable(f"{uri} cannot be {done} now: {place} {what}, after {retries} retries; {advice}")
    sentence = " ".join(text.split())
    return StoreError(f"{uri} cannot be {done}: {code or sentence[:300]}")


def _refusal(uri: str, done: str, why: str) -> StoreError:
    kind = StoreError if done == "read" else NotWritable
    return kind(f"{uri} cannot be {done}: {why}")


_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def _advice(uri: str) -> str:
    variables = _VARIABLES[uri.partition(":")[0]]
    return f"set {variables}, in a cluster through storage.secretRef or serviceAccountName"


def _endpoint_advice(uri: str) -> str:
    return ", and that AWS_ENDPOINT_URL is right" if uri.startswith("s3:") else ""


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None
