"""From the objects of an input to its records: where each one lies, and how its bytes are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from headrace.api.fileformats import Compression, compression_of
from headrace.api.input import Input, InputFormat
from headrace.api.model import Model
from headrace.api.parts import Part, PartReader, part_reader
from headrace.api.records import ErrorCode, Reader, RecordError, id_reader, reader, text_id_reader, text_reader
from headrace_worker.errors import JobFailed
from headrace_worker.formats import csvrows, parquetrows
from headrace_worker.formats.lines import Line, lines, whole
from headrace_worker.formats.unpacking import DAMAGES, skip, unpacked
from headrace_worker.stores.base import Store, StoredObject

_LINES = (InputFormat.OPENAI, InputFormat.JSONL)


def extent(store: Store, found: StoredObject, spec: Input) -> int:
    """The size of what is in an object, in the measure of `records_in`; of one that is damaged, some number."""
    if spec.format == InputFormat.PARQUET:
        try:
            with store.open(found.uri) as stream:
                return parquetrows.extent(stream)
        except RecordError:
            return found.size
    if compression_of(found.uri) == Compression.NONE:
        return found.size
    try:
        with unpacked(store, found.uri) as stream:
            return skip(stream, 2**63)
    except DAMAGES:
        return found.size


def records_in(
    store: Store, uri: str, spec: Input, start: int = 0, number: int = 1, end: int | None = None
) -> Iterator[Line]:
    """The records of an object, or those of its bytes `start` to `end`, of which the first is in line `number`.

    Of the format text the whole object is one record; of CSV and Parquet, rows are lines of JSON. A file that is damaged is an
    error where the damage is, and the last thing that is found in it.
    """
    if spec.format in _LINES and compression_of(uri) == Compression.NONE:  # the usual case has nothing in its way
        with store.open(uri, start) as stream:
            yield from lines(stream, start, number, end)
        return
    at, line = start, number
    try:
        for found in _records(store, uri, spec, start, number, end):
            yield found
            _, at, line, _ = found
            line += 1
    except DAMAGES as error:
        what = f"the file cannot be unpacked as its name says ({compression_of(uri)}): {error}"
        yield at, at + 1, line, RecordError(ErrorCode.DAMAGED_FILE, what)
    except RecordError as error:
        yield at, at + 1, line, error


def _records(store: Store, uri: str, spec: Input, start: int, number: int, end: int | None) -> Iterator[Line]:
    if spec.format == InputFormat.PARQUET:
        with store.open(uri) as stream:
            yield from parquetrows.rows(stream, start, end)
        return
    if spec.format == InputFormat.CSV:
        yield from _csv_rows(store, uri, start, number, end)
        return
    with unpacked(store, uri, start) as stream:
        yield from whole(stream, start) if spec.format == InputFormat.TEXT else lines(stream, start, number, end)


def _csv_rows(store: Store, uri: str, start: int, number: int, end: int | None) -> Iterator[Line]:
    """A shard that begins in the middle reads the first line as well."""
    with unpacked(store, uri) as stream:
        header = csvrows.read_header(stream, csvrows.delimiter_of(uri))
        if header is None:
            return
        if start <= header.size:
            yield from csvrows.rows(stream, header, header.size, header.lines + 1, end)
            return
    with unpacked(store, uri, start) as stream:
        yield from csvrows.rows(stream, header, start, number, end)


def readers(spec: Input, model: Model | None) -> Callable[[str], Reader]:
    """From the name of an object (for text, its `custom_id`) to the reader of the records in it.

    Without a model the records are looked at for their `custom_id` alone. Raises `InvalidSpec` when the prompt's template is wrong.
    """
    if spec.format == InputFormat.TEXT:
        read_text = text_reader(spec, model) if model is not None else text_id_reader()
        return lambda name: partial(read_text, name)
    read = reader(spec, model) if model is not None else id_reader()
    return lambda _: read


def part_readers(spec: Input, model: Model | None) -> Callable[[str], Callable[[bytes, int], Iterator[Part]]]:
    """From the name of an object to the reader of the records in it, for an input that is split: it gives their parts."""
    read = (
        _image_part_reader(spec, model)
        if spec.split is not None and spec.split.by.of_images
        else part_reader(spec, model)
    )
    return lambda name: partial(read, name)


def _image_part_reader(spec: Input, model: Model | None) -> PartReader:
    try:
        from headrace_worker.formats.imageparts import image_part_reader  # noqa: PLC0415 - only here a plan needs to decode anything
    except ModuleNotFoundError as error:
        message = (
            f"input.split needs the Python package {error.name}: install it, as with `pip install headrace[worker]`"
        )
        raise JobFailed("PackageNotInstalled", message) from error
    return image_part_reader(spec, model)
