"""Objects as streams: one that is read range by range, and a row of them that is read as one. Wrap them in a buffer."""

from __future__ import annotations

import io
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import obstore

from headrace_worker.stores import objecterrors
from headrace_worker.stores.buckets import Bucket

READ_AHEAD = 8
"""Objects of a row that are asked for at once."""


class _Reader(io.RawIOBase):
    """A seekable stream over so many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, target: Any) -> int:
        if self._position >= self._size:
            return 0
        piece = self._piece(self._position, len(target))
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    @abstractmethod
    def _piece(self, start: int, most: int) -> memoryview:
        """Some bytes from `start` on, at least one of them."""


class RangedReader(_Reader):
    """One object. It is read only while it is the same object: raises `StoreError` when it has been replaced."""

    def __init__(self, bucket: Bucket, uri: str, found: obstore.ObjectMeta) -> None:
        super().__init__(found["size"])
        self._bucket, self._uri, self._key, self._version = bucket, uri, found["path"], found["e_tag"]

    def _piece(self, start: int, most: int) -> memoryview:
        options: obstore.GetOptions = {"range": (start, min(start + most, self._size)), "if_match": self._version}
        with objecterrors.reading(self._uri):
            return memoryview(obstore.get(self._bucket, self._key, options=options).bytes())


class SegmentedReader(_Reader):
    """A row of objects; `sizes` are theirs, `fetch` returns the bytes of one by its place in the row."""

    def __init__(self, sizes: Sequence[int], fetch: Callable[[int], bytes]) -> None:
        self._starts = [0, *accumulate(sizes)]
        super().__init__(self._starts[-1])
        self._fetch = fetch
        self._pool = ThreadPoolExecutor(READ_AHEAD, "segments")
        self._near: dict[int, Future[bytes]] = {}

    def close(self) -> None:
        """Let go of what was asked for ahead."""
        self._pool.shutdown(cancel_futures=True)
        self._near.clear()
        super().close()

    def _piece(self, start: int, most: int) -> memoryview:
        place = bisect_right(self._starts, start) - 1
        begin = start - self._starts[place]
        return memoryview(self._object(place))[begin : begin + most]

    def _object(self, place: int) -> bytes:
        """The bytes of an object; those that follow are on their way then, those far from it forgotten."""
        wanted = range(place, min(place + READ_AHEAD, len(self._starts) - 1))
        self._near = {near: self._near.get(near) or self._pool.submit(self._fetch, near) for near in wanted}
        return self._near[place].result()
