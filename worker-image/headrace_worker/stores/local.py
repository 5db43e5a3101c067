"""Files of this machine, by `file://` URIs: a laptop's folders, and the volumes that are mounted into a pod.

A new file is written under a hidden name, synced, and only then gets its real name: by a link where it must not be there yet
(a link, unlike a rename, never replaces), by a rename otherwise. Then the folder is synced too. Hidden names are in no listing.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

from headrace_worker.stores.base import AlreadyExists, NotFound, StoredObject, StoreError
from headrace_worker.stores.oserrors import reading, running_out, writing
from headrace_worker.stores.patterns import fixed_part, is_glob, matcher

BUFFER_BYTES = 256 * 1024
SYNC_PAUSE_SECONDS = 0.1
_FILE_URI = re.compile(r"file://(?:localhost)?(/[^\0]*)")
_Arranged = Callable[[Iterable[tuple[str, os.stat_result]]], Iterable[tuple[str, os.stat_result]]]
"""Puts the names of files, with what the file system says of each, into the order that is wanted."""


def local_path(uri: str) -> str:
    """The path in a `file://` URI. Raises `StoreError` when it is not an absolute one."""
    found = _FILE_URI.fullmatch(uri)
    path = os.fsdecode(unquote_to_bytes(found[1])) if found else ""
    if not path or "\0" in path:
        raise StoreError(
            f"{uri} is not the URI of a file: it must be file:// and an absolute path, as in file:///data/in"
        )
    return path


def file_uri(path: str) -> str:
    """The `file://` URI of an absolute path."""
    return f"file://{quote(os.fsencode(path))}"


class LocalStore:
    """A `Store` of files. Folders are made as they are needed, like the prefixes of an object store.

    Errors that may pass (a disk that answers late, a file handle gone stale) stay `OSError`s: it is worth trying again.
    """

    def list(self, pattern: str) -> Iterator[StoredObject]:
        """Objects at a URI, below a folder (recursively) or matching a glob; sorted by path, nothing when there are none."""
        return _matching(pattern, lambda files: sorted(files, key=itemgetter(0)))

    def scan(self, pattern: str) -> Iterator[StoredObject]:
        """The same in the order in which the file system tells of them."""
        return _matching(pattern, lambda files: files)

    def open(self, uri: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Read a file from byte `start`. Raises `NotFound`, or `StoreError` when it may not be read."""
        with reading(uri):
            stream = open(local_path(uri), "rb", buffering=BUFFER_BYTES)  # noqa: SIM115 - the caller's
            stream.seek(start)
            return stream

    def read(self, uri: str) -> bytes:
        """The whole of a small file."""
        with self.open(uri) as stream:
            return stream.read()

    def exists(self, uri: str) -> bool:
        """Whether there is a file."""
        with reading(uri):
            found = _status(local_path(uri))
            return found is not None and stat.S_ISREG(found.st_mode)

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write a small file in one piece. Raises `AlreadyExists`, `NoSpace`, `NotWritable`."""
        with _new_file(uri, _link if if_absent else os.replace) as stream:
            stream.write(data)

    def writer(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Write a large file; when the block fails, nothing is left of it."""
        return _new_file(uri, os.replace)

    @contextmanager
    def append(self, uri: str) -> Iterator[LocalLog]:
        """Go on with a file, or begin it."""
        path = local_path(uri)
        with writing(uri):
            _make_folder(os.path.dirname(path))
            log = LocalLog(uri, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666))
            _sync_folder(os.path.dirname(path))
        try:
            yield log
        finally:
            log.close()

    def read_log(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Read a log: it is one file."""
        return self.open(uri)

    def delete(self, *uris: str) -> None:
        """Remove files."""
        for uri in uris:
            with writing(uri), suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(local_path(uri))


class LocalLog:
    """A file that only grows."""

    sync_pause = SYNC_PAUSE_SECONDS
    """A fast engine must not wait for the disk after every batch."""

    def __init__(self, uri: str, descriptor: int) -> None:
        self._uri, self._descriptor = uri, descriptor

    def append(self, data: bytes) -> None:
        """Add bytes at the end. When it fails, a part of them may be there."""
        rest = memoryview(data)
        with writing(self._uri):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Make everything appended so far durable."""
        with writing(self._uri):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Sync and let go of the file."""
        try:
            self.sync()
        finally:
            os.close(self._descriptor)


@contextmanager
def _new_file(uri: str, publish: Callable[[str, str], None]) -> Iterator[BinaryIO]:
    """A file to be written, which `publish(temporary, path)` brings to its name when the block ends well."""
    path = local_path(uri)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.tmp")
    with writing(uri):
        _make_folder(folder)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    stream = open(descriptor, "wb", buffering=BUFFER_BYTES)  # noqa: SIM115 - closed below, in more than one way
    try:
        with running_out(uri):
            yield stream
        with writing(uri):
            stream.flush()
            os.fsync(descriptor)
            publish(temporary, path)
            _sync_folder(folder)
    finally:
        with suppress(OSError):  # closing flushes again what could not be written; that error has been raised above
            stream.close()
        with suppress(FileNotFoundError):  # renamed
            os.unlink(temporary)


def _link(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        if os.stat(temporary).st_nlink < 2:  # else it is our own link: NFS repeats a request whose answer was lost
            raise AlreadyExists(f"{file_uri(path)} is there already") from error


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, durably."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _status(path: str) -> os.stat_result | None:
    """None when there is nothing."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _object(uri: str, status: os.stat_result) -> StoredObject:
    return StoredObject(uri, status.st_size, modified=datetime.fromtimestamp(status.st_mtime, UTC))


def _matching(pattern: str, arranged: _Arranged) -> Iterator[StoredObject]:
    """The files that a URI means."""
    with reading(pattern):
        found = _status(local_path(pattern))
        if found is not None and stat.S_ISREG(found.st_mode):
            yield _object(pattern, found)
        elif found is not None and stat.S_ISDIR(found.st_mode):
            yield from _objects(pattern.rstrip("/") + "/", lambda _: True, arranged)
        elif is_glob(pattern):
            yield from _objects(fixed_part(pattern), matcher(pattern), arranged)


def _objects(folder_uri: str, wanted: Callable[[str], bool], arranged: _Arranged) -> Iterator[StoredObject]:
    """The files below a folder whose names relative to it are wanted."""
    folder = local_path(folder_uri)
    if os.path.isdir(folder):
        for name, status in arranged(_walk(folder.rstrip("/") + "/", "", frozenset())):
            if wanted(name):
                yield _object(folder_uri + quote(os.fsencode(name)), status)


def _walk(folder: str, prefix: str, within: frozenset[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result]]:
    """Relative names of, and what the file system says of the files below `folder + prefix`.

    Links are followed, since a mounted ConfigMap consists of links; but not into a folder that we are `within` already.
    """
    status = os.stat(folder + prefix)
    here = (status.st_dev, status.st_ino)
    if here in within:
        return
    with os.scandir(folder + prefix) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(folder, f"{name}/", within | {here})
            elif entry.is_file():
                yield name, entry.stat()
            elif entry.is_symlink():
                raise NotFound(f"{file_uri(entry.path)} is a link to nothing: mend it or remove it")
