"""Buckets: which one a URI means, and how it is reached.

Everything else is told by the environment, in the clouds' own names (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …, `GOOGLE_…`,
`AZURE_…`), or by what a pod's service account is given; the client reads them by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from obstore.store import AzureStore, GCSStore, S3Store

from headrace_worker.stores.base import StoreError
from headrace_worker.stores.objecterrors import reading

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "az")

RETRY: RetryConfig = {
    "max_retries": 10,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=10), "base": 2},
}
"""The only layer of retries: for failures of the network and of servers, with jitter."""
_TIMEOUT = timedelta(minutes=1)
"""Of one request. No request has more than some mebibytes."""
_CONNECT_TIMEOUT = timedelta(seconds=5)

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_URI = re.compile(r"(?P<bucket>(?P<scheme>s3|gs|az)://(?P<name>[^/*?]+))(?:/(?P<key>.*))?", re.DOTALL)

Bucket = S3Store | GCSStore | AzureStore
"""A connection to a bucket; of Azure, to a container."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URI taken apart. Keys are what the store knows: nothing in them is escaped."""

    scheme: str
    bucket: str
    key: str
    """Without a slash at its end; empty for the whole bucket."""

    @classmethod
    def of(cls, uri: str) -> Address:
        """Raises `StoreError` when it is not the URI of an object or of a part of a bucket."""
        found = _URI.fullmatch(uri)
        key = unquote(found["key"] or "").rstrip("/") if found else ""
        if found is None or any(step in ("", ".", "..") for step in key.split("/") if key):
            raise StoreError(
                f"{uri} is not the URI of an object: it must be a scheme, a bucket and a key without empty parts, "
                "as in s3://bucket/folder/in.jsonl"
            )
        return cls(found["scheme"], found["name"], key)


def object_uri(folder_uri: str, name: str) -> str:
    """The URI of what a folder, which ends with a slash, has under a name."""
    return folder_uri + quote(name)


def connect(address: Address, env: Mapping[str, str] = os.environ) -> Bucket:
    """A connection to a bucket; nothing is asked of it yet. Raises `StoreError` when the environment does not say enough."""
    options: ClientConfig = {
        "allow_http": _endpoint(address.scheme, env).startswith("http://"),
        "timeout": _TIMEOUT,
        "connect_timeout": _CONNECT_TIMEOUT,
    }
    with reading(f"{address.scheme}://{address.bucket}"):
        if address.scheme == "s3":
            return S3Store(address.bucket, client_options=options, retry_config=RETRY)
        if address.scheme == "gs":
            return GCSStore(address.bucket, client_options=options, retry_config=RETRY)
        return AzureStore(address.bucket, client_options=options, retry_config=RETRY)


def _endpoint(scheme: str, env: Mapping[str, str]) -> str:
    """Where the store is, if that is said."""
    name = next((name for name in _ENDPOINTS[scheme] if env.get(name)), None)
    if name is None:
        return ""
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/[!-~]*)?", env[name]):
        raise StoreError(f"{name} must be a URL such as http://minio.storage:9000, not {env[name]!r}")
    return env[name]
