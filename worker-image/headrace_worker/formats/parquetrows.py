"""Parquet as lines of JSON: one object a row, read from row group to row group.

A file has no bytes that a row is. For the plan each has as many as the mean row, so that files with few and long rows and files with
many and short ones are cut alike; a shard reads the row groups that its rows are in, and no other.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from headrace.api.records import MAX_RECORD_BYTES, ErrorCode, RecordError
from headrace_worker.errors import JobFailed
from headrace_worker.formats.lines import Line

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_ROWS_AT_ONCE = 512
_BYTES_AT_ONCE = 64 * 1024 * 1024
"""Of rows as they are unpacked: of those that hold images or long texts a few are read at a time."""


def extent(stream: BinaryIO) -> int:
    """The size of a file, as the plan counts it. Raises `RecordError` for a file that is none."""
    file = _opened(stream)
    return int(file.metadata.num_rows) * _row_bytes(file)


def rows(stream: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """The rows from `start` on that begin before `end`. Their line is their number in the file, from 1."""
    file = _opened(stream)
    size = _row_bytes(file)
    number, last = (
        start // size,
        int(file.metadata.num_rows) if end is None else min(end // size, file.metadata.num_rows),
    )
    for row in _from(file, number, last):
        yield number * size, (number + 1) * size, number + 1, _as_json(row)
        number += 1


def _from(file: pq.ParquetFile, first: int, last: int) -> Iterator[dict[str, Any]]:
    """The rows of these numbers."""
    before = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        behind = before + group.num_rows
        if behind > first and before < last:
            place = before
            for batch in file.iter_batches(_at_once(group), row_groups=[number], use_threads=False):
                wanted = batch.slice(max(0, first - place), max(0, min(last, place + len(batch)) - max(first, place)))
                yield from wanted.to_pylist()
                place += len(batch)
        before = behind


def _at_once(group: pq.RowGroupMetaData) -> int:
    """How many of its rows are unpacked at a time: by their mean, for a row has no size before it is unpacked."""
    mean = int(group.total_byte_size) // max(1, int(group.num_rows))
    return min(_ROWS_AT_ONCE, max(1, _BYTES_AT_ONCE // max(1, mean)))


def pyarrow_parquet() -> tuple[Any, Any]:
    """The package pyarrow, and its part for Parquet. Raises `JobFailed` (`PackageNotInstalled`)."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - a large package, and only this format needs it
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise JobFailed(
            "PackageNotInstalled",
            f"Parquet needs the Python package {error.name}: install it, as with `pip install headrace[worker]`",
        ) from error
    return pa, pq


def _opened(stream: BinaryIO) -> pq.ParquetFile:
    pa, pq = pyarrow_parquet()
    try:
        return pq.ParquetFile(stream, pre_buffer=False)
    except pa.ArrowException as error:
        raise RecordError(ErrorCode.DAMAGED_FILE, f"the file is no Parquet file, or not whole: {error}") from error


def _row_bytes(file: pq.ParquetFile) -> int:
    groups = range(file.metadata.num_row_groups)
    size = sum(int(file.metadata.row_group(group).total_byte_size) for group in groups)
    return max(1, size // max(1, int(file.metadata.num_rows)))


def _as_json(row: dict[str, Any]) -> bytes | RecordError:
    try:
        line = orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:
        return RecordError(ErrorCode.INVALID_JSON, f"the row cannot be written as JSON: {error}")
    if len(line) > MAX_RECORD_BYTES:
        message = (
            f"a row of {len(line) / 1024**2:.1f} MiB; a record must have at most {MAX_RECORD_BYTES // 1024**2} MiB"
        )
        return RecordError(ErrorCode.LINE_TOO_LONG, message)
    return line


def _plain(value: Any) -> str:
    """What JSON has no form for: bytes as base64, all else (decimals, durations) as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
