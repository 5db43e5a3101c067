"""Object stores, as far as a gateway needs them: which bucket a URI means, and what their errors come to.

The names are those of the worker's stores, and so are the variables of the environment that say how to get there: `AWS_…`, `GOOGLE_…`,
`AZURE_…`, which the client reads by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from headrace.gateway.places.place import PlaceAway
from headrace.shells.local.state import StateError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

Bucket = S3Store | GCSStore | AzureStore
_URI = re.compile(r"(s3|gs|az)://([^/*?]+)(?:/(.*))?", re.DOTALL)
_OPTIONS: ClientConfig = {"allow_http": True, "timeout": timedelta(minutes=1), "connect_timeout": timedelta(seconds=5)}
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""Somebody waits for the answer, and can ask again."""


class Address(NamedTuple):
    """A URI taken apart. The key is what the store knows: nothing in it is escaped."""

    bucket: Bucket
    key: str
    """Without a slash at its end; empty for the whole bucket."""

    def below(self, *parts: str) -> Address:
        """What is below it."""
        return Address(self.bucket, "/".join(filter(None, (self.key, *parts))))


def is_bucket(uri: str) -> bool:
    """Whether a URI is one of an object store."""
    return _URI.fullmatch(uri) is not None


def address(uri: str) -> Address:
    """Where a URI leads; nothing is asked of the store yet. Raises `StateError`."""
    found = _URI.fullmatch(uri)
    key = unquote(found[3] or "").strip("/") if found else ""
    if found is None or any(step in ("", ".", "..") for step in key.split("/") if key):
        raise StateError(
            "BadUri", f"{uri} must be a scheme, a bucket and a key without empty parts, as in s3://bucket/folder"
        )
    with answering(uri):
        return Address(_connected(found[1], found[2]), key)


def _connected(scheme: str, name: str) -> Bucket:
    if scheme == "s3":
        return S3Store(name, client_options=_OPTIONS, retry_config=_RETRIES)
    if scheme == "gs":
        return GCSStore(name, client_options=_OPTIONS, retry_config=_RETRIES)
    return AzureStore(name, client_options=_OPTIONS, retry_config=_RETRIES)


def joined(uri: str, *parts: str) -> str:
    """The URI of something below a folder."""
    return "/".join([uri.rstrip("/"), *map(quote, parts)])


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what the client says into what a gateway answers. What is not there stays a `FileNotFoundError`."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StateError("StoreRefuses", f"the gateway's credentials do not open {uri}: {_sentence(error)}") from error
    except BaseError as error:
        raise PlaceAway(f"{uri}: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).partition("\n\nDebug source")[0].split())[:300]
