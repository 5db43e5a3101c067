"""Where inputs are read from and outputs are committed to: one small interface, made so that an object store can serve it.

Two promises carry exactly-once: `put(if_absent=True)` succeeds for one caller only, and nothing written through `writer` can be
seen before it is whole. Appending is the one thing that object stores cannot do; there a log is a row of numbered objects, the
first of which has the log's own URI.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol


class StoreError(Exception):
    """A store said no, and trying again will not help. The message names the URI."""


class NotFound(StoreError):
    """There is nothing at that URI."""


class AlreadyExists(StoreError):
    """`put(if_absent=True)` lost: somebody else has written that URI."""


class NotWritable(StoreError):
    """The place cannot be written: no permission, a read-only file system, a file where a folder must be."""


class NoSpace(StoreError):
    """The place is full."""


class Unreachable(OSError):
    """A store did not answer, though it was asked again and again: it may later. The message names the URI."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a listing."""

    uri: str
    size: int
    """Bytes."""
    version: str = ""
    """Changes with the content, where the store says so."""
    modified: datetime | None = None
    """When it was last modified, in UTC; None where nobody knows."""


class Log(Protocol):
    """A file that only grows. What was appended before `sync` returned survives a crash of the machine."""

    @property
    def sync_pause(self) -> float:
        """The least time between two syncs, in seconds: a sync costs time on a disk, and money in an object store."""

    def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises `NoSpace`, `NotWritable`."""

    def sync(self) -> None:
        """Make everything appended so far durable."""

    def close(self) -> None:
        """Sync and let go of it."""


class Store(Protocol):
    """A place for objects named by URIs of one scheme. All methods raise `StoreError`s, and `OSError`s that may pass."""

    def list(self, pattern: str) -> Iterator[StoredObject]:
        """Objects at a URI: the object itself, everything below a folder, or what a glob matches; sorted by name.

        Nothing when there is nothing. The URIs begin with what was asked for (of a glob, its folder), just as it was written.
        """

    def scan(self, pattern: str) -> Iterator[StoredObject]:
        """The same objects in any order, as a stream: however many there are, they take no memory."""

    def open(self, uri: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Read an object as a stream from byte `start`; buffered."""

    def read(self, uri: str) -> bytes:
        """The whole of a small object."""

    def exists(self, uri: str) -> bool:
        """Whether there is an object at a URI; cheap."""

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write a small object in one piece, durably; with `if_absent` raise `AlreadyExists` rather than replace it."""

    def writer(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Write a large object: it appears, whole and durable, when the block ends well, and never otherwise."""

    def append(self, uri: str) -> AbstractContextManager[Log]:
        """Go on with a log, or begin it. What was `put` at its URI is its beginning."""

    def read_log(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Read a log from its beginning, as one seekable stream. Raises `NotFound`, also when a part of it has been deleted."""

    def delete(self, *uris: str) -> None:
        """Remove objects, in no special order; one that is not there is no error. A log is all that is listed of it."""
