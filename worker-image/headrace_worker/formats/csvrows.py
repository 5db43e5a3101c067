"""CSV as lines of JSON: one object a row, with the names in the first line, and texts as values.

Rows keep the bytes that they have in the file, so that a shard can begin at any of them. A text in quotes may go over several lines.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import orjson

from headrace.api.records import MAX_RECORD_BYTES, ErrorCode, RecordError
from headrace_worker.formats.lines import BYTE_ORDER_MARK, Line

csv.field_size_limit(MAX_RECORD_BYTES)


class Header(NamedTuple):
    """The first row of a file."""

    names: tuple[str, ...]
    delimiter: str
    size: int
    """Its bytes, and those of what is before it."""
    lines: int


def delimiter_of(name: str) -> str:
    """A tab in files whose name says so, a comma in all others."""
    return "\t" if ".tsv" in name[name.rfind("/") + 1 :].lower() else ","


def read_header(stream: BinaryIO, delimiter: str) -> Header | None:
    """The first row, where the stream stands at its beginning; None when there is none. Raises `RecordError`."""
    size = lines = 0
    while row := _row(stream):
        mark = len(BYTE_ORDER_MARK) if not size and row[0].startswith(BYTE_ORDER_MARK) else 0
        size, lines = size + len(row[0]), lines + row[1]
        if row[0][mark:].isspace():
            continue
        names = _values(row[0][mark:], delimiter)
        wrong = next((name for name in names if not name or names.count(name) > 1), None)
        if wrong is not None:
            what = f"two columns are called {wrong}" if wrong else "a column has no name"
            raise RecordError(
                ErrorCode.INVALID_CSV, f"{what}: the first line must be the names of the columns, each once"
            )
        return Header(tuple(names), delimiter, size, lines)
    return None


def rows(stream: BinaryIO, header: Header, start: int, number: int, end: int | None = None) -> Iterator[Line]:
    """The rows that begin before byte `end`, where the stream stands at byte `start`, in line `number`; blank lines are left out."""
    end = sys.maxsize if end is None else end
    while start < end and (row := _row(stream)):
        raw, lines = row
        following = start + len(raw)
        if not raw.isspace():
            yield start, following, number, _as_json(raw, header)
        start, number = following, number + lines


def _row(stream: BinaryIO) -> tuple[bytes, int] | None:
    """The bytes of the next row, and how many lines that are. What is longer than a record may be is cut somewhere."""
    raw = stream.readline(MAX_RECORD_BYTES + 1)
    if not raw:
        return None
    if raw.count(b'"') % 2 == 0:
        return raw, 1
    pieces, size, odd = [raw], len(raw), True
    while odd and size <= MAX_RECORD_BYTES and (raw := stream.readline(MAX_RECORD_BYTES + 1)):
        pieces.append(raw)
        size += len(raw)
        odd ^= raw.count(b'"') % 2 == 1
    return b"".join(pieces), len(pieces)


def _as_json(raw: bytes, header: Header) -> bytes | RecordError:
    try:
        values = _values(raw, header.delimiter)
    except RecordError as error:
        return error
    if len(values) != len(header.names):
        message = f"the row has {len(values)} values; the first line has {len(header.names)} names"
        return RecordError(ErrorCode.INVALID_CSV, message)
    return orjson.dumps(dict(zip(header.names, values, strict=True)), option=orjson.OPT_APPEND_NEWLINE)


def _values(raw: bytes, delimiter: str) -> list[str]:
    if len(raw) > MAX_RECORD_BYTES:
        message = f"a row of more than {MAX_RECORD_BYTES // 1024**2} MiB: is a quotation mark missing?"
        raise RecordError(ErrorCode.LINE_TOO_LONG, message)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise RecordError(ErrorCode.INVALID_UTF8, f"byte {error.start} of the row is not UTF-8") from error
    try:
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise RecordError(ErrorCode.INVALID_CSV, f"the row is no CSV: {error}") from error
