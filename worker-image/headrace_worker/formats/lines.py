"""JSON lines as a stream, in constant memory: a line that is too long for a record is skipped without ever being held."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

from headrace.api.records import MAX_RECORD_BYTES, ErrorCode, RecordError

Line: TypeAlias = tuple[int, int, int, bytes | RecordError]
"""First byte, byte after the last, line number from 1, and the bytes with their line end, or why they cannot be had.

A plain tuple, because a million of them are made in a few seconds.
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def lines(
    stream: BinaryIO, start: int = 0, number: int = 1, end: int | None = None, longest: int = MAX_RECORD_BYTES
) -> Iterator[Line]:
    """The lines that begin before byte `end`, where the stream stands at byte `start`, in line `number`.

    Blank lines are counted and left out, and so is a byte order mark. The last line may lack its newline.
    """
    readline, enough, end = stream.readline, longest + 1, sys.maxsize if end is None else end
    while start < end and (raw := readline(enough)):
        if len(raw) > longest:
            size = len(raw) if raw.endswith(b"\n") else len(raw) + _skip_line(stream, longest)
            yield start, start + size, number, _too_long("line", size)
            start += size
        else:
            if start == 0 and raw.startswith(BYTE_ORDER_MARK):
                raw = raw[len(BYTE_ORDER_MARK) :]
                start = len(BYTE_ORDER_MARK)
            following = start + len(raw)
            if raw and not raw.isspace():
                yield start, following, number, raw
            start = following
        number += 1


def whole(stream: BinaryIO, start: int = 0, longest: int = MAX_RECORD_BYTES) -> Iterator[Line]:
    """The rest of an object as one record, where the stream stands at byte `start`; a byte order mark is left out."""
    raw = stream.read(longest + 1)
    if len(raw) > longest:
        size = len(raw)
        while more := stream.read(longest):
            size += len(more)
        yield start, start + size, 1, _too_long("file", size)
        return
    if start == 0 and raw.startswith(BYTE_ORDER_MARK):
        start, raw = len(BYTE_ORDER_MARK), raw[len(BYTE_ORDER_MARK) :]
    yield start, start + len(raw), 1, raw


def _skip_line(stream: BinaryIO, piece: int) -> int:
    """Read on to the end of the line; returns how many bytes that were."""
    size = 0
    while raw := stream.readline(piece):
        size += len(raw)
        if raw.endswith(b"\n"):
            break
    return size


def _too_long(what: str, size: int) -> RecordError:
    most = MAX_RECORD_BYTES // 1024**2
    return RecordError(
        ErrorCode.LINE_TOO_LONG, f"a {what} of {size / 1024**2:.1f} MiB; a record must have at most {most} MiB"
    )
