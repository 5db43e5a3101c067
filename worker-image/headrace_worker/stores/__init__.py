"""Stores by the scheme of a URI, and the little arithmetic on URIs that they share.

URIs are compared as they are written. Objects of a listing carry the very text that was listed as their prefix, so that a URI
which a caller has put together itself is equal to the one that it finds again.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from headrace_worker.errors import JobFailed
from headrace_worker.stores.base import Store
from headrace_worker.stores.buckets import SCHEMES
from headrace_worker.stores.local import LocalStore
from headrace_worker.stores.objects import BucketStore
from headrace_worker.stores.packages import PackageStore
from headrace_worker.stores.patterns import fixed_part


def open_store(uri: str) -> Store:
    """The store that serves a URI. Raises `JobFailed` when this worker has none for its scheme."""
    scheme = urlsplit(uri).scheme
    if scheme == "file":
        return LocalStore()
    if scheme == "package":
        return PackageStore()
    if scheme in SCHEMES:
        return BucketStore()
    raise JobFailed(
        "UnsupportedScheme",
        f"{uri}: this worker has no store for {scheme or 'a URI without a scheme'}; it reads and writes file://, s3://, "
        "gs:// and az://, and reads package://",
    )


def join(uri: str, *parts: str) -> str:
    """The URI of something below a folder. Parts are taken as they are: what is special in a URI must be escaped already."""
    return "/".join([uri.rstrip("/"), *parts])


def relative_name(pattern: str, uri: str) -> str:
    """The name of a listed object as seen from what was listed: a path below a folder or a glob's fixed part, or a file's name.

    >>> relative_name("file:///data/**/*.txt", "file:///data/de/a%20b.txt")
    'de/a b.txt'
    >>> relative_name("file:///data/a.txt", "file:///data/a.txt")
    'a.txt'
    """
    if uri == pattern:
        return unquote(uri.rpartition("/")[2])
    return unquote(uri.removeprefix(fixed_part(pattern)).lstrip("/"))
