"""Taking compression off an object: a stream of what is in it, in little memory, however much that is.

Nothing but the name of an object says whether it is compressed. What is compressed cannot be begun in the middle: whoever wants to
read from a place on unpacks all that is before it.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import zstandard

from headrace.api.fileformats import Compression, compression_of
from headrace_worker.stores.base import Store

DAMAGES = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading raises when an object is not whole, or not what its name says."""
_BUFFER_BYTES = 1024 * 1024
_PACKED_BYTES = 2048
"""So much is unpacked at a time: of the worst that can be made, it is 64 MiB."""


@contextmanager
def unpacked(store: Store, uri: str, start: int = 0) -> Iterator[BinaryIO]:
    """Read what is in an object from byte `start` on. Raises what the store does, and while it is read one of `DAMAGES`."""
    compression = compression_of(uri)
    if compression == Compression.NONE:
        with store.open(uri, start) as stream:
            yield stream
        return
    with store.open(uri) as packed, unpacking(compression, packed) as stream:
        skip(stream, start)
        yield stream


def unpacking(compression: Compression, packed: BinaryIO) -> BinaryIO:
    """What is in a stream that is compressed so."""
    return _UNPACKERS[compression](packed)


def skip(stream: BinaryIO, size: int) -> int:
    """Read past so many bytes; returns how many there were."""
    skipped = 0
    while skipped < size and (piece := stream.read(min(_BUFFER_BYTES, size - skipped))):
        skipped += len(piece)
    return skipped


def _gunzip(packed: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=packed, mode="rb"))


def _unzstd(packed: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_ZstdReader(packed), _BUFFER_BYTES))


_UNPACKERS: dict[Compression, Callable[[BinaryIO], BinaryIO]] = {
    Compression.NONE: lambda packed: packed,
    Compression.GZIP: _gunzip,
    Compression.ZSTD: _unzstd,
}


class _ZstdReader(io.RawIOBase):
    """One frame after the other. The library's own stream takes an object that ends in the middle of a frame for whole."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._frame: Any = None
        self._rest = b""
        """What is still packed."""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._ready:
            if not self._unpack():
                return 0
        piece = self._ready[: len(target)]
        target[: len(piece)] = piece
        self._ready = self._ready[len(piece) :]
        return len(piece)

    def _unpack(self) -> bool:
        """Unpack some more; False when there is nothing left."""
        piece = self._rest or self._packed.read(_PACKED_BYTES)
        if not piece:
            if self._frame is not None:
                raise EOFError("it ends in the middle of a zstd frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready, self._rest = memoryview(self._frame.decompress(piece)), b""
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        return True
