"""The files of an output, whatever their form: lines are written to them and read from them, the same ones to the last byte.

The same lines give the same file: nothing of the time or the machine is in it. A row of Parquet holds what a line does; its columns
`response`, `error` and `headrace` are the JSON that stands there in the line.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import orjson
import zstandard

from headrace.api.fileformats import Compression, OutputFormat, compression_of, ending
from headrace.api.output import OutputFile
from headrace.api.worker import WorkerConfig
from headrace_worker.formats.parquetrows import pyarrow_parquet
from headrace_worker.formats.unpacking import DAMAGES, unpacking
from headrace_worker.stores.base import Store

_BUFFER_BYTES = 1024 * 1024
_ROW_GROUP_BYTES = 32 * 1024 * 1024
"""So many bytes of lines are a row group of Parquet."""
_ROWS_AT_ONCE = 1024
_COLUMNS = ("id", "custom_id", "response", "error", "attempts", "fingerprint", "headrace")
_NOT_IN_ALL = ("fingerprint", "headrace")
_JSON_COLUMNS = ("response", "error", "headrace")


class Damaged(Exception):
    """A file is not what was committed; the message says why."""


class FileKind(NamedTuple):
    """In which form the files of an output are written."""

    form: OutputFormat = OutputFormat.JSONL
    compression: Compression = Compression.NONE

    @classmethod
    def of(cls, config: WorkerConfig) -> FileKind:
        """As a batch is to have them."""
        return cls(config.output_format, config.output_compression)

    @property
    def ending(self) -> str:
        """What their names end with."""
        return ending(self.form, self.compression)


JSON_LINES = FileKind()


class _Encoder(Protocol):
    """Takes lines, and writes a file of them."""

    def write(self, line: bytes) -> object: ...

    def close(self) -> None: ...


class OutputWriter:
    """One file of the output while it is written: at `uri`, in the manifest at `path`. It is whole when `stack` has been closed."""

    def __init__(self, store: Store, uri: str, path: str, stack: ExitStack, kind: FileKind = JSON_LINES) -> None:
        self._path, self._records = path, 0
        self._hashed = _Hashed(stack.enter_context(store.writer(uri)))
        encoder = _encoder(self._hashed, kind)
        stack.callback(encoder.close)
        self._write = encoder.write

    def write(self, line: bytes) -> None:
        """Add a line, its newline included."""
        self._write(line)
        self._records += 1

    def file(self) -> OutputFile:
        """What has been written."""
        hashed = self._hashed
        return OutputFile(path=self._path, records=self._records, bytes=hashed.size, sha256=hashed.sha256.hexdigest())


def read_lines(store: Store, uri: str, file: OutputFile) -> Generator[bytes]:
    """The lines that were written to a file, which is at `uri`. Raises what the store does, and `Damaged`, maybe only at the end."""
    if not file.records:
        return
    digest = hashlib.sha256()
    with store.open(uri) as stream:
        if uri.endswith(ending(OutputFormat.PARQUET, Compression.NONE)):
            while piece := stream.read(_BUFFER_BYTES):
                digest.update(piece)
            _compare(digest, file)
            stream.seek(0)
            yield from _parquet_lines(stream)
            return
        hashed = cast("BinaryIO", io.BufferedReader(_HashedReader(stream, digest), _BUFFER_BYTES))
        try:
            yield from unpacking(compression_of(uri), hashed)
        except DAMAGES as error:
            raise Damaged(f"it cannot be unpacked: {error}") from error
        _compare(digest, file)


def _compare(digest: Any, file: OutputFile) -> None:
    if digest.hexdigest() != file.sha256:
        raise Damaged("its hash differs")


def _encoder(sink: _Hashed, kind: FileKind) -> _Encoder:
    if kind.form == OutputFormat.PARQUET:
        return _ParquetEncoder(sink, kind.compression)
    if kind.compression == Compression.GZIP:
        return gzip.GzipFile(filename="", fileobj=cast("BinaryIO", sink), mode="wb", compresslevel=6, mtime=0)
    if kind.compression == Compression.ZSTD:
        return cast("_Encoder", zstandard.ZstdCompressor().stream_writer(cast("BinaryIO", sink), closefd=False))
    return _Plain(sink)


class _Plain:
    """Lines as they are, hashed and written many at a time."""

    def __init__(self, sink: _Hashed) -> None:
        self._sink = sink
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _BUFFER_BYTES:
            self.close()

    def close(self) -> None:
        self._sink.write(b"".join(self._lines))
        self._lines, self._size = [], 0


class _Hashed(io.RawIOBase):
    """What is written is counted and hashed on its way."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.sha256, self.size = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = self._stream.write(data)
        self.sha256.update(data)
        self.size += size
        return size

    def tell(self) -> int:
        return self.size


class _HashedReader(io.RawIOBase):
    """What is read is hashed on its way."""

    def __init__(self, stream: BinaryIO, digest: Any) -> None:
        self._stream, self._digest = stream, digest

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        piece = self._stream.read(len(target))
        self._digest.update(piece)
        target[: len(piece)] = piece
        return len(piece)


class _ParquetEncoder:
    """Lines as rows, some tens of mebibytes of them at a time."""

    def __init__(self, sink: _Hashed, compression: Compression) -> None:
        self._pa, pq = pyarrow_parquet()
        pa = self._pa
        self._schema = pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field("custom_id", pa.string(), nullable=False),
                pa.field("response", pa.string()),
                pa.field("error", pa.string()),
                pa.field("attempts", pa.int32(), nullable=False),
                pa.field("fingerprint", pa.string()),
                pa.field("headrace", pa.string()),
            ]
        )
        codec = "NONE" if compression == Compression.NONE else compression.value
        self._writer = pq.ParquetWriter(sink, self._schema, compression=codec)
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._lines:
            self._writer.write_table(self._pa.Table.from_pylist([*map(_as_row, self._lines)], schema=self._schema))
            self._lines, self._size = [], 0


def _as_row(line: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(line)
    return fields | {
        name: orjson.dumps(fields[name]).decode() for name in _JSON_COLUMNS if fields.get(name) is not None
    }


def _parquet_lines(stream: BinaryIO) -> Iterator[bytes]:
    _, pq = pyarrow_parquet()
    for batch in pq.ParquetFile(stream, pre_buffer=False).iter_batches(_ROWS_AT_ONCE, use_threads=False):
        for row in batch.to_pylist():
            yield _as_line(row)


def _as_line(row: dict[str, Any]) -> bytes:
    shown = {name: row[name] for name in _COLUMNS if name not in _NOT_IN_ALL or row[name] is not None}
    parts = {
        name: orjson.Fragment(value) if name in _JSON_COLUMNS and value is not None else value
        for name, value in shown.items()
    }
    return orjson.dumps(parts, option=orjson.OPT_APPEND_NEWLINE)
