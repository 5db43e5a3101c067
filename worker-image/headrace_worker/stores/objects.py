"""Object stores, by `s3://`, `gs://` and `az://` URIs; of S3 whatever speaks its language and knows `If-None-Match`.

An object appears whole or not at all, and `If-None-Match: *` lets the first of several writers win: the two promises that
exactly-once stands on. A log is a row of objects, see `segments`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, cast
from urllib.parse import unquote

import obstore
from obstore.exceptions import BaseError

from headrace_worker.stores import objecterrors
from headrace_worker.stores.base import AlreadyExists, NotFound, StoredObject, StoreError, Unreachable
from headrace_worker.stores.buckets import Address, Bucket, connect, object_uri
from headrace_worker.stores.patterns import fixed_part, is_glob, matcher
from headrace_worker.stores.readers import RangedReader, SegmentedReader
from headrace_worker.stores.segments import SegmentedLog, segment_name, segment_number
from headrace_worker.stores.uploads import PART_BYTES, Upload

RANGE_BYTES = 8 * 1024 * 1024
"""So much is read with one request: a stream that is read slowly holds no connection."""
LINE_BYTES = 256 * 1024
_LISTED_AT_ONCE = 1000
_PARTS_AT_ONCE = 4
_Arranged = Callable[[Iterable[tuple[str, "obstore.ObjectMeta"]]], Iterable[tuple[str, "obstore.ObjectMeta"]]]
"""Puts the names of objects, with what the store says of each, into the order that is wanted."""


class BucketStore:
    """A `Store` of objects. Errors of the network that outlast the retries are `Unreachable`: a later process may be luckier."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def list(self, pattern: str) -> Iterator[StoredObject]:
        """The object at a URI, all below a folder, or what a glob matches; sorted by name, nothing when there are none.

        Names with a part that begins with a dot are in no listing, as in a folder.
        """
        return self._matching(pattern, lambda found: sorted(found, key=itemgetter(0)))

    def scan(self, pattern: str) -> Iterator[StoredObject]:
        """The same in the order in which the store tells of them."""
        return self._matching(pattern, lambda found: found)

    def _matching(self, pattern: str, arranged: _Arranged) -> Iterator[StoredObject]:
        bucket, key = self._find(fixed_part(pattern) if is_glob(pattern) else pattern)
        with objecterrors.reading(pattern):
            if is_glob(pattern):
                yield from _below(bucket, key, fixed_part(pattern), arranged, pattern)
                return
            found = _head(bucket, key) if key and not pattern.endswith("/") else None
            if found is not None:
                yield StoredObject(pattern, found["size"], found["e_tag"] or "", found["last_modified"])
            else:
                yield from _below(bucket, key, pattern.rstrip("/") + "/", arranged)

    def open(self, uri: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Read an object from byte `start`. Raises `NotFound`, and `StoreError` when it is replaced meanwhile."""
        bucket, key = self._find(uri)
        with objecterrors.reading(uri):
            found = _head(bucket, key)
            if found is None:
                obstore.get(
                    bucket, key
                )  # other than that to a HEAD, its answer says whether it is the bucket that is missing
                raise NotFound(f"{uri} is not there: check its name")
        stream = io.BufferedReader(RangedReader(bucket, uri, found), RANGE_BYTES)
        stream.seek(start)
        return cast("BinaryIO", stream)

    def read(self, uri: str) -> bytes:
        """The whole of a small object."""
        bucket, key = self._find(uri)
        with objecterrors.reading(uri):
            return bytes(obstore.get(bucket, key).bytes())

    def exists(self, uri: str) -> bool:
        """Whether there is an object; one request."""
        bucket, key = self._find(uri)
        with objecterrors.reading(uri):
            return _head(bucket, key) is not None

    def put(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write a small object with one request. Raises `AlreadyExists`, `NoSpace`, `NotWritable`."""
        bucket, key = self._find(uri)
        with objecterrors.writing(uri):
            obstore.put(bucket, key, data, mode="create" if if_absent else "overwrite", use_multipart=False)

    @contextmanager
    def writer(self, uri: str) -> Iterator[BinaryIO]:
        """Write a large object in parts; when the block fails, nothing is left of it."""
        bucket, key = self._find(uri)

        def send(data: bytes | Iterator[bytes]) -> None:
            in_parts = not isinstance(data, bytes)
            with objecterrors.writing(uri):
                obstore.put(
                    bucket, key, data, use_multipart=in_parts, chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE
                )

        upload = Upload(send)
        stream = io.BufferedWriter(upload, LINE_BYTES)
        try:
            yield cast("BinaryIO", stream)
            stream.flush()
        except BaseException:
            upload.abort()
            raise
        upload.finish()

    @contextmanager
    def append(self, uri: str) -> Iterator[SegmentedLog]:
        """Go on with a log, or begin it. One process only may append to it."""
        segments = len(self._parts(uri)) - 1
        if segments < 0:
            self.put(uri, b"", if_absent=True)
        with closing(SegmentedLog(partial(self._put_segment, uri), max(segments, 0))) as log:
            yield log

    @contextmanager
    def read_log(self, uri: str) -> Iterator[BinaryIO]:
        """Read a log from its beginning."""
        parts = self._parts(uri)
        # The beginning is deleted first, so if it is still there after the listing, the listing has all of the log.
        if not parts or not self.exists(uri):
            raise NotFound(f"{uri} is not there: check its name")
        raw = SegmentedReader([part.size for part in parts], lambda place: self.read(parts[place].uri))
        with io.BufferedReader(raw, LINE_BYTES) as stream:
            yield cast("BinaryIO", stream)

    def delete(self, *uris: str) -> None:
        """Remove objects, many with one request."""
        for _, some in groupby(sorted(set(uris)), key=lambda uri: uri.split("/")[2]):
            first, *rest = map(self._find, some)
            with objecterrors.writing(uris[0]):
                obstore.delete(first[0], [first[1], *(key for _, key in rest)])

    def _parts(self, uri: str) -> Sequence[StoredObject]:
        """The objects of a log in their order; none without its beginning. Raises `NotFound` when one is missing in between."""
        log = _name(uri)
        listed = ((segment_number(log, _name(found.uri)), found) for found in self.list(_folder(uri)))
        parts = sorted(((number, found) for number, found in listed if number is not None), key=lambda part: part[0])
        missing = next((place for place, (number, _) in enumerate(parts) if number != place), None)
        if missing == 0:
            return []
        if missing is not None:
            raise NotFound(f"{segment_name(uri, missing)} is not there, although later parts of {uri} are")
        return [found for _, found in parts]

    def _put_segment(self, uri: str, number: int, data: bytes) -> None:
        """Write a segment. The client repeats no conditional request that may have been carried out; here that can be seen."""
        try:
            self._put_segment_once(segment_name(uri, number), data)
        except Unreachable:
            self._put_segment_once(segment_name(uri, number), data)

    def _put_segment_once(self, uri: str, data: bytes) -> None:
        try:
            self.put(uri, data, if_absent=True)
        except AlreadyExists as error:
            if self.read(uri) != data:  # else it is our own, and the answer was lost
                raise StoreError(f"{uri} was written by somebody else: one worker only may append to a log") from error

    def _find(self, uri: str) -> tuple[Bucket, str]:
        """The bucket and the key of a URI."""
        address = Address.of(uri)
        name = (address.scheme, address.bucket)
        if name not in self._buckets:
            self._buckets[name] = connect(address)
        return self._buckets[name], address.key


def _folder(uri: str) -> str:
    return uri[: uri.rindex("/") + 1]


def _name(uri: str) -> str:
    return unquote(uri.rpartition("/")[2])


def _head(bucket: Bucket, key: str) -> obstore.ObjectMeta | None:
    try:
        return obstore.head(bucket, key)
    except FileNotFoundError:
        return None
    except BaseError as error:
        if "status code: 4" in str(error):
            obstore.get(bucket, key)  # other than that to a HEAD, its answer says why
        raise


def _below(
    bucket: Bucket, key: str, folder_uri: str, arranged: _Arranged, glob: str | None = None
) -> Iterator[StoredObject]:
    """The objects below a key, whose URIs begin with that of the folder; only those that match the glob, if there is one.

    Consoles make folders as empty objects with a slash at the end of their keys; the client lists them without it, and cannot
    find them then.
    """
    wanted = matcher(glob) if glob is not None else lambda _: True
    prefix = f"{key}/" if key else ""
    listed = obstore.list(bucket, prefix or None, chunk_size=_LISTED_AT_ONCE)
    named = ((found["path"].removeprefix(prefix), found) for some in listed for found in some)
    for name, found in arranged(named):
        if wanted(name) and not _is_hidden(name) and (found["size"] or _head(bucket, found["path"])):
            yield StoredObject(
                object_uri(folder_uri, name), found["size"], found["e_tag"] or "", found["last_modified"]
            )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
